"""The calling side: find the runner that must answer, ask it, wait for its reply.

A conversation's requests go to its owner; those of one without an owner, and those that need none, to the least loaded
live runner, which claims the conversation. A runner that died between two heartbeats is noticed at once: nobody
receives the request, and it goes to another, which claims the conversation when the death is certain.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from uuid import UUID

import structlog

from service.catalog.catalog import Catalog
from service.catalog.liveness import is_gone_from_here
from service.errors import BrokerUnavailable, JsonObject, NoRunner, OutcomeUnknown, OwnerMoving, from_wire
from service.identity import RunnerId
from service.metrics import metrics
from service.pubsub.broker import Broker, Channel, Reconnected, Unconfirmed
from service.requests.message import (
    IN_PROGRESS,
    PROGRESS_SECONDS,
    Answer,
    Reply,
    Request,
    decode_reply,
    encode_request,
)
from service.requests.placement import Placement
from service.tasks import TaskSet
from service.tracing import traceparent

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.1
_LOOK_AFTER_SECONDS = 0.5
_SILENCE_SECONDS = 5 * PROGRESS_SECONDS
"""A runner that has not been heard of for so long, with a request of ours in its hands, is taken for dead."""


class _RunnerDied(Exception):
    """With our request in its hands, or is taken for dead; it may have had its effect."""


@dataclass
class _Waiting:
    """A request in a runner's hands."""

    reply: asyncio.Future[Reply]
    heard_at: float
    """When the runner was last heard of (monotonic time)."""


class Requester:
    """Use as `async with`. All methods on one event loop."""

    def __init__(self, broker: Broker, catalog: Catalog, *, timeout_seconds: float, moving_seconds: float) -> None:
        """`timeout_seconds`: for an ordinary reply. `moving_seconds`: for a conversation to find a new owner.

        However long a request may take, a runner that dies with it in its hands is noticed within eleven seconds.
        """
        self._broker = broker
        self._keys = catalog.keys
        self._runners = catalog.runners
        self._placement = Placement(catalog.runners, catalog.owners)
        self._timeout_seconds = timeout_seconds
        self._moving_seconds = moving_seconds
        self._reply_to = Channel(catalog.keys.replies(uuid.uuid4().hex))
        self._waiting: dict[str, _Waiting] = {}
        self._tasks = TaskSet()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listener = self._tasks.start(self._listen(), "reply-listener")
        try:
            await self._broker.subscribe(self._reply_to)
        except BrokerUnavailable:
            _log.warning("broker_unavailable_at_start")  # it is subscribed to when the broker is there
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._tasks.stop()

    @property
    def is_listening(self) -> bool:
        """Whether replies can arrive."""
        return self._listener is not None and not self._listener.done()

    async def ask(
        self,
        operation: str,
        conversation_id: UUID | None = None,
        *,
        body: bytes = b"",
        arguments: JsonObject | None = None,
        timeout_seconds: float | None = None,
        runner_id: RunnerId | None = None,
    ) -> Answer:
        """Have a runner do `operation` and return what it answered; waits while the conversation changes owners.

        `runner_id` names the one runner that can; otherwise it is the conversation's owner, or any.
        With an `idempotency_key` among the arguments it is repeated when the runner dies with it.

        Raises:
            NoRunner: no live runner took the request in time, or the one that was named is gone; nothing happened.
            OwnerMoving: the conversation found no new owner in time; nothing happened.
            BrokerUnavailable: Redis does not answer; nothing happened.
            OutcomeUnknown: a runner took the request, and did not answer in time or was heard of no more; or Redis took
                it, and did not say whether a runner did.
            FanoutError: whatever the runner raised.
        """
        asked_at = time.monotonic()
        try:
            return await self._ask(operation, conversation_id, body, arguments or {}, timeout_seconds, runner_id)
        except (NoRunner, OwnerMoving, BrokerUnavailable, OutcomeUnknown) as error:
            metrics().runner_request_failures.labels(type(error).__name__).inc()
            raise
        finally:
            metrics().runner_request_seconds.labels(operation).observe(time.monotonic() - asked_at)

    async def _ask(
        self,
        operation: str,
        conversation_id: UUID | None,
        body: bytes,
        arguments: JsonObject,
        timeout_seconds: float | None,
        runner_id: RunnerId | None,
    ) -> Answer:
        asked_at = time.monotonic()
        timeout_seconds = timeout_seconds or self._timeout_seconds
        give_up_at = asked_at + self._moving_seconds
        unheard: RunnerId | None = None
        was_taken = False
        span = traceparent()
        while True:
            request = Request(uuid.uuid4().hex, operation, conversation_id, self._reply_to, arguments, body, span)
            try:
                asked = runner_id or await self._placement.find(conversation_id, unheard)
                reply = await self._exchange(request, asked, timeout_seconds)
                if reply is not None:
                    return _answer(reply)
                _log.warning("runner_gone", runner_id=asked, operation=operation)
                if unheard is None and runner_id is None:
                    unheard = asked
                    continue
                raise NoRunner if conversation_id is None else OwnerMoving(str(conversation_id))
            except _RunnerDied:
                waited_seconds = time.monotonic() - asked_at
                if arguments.get("idempotency_key") is None or waited_seconds > timeout_seconds:
                    raise OutcomeUnknown(operation, waited_seconds) from None
                unheard, was_taken = asked, True
                continue
            except (NoRunner, OwnerMoving, BrokerUnavailable) as error:
                self._placement.forget(conversation_id)
                is_final = isinstance(error, BrokerUnavailable) or (runner_id and await self._is_dead(runner_id))
                if is_final or time.monotonic() > give_up_at:
                    if was_taken:
                        raise OutcomeUnknown(operation, time.monotonic() - asked_at) from None
                    raise
            unheard = None
            await asyncio.sleep(_RETRY_SECONDS)

    async def _exchange(self, request: Request, runner_id: RunnerId, timeout_seconds: float) -> Reply | None:
        """Ask one runner; None when nobody received the request."""
        waiting = _Waiting(asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting[request.request_id] = waiting
        try:
            async with asyncio.timeout(timeout_seconds):
                inbox = Channel(self._keys.inbox(runner_id))
                [receivers] = await self._broker.publish([(inbox, encode_request(request))])
                return await self._watched(waiting, runner_id) if receivers else None
        except TimeoutError:
            raise OutcomeUnknown(request.operation, timeout_seconds) from None
        except Unconfirmed:
            raise OutcomeUnknown(request.operation, time.monotonic() - waiting.heard_at) from None
        finally:
            self._waiting.pop(request.request_id, None)

    async def _watched(self, waiting: _Waiting, runner_id: RunnerId) -> Reply:
        """The reply. Redis may count a runner that was killed a moment ago among the receivers: look after it."""
        while not waiting.reply.done():
            # Silence counts up to here: if this process now stands still, what comes meanwhile is read afterwards.
            silent_seconds = time.monotonic() - waiting.heard_at
            await asyncio.wait([waiting.reply], timeout=_LOOK_AFTER_SECONDS)
            if waiting.reply.done():
                break
            if silent_seconds > _SILENCE_SECONDS or await self._is_dead(runner_id):
                raise _RunnerDied
        return waiting.reply.result()

    async def _is_dead(self, runner_id: RunnerId) -> bool:
        with suppress(BrokerUnavailable):
            return is_gone_from_here(runner_id) or await self._runners.is_silent(runner_id)
        return False

    async def _listen(self) -> None:
        async for delivery in self._broker.deliveries():
            if isinstance(delivery, Reconnected):
                continue
            try:
                reply = decode_reply(delivery.data)
            except (ValueError, KeyError) as error:
                _log.warning("malformed_reply", error=repr(error))
                continue
            waiting = self._waiting.get(reply.request_id)
            if waiting is None or waiting.reply.done():
                continue
            if reply.status == IN_PROGRESS:
                waiting.heard_at = time.monotonic()
            else:
                waiting.reply.set_result(reply)


def _answer(reply: Reply) -> Answer:
    if reply.error is not None:
        raise from_wire(reply.error)
    return Answer(reply.status, reply.body)
