"""Who may call: the session key of an HTTP request, and the three ways a socket can present one.

With no key configured every route is open. Unknown paths stay 404 without a key, since nothing is there to guard.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic_core import from_json
from sanic import Request
from sanic.server.websockets.impl import WebsocketImplProtocol

from service.blueprints.http.context import web_of
from service.errors import Unauthorized

HEADER = "x-session-api-key"
QUERY_NAME = "session_api_key"

FIRST_FRAME_SECONDS = 10.0
"""How long a socket that presented nothing may take to send its key (contract of the published server)."""

FIRST_FRAME_BYTES = 1 << 16
"""What a socket may send until it has presented a key; as much as is read at a time in any case (guess)."""

AUTHENTICATION_FAILED = 4001
"""Close code: do not come back with the same key."""

_GUARDED = "api/"
_GUARDED_OPENAI = "v1/"
"""Where a key may also come as OpenAI's clients send it."""
_BEARER = "bearer "


class SocketAuth(Enum):
    """How a socket stands before its handshake; a bad key never gets that far."""

    OPEN = "open"
    """No key is configured."""
    PRESENTED = "presented"
    """A good key came in the query or the header."""
    AWAITED = "awaited"
    """Nothing came: the first frame has to bring the key."""


def api_keys(request: Request) -> tuple[str, ...]:
    """The keys that are valid now, all of them equally."""
    return web_of(request).settings.auth_keys


def admits(keys: tuple[str, ...], presented: object) -> bool:
    """Whether `presented` is one of the keys, in a time that does not depend on its content; without keys anything is.

    Every key is compared, whatever came before. Anything but a string is no key.
    """
    offered = presented.encode("utf-8", "surrogateescape") if isinstance(presented, str) else b""
    matches = False
    for key in keys:
        matches |= hmac.compare_digest(offered, key.encode("utf-8", "surrogateescape"))
    return matches or not keys


def require_key(request: Request) -> None:
    """Request middleware: refuse a call under /api/ or /v1/ that brings no valid key.

    Runs before any argument is looked at, so a bad body without a key is 401, not 422. Sockets and routes with
    `ctx_keyed_otherwise=True` see to themselves; such a route takes no body in before it has.

    Raises:
        Unauthorized: no key, or none that is configured.
    """
    route = request.route
    if route is None or not route.path.startswith((_GUARDED, _GUARDED_OPENAI)):
        return
    if getattr(route.ctx, "keyed_otherwise", False):
        return
    presented = [request.headers.getone(HEADER, None)]
    if route.path.startswith(_GUARDED_OPENAI):
        presented.append(_bearer(request))
    keys = api_keys(request)
    if not any([admits(keys, each) for each in presented]):
        raise Unauthorized


def _bearer(request: Request) -> str | None:
    given = request.headers.getone("authorization", "")
    return given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else None


def socket_auth(request: Request) -> SocketAuth:
    """Decide what the query and the header of a socket's handshake are worth; the query wins over the header.

    Raises:
        Unauthorized: a key was presented, even an empty one, and it is not valid.
    """
    keys = api_keys(request)
    if not keys:
        return SocketAuth.OPEN
    in_query = request.get_args(keep_blank_values=True).getlist(QUERY_NAME)
    presented = in_query[-1] if in_query else request.headers.getone(HEADER, None)
    if presented is None:
        return SocketAuth.AWAITED
    if not admits(keys, presented):
        raise Unauthorized
    return SocketAuth.PRESENTED


async def authenticate(
    request: Request, websocket: WebsocketImplProtocol, first_frame_seconds: float = FIRST_FRAME_SECONDS
) -> bool:
    """Finish authentication after the handshake. False: the socket has been closed with 4001.

    Takes the first frame off the socket if, and only if, the key is still awaited. A peer that goes away meanwhile
    surfaces as Sanic's `recv` has it: CancelledError or WebsocketClosed.
    """
    if request.ctx.socket_auth is not SocketAuth.AWAITED:
        return True
    frame = await websocket.recv(timeout=first_frame_seconds)
    if admits(api_keys(request), _key_in(frame)):
        websocket.ws_proto.max_message_size = request.app.config.WEBSOCKET_MAX_SIZE
        return True
    await websocket.close(AUTHENTICATION_FAILED, "Authentication failed")
    return False


def is_auth_frame(message: object) -> bool:
    """Whether a parsed frame is a repeated authentication and nothing else; such a frame is ignored, not answered."""
    return isinstance(message, Mapping) and message.get("type") == "auth" and message.keys() <= {"type", QUERY_NAME}


def _key_in(frame: str | bytes | None) -> Any:
    """The key a first frame carries; None for a timeout, a binary frame and everything malformed."""
    if not isinstance(frame, str):
        return None
    try:
        message = from_json(frame)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.get("type") != "auth":
        return None
    return message.get(QUERY_NAME)
