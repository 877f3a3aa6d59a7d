"""The web role's composition root."""

from __future__ import annotations

import asyncio
import itertools
import math
from argparse import Namespace
from typing import Any

from sanic import Sanic

from service import private_redis, supervisor
from service.blueprints import (
    agent_changes,
    agent_extras,
    agent_profiles,
    archive,
    bash,
    bash_input,
    bash_live,
    bash_socket,
    branches,
    conversations,
    editor,
    events,
    files,
    git,
    goals,
    init,
    llm,
    mcp,
    plugins,
    profiles,
    runtime,
    sandbox,
    shell,
    skills,
    subscription,
    tools,
    webhooks,
    workspace_files,
    workspace_session,
    workspaces,
)
from service.blueprints import settings as settings_routes
from service.blueprints.http.context import WebContext
from service.blueprints.openai import gateway as openai_gateway
from service.blueprints.streams import event_socket, event_stream, session_socket
from service.blueprints.streams.socket import close_all
from service.logs import configure_logging
from service.metrics import share_metrics
from service.node_directory import make_node_directory, remove_node_directory
from service.redis_source import RedisSource
from service.runner.embedded import EmbeddedRunner
from service.runner.fleet import run_fleet
from service.settings import Settings
from service.settings.loading import hand_down, load_settings
from service.thread_pool import ThreadPool
from service.tracing import start_tracing, stop_tracing

_KEEP_ALIVE_SECONDS = 75
"""Longer than the usual 60 s of a load balancer, so that it and not we closes an idle connection (guess)."""


def create_app(settings: Settings | Namespace | None = None, *, embedded_runner: bool | None = None) -> Sanic[Any, Any]:
    """A complete server in whatever way Sanic serves it, also inside a running event loop.

    In one process it has a runner in a thread of its own (`embedded_runner=False`: none). Under Sanic's worker
    manager its workers are web workers only, and the manager is given `settings.runners` runner processes to keep.
    `settings` defaults to what the environment says, also for Sanic's own command line, which calls a factory with its
    parsed arguments. Apps in one process share nothing but the agent loop.
    """
    if not isinstance(settings, Settings):
        settings = load_settings()
    supervisor.install()
    app: Sanic[Any, Any] = Sanic(_unused_name(), configure_logging=False)
    _configure(app, settings)
    shell.install(app, settings)
    for blueprint in (
        conversations.blueprint,
        branches.blueprint,
        goals.blueprint,
        agent_changes.blueprint,
        runtime.blueprint,
        sandbox.blueprint,
        event_stream.blueprint,
        events.blueprint,
        event_socket.blueprint,
        session_socket.blueprint,
        bash.blueprint,
        bash.scoped,
        bash_input.blueprint,
        bash_input.scoped,
        bash_live.blueprint,
        bash_live.scoped,
        bash_socket.blueprint,
        archive.blueprint,
        archive.scoped,
        files.blueprint,
        files.scoped,
        git.blueprint,
        git.scoped,
        openai_gateway.blueprint,
        skills.blueprint,
        plugins.blueprint,
        agent_extras.blueprint,
        mcp.blueprint,
        settings_routes.blueprint,
        profiles.blueprint,
        profiles.meta,
        agent_profiles.blueprint,
        llm.blueprint,
        subscription.blueprint,
        workspaces.blueprint,
        tools.blueprint,
        editor.blueprint,
        editor.scoped,
        editor.desktop,
        webhooks.blueprint,
        workspace_files.blueprint,
        workspace_session.blueprint,
        init.blueprint,
    ):
        app.blueprint(blueprint)
    _manage_processes(app, settings)
    _manage_lifetime(app, settings, embedded_runner)
    return app


def _unused_name() -> str:
    """`fanout` for the first app of a process: worker processes find the main process's app by its name."""
    names = (f"fanout-{number}" if number else "fanout" for number in itertools.count())
    return next(name for name in names if name not in Sanic._app_registry)


def _configure(app: Sanic[Any, Any], settings: Settings) -> None:
    app.config.update(
        REQUEST_MAX_SIZE=settings.request_max_bytes,
        RESPONSE_TIMEOUT=math.inf,  # what may take long has limits of its own, and shell commands need none
        KEEP_ALIVE_TIMEOUT=_KEEP_ALIVE_SECONDS,
        GRACEFUL_SHUTDOWN_TIMEOUT=settings.drain_seconds,
        WEBSOCKET_MAX_SIZE=settings.request_max_bytes,
        WEBSOCKET_PING_INTERVAL=settings.socket_ping_seconds,
        WEBSOCKET_PING_TIMEOUT=2 * settings.socket_ping_seconds,
        PROXIES_COUNT=1 if settings.trust_forwarded_headers else None,
        ACCESS_LOG=False,
        MOTD=False,
    )


def _manage_processes(app: Sanic[Any, Any], settings: Settings) -> None:
    """What the main process does when there is one: the runners, and a Redis where none was given."""

    @app.main_process_ready
    async def add_processes(app: Sanic[Any, Any]) -> None:
        configure_logging(settings)  # Sanic's own command line has not
        app.ctx.node_directory = make_node_directory()
        share_metrics(app.ctx.node_directory)
        used = settings
        if settings.redis_address is None:
            socket_path = private_redis.socket_in(app.ctx.node_directory)
            used = hand_down(settings, redis_url=private_redis.url_of(socket_path))
            app.manager.manage(supervisor.REDIS, private_redis.become_redis_server, {"socket_path": str(socket_path)})
        if settings.runners:
            used = _with_own_url(used)
            app.manager.manage("Runners", run_fleet, {"settings": used, "processes": settings.runners})

    @app.main_process_stop
    async def remove_directory(app: Sanic[Any, Any]) -> None:
        remove_node_directory(app.ctx.node_directory)


def _manage_lifetime(app: Sanic[Any, Any], settings: Settings, embedded_runner: bool | None) -> None:
    @app.before_server_start
    async def open_context(app: Sanic[Any, Any]) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPool(None, "disk"))
        source = RedisSource(settings.redis_address, settings.redis_namespace)
        is_managed_worker = hasattr(app, "multiplexer")
        if is_managed_worker:
            configure_logging(settings)
        start_tracing(settings.trace_endpoint)
        is_embedded = not is_managed_worker and settings.runners > 0 if embedded_runner is None else embedded_runner
        runner = EmbeddedRunner(_with_own_url(settings), source) if is_embedded else None
        app.ctx.runner = runner

        def make_context(settings: Settings) -> WebContext:
            return WebContext(settings, source, lambda: runner.failure if runner else None)

        app.ctx.deferred_start = None
        if settings.deferred_init:
            # Imported only where it is wanted: cryptography takes 6 MB.
            from service.blueprints.deferred_start import DeferredStart

            app.ctx.deferred_start = DeferredStart(app.ctx, settings, source, make_context)
            await app.ctx.deferred_start.__aenter__()
        else:
            app.ctx.web = make_context(settings)
            await app.ctx.web.__aenter__()
        if runner is not None:
            runner.start()

    @app.before_server_stop
    async def close_sockets(app: Sanic[Any, Any]) -> None:
        app.ctx.web.is_stopping = True
        await close_all(app)

    @app.after_server_stop
    async def close_context(app: Sanic[Any, Any]) -> None:
        if app.ctx.runner is not None:
            await app.ctx.runner.stop()
        await (app.ctx.deferred_start or app.ctx.web).__aexit__(None, None, None)
        await asyncio.to_thread(stop_tracing)


def _with_own_url(settings: Settings) -> Settings:
    """For runners beside the web role: they reach it where it listens, unless they are told otherwise."""
    return settings.model_copy(update={"internal_server_url": settings.internal_server_url or settings.own_url})
