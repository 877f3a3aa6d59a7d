"""One client's WebSocket, with what Sanic leaves to its users.

* Frames are written as ready bytes, several at once, and a client that takes none for `stall_seconds` is cut off with
  1013: Sanic's own `send` would wait for ever, and its pings behind it.
* A handler never ends in close code 1000 by accident: the SDK's client would reconnect in a hot loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Any, Protocol

import structlog
from sanic import Request, Sanic
from sanic.exceptions import RequestCancelled, WebsocketClosed
from sanic.server.websockets.impl import OPEN, WebsocketImplProtocol

from service.blueprints.http import auth
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import path_of
from service.metrics import metrics
from service.pubsub.hub import Arrival

_log = structlog.get_logger(__name__)

_FAREWELL_SECONDS = 1.0
"""How long a client that has stopped reading may hold up its own close, and with it the end of the server (guess)."""


_UNREAD_LIMIT_BYTES = 1 << 16
"""Where transports of asyncio ask their writers to wait, too."""


class CloseCode(IntEnum):
    """1012 and 1013: come back; 4001 and 4004: stay away (as the SDK's client reads them)."""

    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    AUTHENTICATION_FAILED = auth.AUTHENTICATION_FAILED
    NOT_FOUND = 4004


class Closable(Protocol):
    """A connection that the server keeps open."""

    async def close(self, code: CloseCode, reason: str = "") -> None:
        """Say why where that is possible, and let the client go."""


class ClientGone(Exception):
    """The other side has closed, or has been cut off."""


class Socket:
    """Reads and writes of one connection; writes may come from several tasks."""

    def __init__(self, websocket: WebsocketImplProtocol, stall_seconds: float) -> None:
        self._websocket = websocket
        self._stall_seconds = stall_seconds

    async def write(self, frames: bytes) -> None:
        """Write whole frames.

        Raises:
            ClientGone: the connection is closed, or the client has not read for the stall time.
        """
        if self._websocket.ws_proto.state is not OPEN or self._websocket.io_proto is None:
            raise ClientGone
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._websocket.io_proto.send(frames)
        except TimeoutError:
            # Not `close`: it would wait behind the unread bytes. This drops them and writes the close frame.
            self._websocket.fail_connection(CloseCode.TRY_AGAIN_LATER, "slow_consumer")
            metrics().slow_sockets.inc()
            raise ClientGone from None
        except RequestCancelled:
            raise ClientGone from None

    def take_at_once(self, frame_of: Callable[[Arrival], bytes], arrivals: Sequence[Arrival]) -> bool:
        """Write arrivals in one call, for who writes to many; False, and nothing made, when the client is behind."""
        connection = self._websocket.io_proto
        if connection is None or self._websocket.ws_proto.state is not OPEN:
            return False
        transport = connection.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() >= _UNREAD_LIMIT_BYTES:
            return False
        transport.writelines([frame_of(arrival) for arrival in arrivals])
        return True

    async def read(self) -> str | bytes:
        """The next message. Keep reading: one unread message stops Sanic from answering pings.

        Raises:
            ClientGone: the connection is closed.
        """
        try:
            message = await self._websocket.recv()
        except WebsocketClosed:
            raise ClientGone from None
        except asyncio.CancelledError:
            # Sanic raises it for a closed connection; it is ours only when somebody cancelled this task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ClientGone from None
        if message is None:
            raise ClientGone
        return message if isinstance(message, str | bytes) else bytes(message)

    async def close(self, code: CloseCode, reason: str = "") -> None:
        """Say why, and let the client go; no effect on a closed connection.

        A client that has stopped reading is not waited for: it finds the close frame behind what it has not read.
        """
        if self._websocket.io_proto is None:
            return
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._websocket.io_proto.send(b"")  # returns when the client takes bytes again
                await self._websocket.close(code, reason)
        except TimeoutError:
            self._websocket.fail_connection(code, reason)
        except RequestCancelled:
            return


@asynccontextmanager
async def serving(request: Request, websocket: WebsocketImplProtocol) -> AsyncIterator[Socket]:
    """The socket for the length of its handler. Whatever the handler raises is logged and closes it with 1011."""
    socket = Socket(websocket, web_of(request).settings.socket_stall_seconds)
    sockets = open_sockets(request.app)
    sockets.add(socket)
    assert request.route is not None
    number = metrics().sockets.labels(path_of(request.route))
    number.inc()
    try:
        if web_of(request).is_stopping:
            await socket.close(CloseCode.SERVICE_RESTART)
            raise ClientGone
        yield socket
    except* ClientGone:
        pass
    except* Exception as errors:  # noqa: BLE001  supervisor of one socket; the others go on
        _log.exception("socket_failed", path=request.path, errors=[repr(error) for error in errors.exceptions])
        await socket.close(CloseCode.INTERNAL_ERROR, "internal error")
    finally:
        sockets.discard(socket)
        number.dec()


async def close_all(app: Sanic[Any, Any]) -> None:
    """The server stops: send every client elsewhere."""
    await asyncio.gather(*(socket.close(CloseCode.SERVICE_RESTART) for socket in list(open_sockets(app))))


def open_sockets(app: Sanic[Any, Any]) -> set[Closable]:
    """What `close_all` closes; who opens something adds it and takes it away again."""
    if not hasattr(app.ctx, "sockets"):
        app.ctx.sockets = set()
    sockets: set[Closable] = app.ctx.sockets
    return sockets
