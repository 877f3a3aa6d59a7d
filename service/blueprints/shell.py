"""What surrounds every route of the web role: errors, keys, origins, slashes, the server's own pages."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import MethodNotAllowed, NotFound

from service.blueprints import documentation, metrics, server_details, static_files
from service.blueprints.http import cors, errors, request_trace
from service.blueprints.http.auth import require_key
from service.blueprints.http.guarded_request import request_class
from service.blueprints.http.handshake import admit_socket, is_socket, refusal, unknown_socket
from service.blueprints.http.routing import handlers_at, to_other_slash
from service.blueprints.init import needs_configuration
from service.errors import Dormant
from service.settings import Settings


def install(app: Sanic[Any, Any], settings: Settings) -> None:
    """Put the shell around `app`. Call it before registering other blueprints: they take the slash rule from the app.

    `settings` decides what cannot change later, such as the static files. All else follows `app.ctx.web.settings`,
    request by request.
    """
    app.strict_slashes = True
    app.request_class = request_class(settings)
    errors.install(app)
    # What matched no route is looked at here and not in middlewares, so that other requests never pay for it.
    app.error_handler.add(NotFound, _answer_no_path)
    app.error_handler.add(MethodNotAllowed, _answer_no_method)
    requests = metrics.install(app)
    admit = _check_deferred if settings.deferred_init else _check

    def check(request: Request) -> HTTPResponse | Coroutine[Any, Any, HTTPResponse | None] | None:
        """Request middleware, one for all checks: each middleware costs every request about half a microsecond."""
        requests.start(request)
        return admit(request)

    app.register_middleware(check, "request")
    if settings.trace_endpoint is not None:
        request_trace.install(app)
    app.register_middleware(cors.stamp, "response")
    app.blueprint(server_details.blueprint)
    if settings.static_files_path is not None and settings.static_files_path.is_dir():
        app.blueprint(static_files.blueprint)
    documentation.install(app)


def _check(request: Request) -> HTTPResponse | None:
    route = request.route
    if route is None:
        return None
    if is_socket(route.handler):
        return admit_socket(request)
    require_key(request)
    return None


async def _check_deferred(request: Request) -> HTTPResponse | None:
    route = request.route
    if route is not None and needs_configuration(route):
        try:
            await request.app.ctx.deferred_start.require_ready()
        except Dormant:
            if not is_socket(route.handler):
                raise
            return refusal()
    return _check(request)


def _answer_no_path(request: Request, error: NotFound) -> HTTPResponse:
    answer = None
    if request.route is None:
        answer = unknown_socket(request) or cors.preflight(request) or to_other_slash(request)
    return answer or errors.answer_sanic(request, error)


def _answer_no_method(request: Request, error: MethodNotAllowed) -> HTTPResponse:
    handlers = handlers_at(request, request.path)
    if not handlers or any(map(is_socket, handlers.values())):
        return _answer_no_path(request, NotFound())
    error.headers = {"Allow": ", ".join(handlers)}
    return cors.preflight(request) or errors.answer_sanic(request, error)
