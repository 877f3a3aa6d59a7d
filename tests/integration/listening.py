"""A broker that is listened to, as a hub, a requester and a responder do."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from service.catalog.keys import Keys
from service.pubsub import brokers
from service.pubsub.broker import Broker, Channel, Reconnected
from service.redis_source import RedisSource
from tests.waiting import wait_until_async


def make_broker(source: RedisSource) -> Broker:
    """A broker of its own connections."""
    return brokers.make_broker(source, Channel(Keys(source.namespace).control))


class Listening:
    """Reads everything a broker delivers, for the length of the block."""

    def __init__(self, source: RedisSource) -> None:
        self.broker = make_broker(source)
        self.messages: list[tuple[Channel, bytes]] = []
        self.reconnections = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.broker.close()

    @property
    def payloads(self) -> list[bytes]:
        """What was received, the channels left out."""
        return [data for _, data in self.messages]

    async def receives(self, count: int) -> None:
        """Wait until `count` messages have come."""
        await wait_until_async(lambda: len(self.messages) >= count, f"{count} messages have come")

    async def reconnects(self) -> None:
        """Wait until the broker says that something may be lost."""
        await wait_until_async(lambda: self.reconnections, "the broker has reconnected")

    async def _listen(self) -> None:
        async for delivery in self.broker.deliveries():
            if isinstance(delivery, Reconnected):
                self.reconnections += 1
            else:
                self.messages.append((delivery.channel, delivery.data))
