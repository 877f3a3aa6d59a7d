"""The answering side, in a runner: take requests off the inbox, do them, reply.

Each request is a task of its own, so a slow one holds nobody up. A reply may be lost: a caller that asks again sends a
new request, and what keeps it from having a second effect is its idempotency key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Self

import structlog
from structlog.contextvars import bind_contextvars

from service.errors import BrokerUnavailable, FanoutError, RequestFailed, to_wire
from service.pubsub.broker import Broker, Channel, Reconnected
from service.requests.message import (
    IN_PROGRESS,
    PROGRESS_SECONDS,
    Answer,
    Reply,
    Request,
    decode_request,
    encode_reply,
)
from service.tasks import TaskSet, repeat
from service.tracing import traced

_log = structlog.get_logger(__name__)

_LISTEN_AGAIN_SECONDS = 0.2
"""After an error that nobody expected."""
_LAST_ANSWERS_SECONDS = 1.0
"""For the requests in hand when the runner stops; it has let go of what they could wait for."""

Handler = Callable[[Request], Awaitable[Answer]]


class Responder:
    """Use as `async with`; `handle` is called for each request, `reconnected` when some may have been lost."""

    def __init__(self, broker: Broker, inbox: Channel, handle: Handler, reconnected: Callable[[], None]) -> None:
        self._broker = broker
        self._inbox = inbox
        self._handle = handle
        self._reconnected = reconnected
        self._tasks = TaskSet()
        self._requests = TaskSet()

    async def __aenter__(self) -> Self:
        self._tasks.start(repeat(self._listen, "inbox-listener", _LISTEN_AGAIN_SECONDS), "inbox-listener")
        await self._broker.subscribe(self._inbox)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Take no more, and answer what was taken."""
        with suppress(BrokerUnavailable):
            await self._broker.unsubscribe(self._inbox)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ANSWERS_SECONDS):
                await self._requests.wait()
        await self._requests.stop()
        await self._tasks.stop()

    async def _listen(self) -> None:
        async for delivery in self._broker.deliveries():
            if isinstance(delivery, Reconnected):
                self._reconnected()
                continue
            try:
                request = decode_request(delivery.data)
            except (ValueError, KeyError) as error:
                _log.warning("malformed_request", error=repr(error))
                continue
            self._requests.start(self._respond(request), f"request {request.operation}")

    async def _respond(self, request: Request) -> None:
        bind_contextvars(**_ids(request))
        with traced(request.operation, "SERVER", request.traceparent, **_ids(request)):
            reply = await self._reply(request)
        await self._send(request, reply)

    async def _send(self, request: Request, reply: Reply) -> None:
        try:
            await self._broker.publish([(Channel(request.reply_to), encode_reply(reply))])
        except BrokerUnavailable:
            _log.warning("reply_lost", operation=request.operation, request_id=request.request_id)

    @contextmanager
    def _showing_progress(self, request: Request) -> Iterator[None]:
        """While the block runs the caller hears of it every few seconds; most are over before and cost no task."""
        with ExitStack() as stack:

            def show() -> None:
                task = self._tasks.start(self._show_progress(request), f"progress {request.operation}")
                stack.callback(task.cancel)

            stack.callback(asyncio.get_running_loop().call_later(PROGRESS_SECONDS, show).cancel)
            yield

    async def _show_progress(self, request: Request) -> None:
        while True:
            await self._send(request, Reply(request.request_id, IN_PROGRESS, None, b""))
            await asyncio.sleep(PROGRESS_SECONDS)

    async def _reply(self, request: Request) -> Reply:
        try:
            with self._showing_progress(request):
                answer = await self._handle(request)
        except FanoutError as error:
            return Reply(request.request_id, 0, to_wire(error), b"")
        except Exception as error:  # noqa: BLE001  supervisor: one request's bug must not stop the others
            _log.exception("request_crashed", operation=request.operation, request_id=request.request_id)
            crash = RequestFailed(f"{type(error).__name__}: {error}")
            return Reply(request.request_id, 0, to_wire(crash), b"")
        return Reply(request.request_id, answer.status, None, answer.body)


def _ids(request: Request) -> dict[str, str]:
    ids = {"request_id": request.request_id, "conversation_id": request.conversation_id}
    return {name: str(value) for name, value in ids.items() if value is not None}
