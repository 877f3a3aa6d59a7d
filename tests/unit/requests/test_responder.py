"""The answering side: what it makes of a broker that fails or was away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from unittest.mock import patch

from service.pubsub.broker import Channel, Delivery, Reconnected
from service.requests import responder as responder_module
from service.requests.message import Answer, Request
from service.requests.responder import Responder
from tests.unit.pubsub.memory_broker import MemoryBroker
from tests.waiting import wait_until_async

INBOX = Channel("t:inbox")


class FailingBroker(MemoryBroker):
    """Of which the first look at what comes is an error that nobody expects."""

    has_failed = False

    async def deliveries(self) -> AsyncIterator[Delivery | Reconnected]:
        if not self.has_failed:
            self.has_failed = True
            raise RuntimeError("unexpected")
        async for delivery in super().deliveries():
            yield delivery


async def nothing(request: Request) -> Answer:
    return Answer(200, b"")


async def test_requests_are_taken_after_an_unexpected_error() -> None:
    """A runner that goes on living and hears nothing would own conversations for nobody."""
    broker, told = FailingBroker(), list[bool]()
    with patch.object(responder_module, "_LISTEN_AGAIN_SECONDS", 0):
        async with Responder(broker, INBOX, nothing, lambda: told.append(broker.has_failed)):
            broker.come_back()
            await wait_until_async(lambda: told == [True], "it listens again, and tells that the broker was away")
