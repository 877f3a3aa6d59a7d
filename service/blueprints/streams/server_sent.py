"""An answer of server-sent events, which lasts for as long as its client stays and the server runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, cast

from sanic import HTTPResponse, Request

from service.blueprints.http.context import web_of
from service.blueprints.streams.socket import ClientGone, CloseCode, open_sockets
from service.metrics import metrics

_KEEP_ALIVE_SECONDS = 10.0
"""How often a quiet stream sends a comment, so that proxies do not cut it off."""
_COMMENT = b": alive\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class EventStream:
    """The writing side, from one task besides the keep-alive."""

    def __init__(self, request: Request, response: HTTPResponse) -> None:
        web = web_of(request)
        self._request = request
        self._response = response
        self._stall_seconds = web.settings.socket_stall_seconds
        self._written_at = time.monotonic()
        self._producing: asyncio.Task[None] | None = None
        self.is_cut_off = web.is_stopping
        """Whether the server has ended it, before all was said."""

    async def write(self, events: bytes) -> None:
        """Write whole events.

        Raises:
            ClientGone: the client has not read for the stall time.
        """
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._response.send(events)
        except TimeoutError:
            self._abort()
            metrics().slow_sockets.inc()
            raise ClientGone from None
        self._written_at = time.monotonic()

    async def close(self, code: CloseCode, reason: str = "") -> None:
        """End the answer; the client comes back by itself."""
        self.is_cut_off = self._producing is None or self._producing.cancel()

    async def run(self, produce: Callable[[EventStream], Coroutine[Any, Any, None]]) -> None:
        """Until `produce` is done or the stream is closed.

        Raises:
            ClientGone: as `write`.
            Exception: whatever `produce` raises; the client sees that the answer is not whole.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                keep_alive = tasks.create_task(self._keep_alive())
                self._producing = tasks.create_task(produce(self))
                await asyncio.wait([self._producing])
                keep_alive.cancel()
        except ExceptionGroup as errors:
            self._abort()  # Sanic would end the answer as if this were all
            raise errors.exceptions[0] from None

    def _abort(self) -> None:
        cast(asyncio.WriteTransport, self._request.transport).abort()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_ALIVE_SECONDS)
            if time.monotonic() - self._written_at > _KEEP_ALIVE_SECONDS / 2:
                await self.write(_COMMENT)


async def answer_with_events(
    request: Request,
    produce: Callable[[EventStream], Coroutine[Any, Any, None]],
    headers: Mapping[str, str] = MappingProxyType({}),
    farewell: bytes = b"",
) -> None:
    """Answer with what `produce` writes, until it returns, the client goes or the server stops.

    `headers` are those of the answer beside the stream's own. `farewell` is for clients that take an end for the end of
    all there is: the last event when the server stops. Others come back, as they would not after an error.
    """
    response = await request.respond(headers={**_HEADERS, **headers}, content_type="text/event-stream; charset=utf-8")
    stream = EventStream(request, response)
    streams = open_sockets(request.app)
    streams.add(stream)
    try:
        await stream.write(_COMMENT)  # the headers go with the first bytes
        if not stream.is_cut_off:
            await stream.run(produce)
        if stream.is_cut_off:
            await stream.write(farewell)
        await response.eof()
    except ClientGone:
        pass
    finally:
        streams.discard(stream)
