"""An answer of server-sent events, which lasts for as long as its client stays and the server runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, cast

from sanic import HTTPResponse, Request

from service.blueprints.context import web_of
from service.blueprints.socket import ClientGone, CloseCode, open_sockets
from service.errors import Unavailable
from service.metrics import metrics

_KEEP_ALIVE_SECONDS = 10.0
"""How often a quiet stream sends a comment, so that proxies do not cut it off."""
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class EventStream:
    """The writing side, from one task besides the keep-alive."""

    def __init__(self, request: Request, response: HTTPResponse) -> None:
        self._request = request
        self._response = response
        self._stall_seconds = web_of(request).settings.socket_stall_seconds
        self._written_at = time.monotonic()
        self._work: list[asyncio.Task[None]] = []

    async def write(self, events: bytes) -> None:
        """Write whole events.

        Raises:
            ClientGone: the client has not read for the stall time.
        """
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._response.send(events)
        except TimeoutError:
            cast(asyncio.WriteTransport, self._request.transport).abort()
            metrics().slow_sockets.inc()
            raise ClientGone from None
        self._written_at = time.monotonic()

    async def close(self, code: CloseCode, reason: str = "") -> None:
        """End the answer; the client comes back by itself."""
        for task in self._work:
            task.cancel()

    async def run(self, produce: Callable[[EventStream], Coroutine[Any, Any, None]]) -> None:
        """Until `produce` is done or the stream is closed."""
        async with asyncio.TaskGroup() as tasks:
            self._work = [tasks.create_task(self._keep_alive()), tasks.create_task(self._produce(produce))]

    async def _produce(self, produce: Callable[[EventStream], Coroutine[Any, Any, None]]) -> None:
        await produce(self)
        self._work[0].cancel()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_ALIVE_SECONDS)
            if time.monotonic() - self._written_at > _KEEP_ALIVE_SECONDS / 2:
                await self.write(b": alive\n\n")


async def answer_with_events(
    request: Request,
    produce: Callable[[EventStream], Coroutine[Any, Any, None]],
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Answer with what `produce` writes, until it returns, the client goes or the server stops.

    `headers` are those of the answer beside the stream's own.

    Raises:
        Unavailable: the server is stopping.
    """
    if web_of(request).is_stopping:
        raise Unavailable("The server is stopping. Retry the request.")
    response = await request.respond(headers={**_HEADERS, **headers}, content_type="text/event-stream; charset=utf-8")
    stream = EventStream(request, response)
    streams = open_sockets(request.app)
    streams.add(stream)
    try:
        await stream.run(produce)
        await response.eof()
    except* ClientGone:
        pass
    finally:
        streams.discard(stream)
