"""`/api/init`: the configuration of a server whose start is deferred (`OH_DEFERRED_INIT`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel
from sanic import Blueprint, HTTPResponse, Request
from sanic_routing.route import Route

from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import body, json_bytes
from service.blueprints.http.auth import admits
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented
from service.errors import NotFound, Unauthorized
from service.settings.late import LateSettings

if TYPE_CHECKING:
    from service.blueprints.deferred_start import DeferredStart

_KEY_HEADER = "x-init-api-key"
_CONFIGURED = ("api/", "v1/", "sockets/")
_PATH = "api/init"

blueprint = Blueprint("init", url_prefix=f"/{_PATH}")


class InitStatus(BaseModel):
    state: str
    error: str | None


@blueprint.get("", ctx_keyed_otherwise=True)
@documented(summary="How far a deferred start has come", response=InitStatus, errors=(404,))
async def read_state(request: Request) -> HTTPResponse:
    return await _status(_deferred_start(request))


@blueprint.post("", stream=True, ctx_keyed_otherwise=True)
@documented(
    summary="Give a server with a deferred start its configuration; `X-Init-API-Key` is its secret key",
    body=LateSettings,
    response=InitStatus,
    errors=(400, 401, 404, 422, 500),
)
async def initialize(request: Request) -> HTTPResponse:
    """Answers once requests are served, by any web worker. With `{}` all stays as the processes were started with."""
    _require_key(request)
    deferred_start = _deferred_start(request)
    await request.receive_body()
    late = body(request, LateSettings)
    await deferred_start.initialize(late, json_bytes(request))
    return await _status(deferred_start)


def needs_configuration(route: Route) -> bool:
    """Whether a route answers only once there is a configuration."""
    return route.path.startswith(_CONFIGURED) and route.path != _PATH


def _require_key(request: Request) -> None:
    """The secret key that holds now opens the route, deferred or not; without one it is open.

    Raises:
        Unauthorized: it is another one, or a blank one was configured, which nobody can present.
    """
    settings = web_of(request).settings
    if settings.cipher_key is None and settings.secret_key is None:
        return
    if settings.cipher_key is None or not admits((settings.cipher_key,), request.headers.getone(_KEY_HEADER, None)):
        raise Unauthorized


def _deferred_start(request: Request) -> DeferredStart:
    """Raises NotFound where the start was not deferred."""
    deferred_start: DeferredStart | None = request.app.ctx.deferred_start
    if deferred_start is None:
        raise NotFound("server is not running with deferred_init=True; the /api/init endpoint is not available")
    return deferred_start


async def _status(deferred_start: DeferredStart) -> HTTPResponse:
    return json_answer(InitStatus(state=await deferred_start.state(), error=await deferred_start.failure()))
