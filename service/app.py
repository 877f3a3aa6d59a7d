"""The web role's composition root."""

from __future__ import annotations

import uuid
from typing import Any

from sanic import Sanic

from service.blueprints import conversations, event_socket, events, shell
from service.blueprints.context import WebContext
from service.blueprints.socket import close_all
from service.redis_source import RedisSource
from service.runner.embedded import EmbeddedRunner
from service.settings import Settings, load_settings

_KEEP_ALIVE_SECONDS = 75
"""Longer than the usual 60 s of a load balancer, so that it and not we closes an idle connection (guess)."""


def create_app(settings: Settings | None = None, *, embedded_runner: bool = True) -> Sanic[Any, Any]:
    """A complete server: the routers and, unless told otherwise, a runner in a thread of the same process.

    `settings` defaults to what the environment says. Nothing is shared between apps but the agent loop, which must be
    one per process. The app can be served by Sanic in any of its ways, also inside a running event loop.
    """
    settings = settings or load_settings()
    app: Sanic[Any, Any] = Sanic(f"fanout-{uuid.uuid4().hex[:12]}", configure_logging=False)
    _configure(app, settings)
    shell.install(app, settings)
    for module in (conversations, events, event_socket):
        app.blueprint(module.blueprint)
    _manage_lifetime(app, settings, embedded_runner)
    return app


def _configure(app: Sanic[Any, Any], settings: Settings) -> None:
    app.config.update(
        REQUEST_MAX_SIZE=settings.request_max_bytes,
        RESPONSE_TIMEOUT=settings.request_timeout_seconds + 600,  # long operations have limits of their own
        KEEP_ALIVE_TIMEOUT=_KEEP_ALIVE_SECONDS,
        GRACEFUL_SHUTDOWN_TIMEOUT=settings.drain_seconds,
        WEBSOCKET_MAX_SIZE=settings.request_max_bytes,
        WEBSOCKET_PING_INTERVAL=10,
        WEBSOCKET_PING_TIMEOUT=20,
        ACCESS_LOG=False,
        MOTD=False,
    )


def _manage_lifetime(app: Sanic[Any, Any], settings: Settings, embedded_runner: bool) -> None:
    source = RedisSource(settings.redis_address, settings.redis_namespace)
    runner = EmbeddedRunner(settings, source) if embedded_runner else None

    @app.before_server_start
    async def open_context(app: Sanic[Any, Any]) -> None:
        app.ctx.web = WebContext(settings, source, lambda: runner.failure if runner else None)
        await app.ctx.web.__aenter__()
        if runner is not None:
            runner.start()

    @app.before_server_stop
    async def close_sockets(app: Sanic[Any, Any]) -> None:
        await close_all(app)

    @app.after_server_stop
    async def close_context(app: Sanic[Any, Any]) -> None:
        if runner is not None:
            await runner.stop()
        await app.ctx.web.__aexit__(None, None, None)
