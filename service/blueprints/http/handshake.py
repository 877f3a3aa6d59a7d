"""Letting a socket in before it opens, or refusing it: HTTP 403 with an empty body, whatever the reason.

A socket route may name a function that parses its path and query, `ctx_admit=parse`; what it returns is kept as
`request.ctx.admitted`, and any `Refused` it raises refuses the handshake:

    @blueprint.websocket("/events/<conversation_id:str>", ctx_admit=parse_events_request)
    async def events(request, websocket, conversation_id): ...

Whether the socket may open is decided in a request middleware because that is the last place from which Sanic still
sends an HTTP response; inside the handler the handshake is over.
"""

from __future__ import annotations

from typing import cast

from sanic import HTTPResponse, Request
from sanic.exceptions import NotFound
from sanic.server.protocols.websocket_protocol import WebSocketProtocol

from service.blueprints.http.auth import FIRST_FRAME_BYTES, SocketAuth, socket_auth
from service.errors import Refused


def admit_socket(request: Request) -> HTTPResponse | None:
    """Request middleware: let a socket's handshake pass, or answer 403. No effect on other routes.

    Leaves `request.ctx.socket_auth` (SocketAuth) and `request.ctx.admitted` for the handler.

    Raises:
        NotFound: a plain request on a socket's path; there is nothing to read there.
    """
    route = request.route
    if route is None or not is_socket(route.handler):
        return None
    if not wants_upgrade(request):
        raise NotFound
    admit = getattr(route.ctx, "admit", None)
    try:
        request.ctx.socket_auth = socket_auth(request)
        request.ctx.admitted = admit(request) if admit is not None else None
    except Refused:
        return refusal()
    if request.ctx.socket_auth is SocketAuth.AWAITED:
        cast(WebSocketProtocol, request.protocol).websocket_max_size = FIRST_FRAME_BYTES
    return None


def unknown_socket(request: Request) -> HTTPResponse | None:
    """The answer to a handshake on a path that is no socket's."""
    return refusal() if wants_upgrade(request) else None


def wants_upgrade(request: Request) -> bool:
    return str(request.headers.getone("upgrade", "")).lower() == "websocket"


def is_socket(handler: object) -> bool:
    return hasattr(handler, "is_websocket")


def refusal() -> HTTPResponse:
    return HTTPResponse(status=403, content_type="text/plain; charset=utf-8")
