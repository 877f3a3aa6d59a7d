"""The calling side: find the runner that must answer, ask it, wait for its reply.

A conversation's requests go to its owner; those of one without an owner, and those that need none, to the least loaded
live runner, which claims the conversation. A runner that died between two heartbeats is noticed at once: nobody
receives the request, and it goes to another.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import NamedTuple, Self
from uuid import UUID

import structlog

from service.catalog.keys import Keys
from service.catalog.owners import Owners
from service.catalog.runners import Runners
from service.errors import NoRunner, OutcomeUnknown, OwnerMoving, from_wire
from service.identity import RunnerId
from service.pubsub.broker import Broker, Channel, Reconnected
from service.requests.message import JsonObject, Reply, Request, decode_reply, encode_request
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_PLACEMENT_TRIES = 3


class Answer(NamedTuple):
    """A successful reply: HTTP status and JSON bytes, ready to be sent."""

    status: int
    body: bytes


class Requester:
    """Use as `async with`. All methods on one event loop."""

    def __init__(self, broker: Broker, keys: Keys, runners: Runners, owners: Owners, timeout_seconds: float) -> None:
        self._broker = broker
        self._keys = keys
        self._runners = runners
        self._owners = owners
        self._timeout_seconds = timeout_seconds
        self._reply_to = Channel(keys.replies(uuid.uuid4().hex))
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._tasks = TaskSet()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listener = self._tasks.start(self._listen(), "reply-listener")
        await self._broker.subscribe(self._reply_to)
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
    ) -> Answer:
        """Have a runner do `operation` and return what it answered.

        Raises:
            NoRunner: no live runner took the request; nothing happened.
            OwnerMoving: the owner is gone and its lease still stands; nothing happened.
            BrokerUnavailable: Redis does not answer.
            OutcomeUnknown: a runner took the request and did not answer in time.
            FanoutError: whatever the runner raised.
        """
        request_id = uuid.uuid4().hex
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = reply
        request = Request(request_id, operation, conversation_id, self._reply_to, arguments or {}, body)
        try:
            await self._deliver(request)
            return await self._answer(operation, reply, timeout_seconds or self._timeout_seconds)
        finally:
            del self._waiting[request_id]

    async def _deliver(self, request: Request) -> None:
        message = encode_request(request)
        for _ in range(_PLACEMENT_TRIES):
            runner_id = await self._place(request.conversation_id)
            [receivers] = await self._broker.publish([(Channel(self._keys.inbox(runner_id)), message)])
            if receivers:
                return
            _log.warning("runner_gone", runner_id=runner_id, operation=request.operation)
            await self._runners.leave(runner_id)
        if request.conversation_id is not None:
            raise OwnerMoving(str(request.conversation_id))
        raise NoRunner

    async def _place(self, conversation_id: UUID | None) -> RunnerId:
        if conversation_id is not None:
            owner = await self._owners.find(conversation_id)
            if owner is not None:
                return owner
        alive = await self._runners.alive()
        if not alive:
            raise NoRunner
        return alive[0].runner_id

    async def _answer(self, operation: str, reply: asyncio.Future[Reply], timeout_seconds: float) -> Answer:
        try:
            async with asyncio.timeout(timeout_seconds):
                came = await reply
        except TimeoutError:
            raise OutcomeUnknown(operation, timeout_seconds) from None
        if came.error is not None:
            raise from_wire(came.error)
        return Answer(came.status, came.body)

    async def _listen(self) -> None:
        async for delivery in self._broker.deliveries():
            if isinstance(delivery, Reconnected):
                continue
            reply = decode_reply(delivery.data)
            waiting = self._waiting.get(reply.request_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)
