"""A broker within one event loop, which counts what is asked of it and can be away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from service.errors import BrokerUnavailable
from service.pubsub.broker import Channel, Delivery, Reconnected


class MemoryBroker:
    """A `Broker`."""

    def __init__(self) -> None:
        self.is_away = False
        self.published: list[tuple[Channel, bytes]] = []
        self.subscribed: list[Channel] = []
        """Every call, in order."""
        self.unsubscribed: list[Channel] = []
        self._wanted: set[Channel] = set()
        self._deliveries: asyncio.Queue[Delivery | Reconnected] = asyncio.Queue()

    async def publish(self, messages: Sequence[tuple[Channel, bytes]]) -> list[int]:
        await asyncio.sleep(0)
        if self.is_away:
            raise BrokerUnavailable
        self.published += messages
        for channel, data in messages:
            self.deliver(channel, data)
        return [int(channel in self._wanted) for channel, _ in messages]

    def deliver(self, channel: Channel, data: bytes) -> None:
        """As if another process had published it."""
        if channel in self._wanted:
            self._deliveries.put_nowait(Delivery(channel, data))

    def come_back(self) -> None:
        """Answer again, after something may have been lost."""
        self.is_away = False
        self._deliveries.put_nowait(Reconnected())

    async def subscribe(self, channel: Channel) -> None:
        self.subscribed.append(channel)
        self._wanted.add(channel)
        await asyncio.sleep(0)
        if self.is_away:
            raise BrokerUnavailable

    async def unsubscribe(self, channel: Channel) -> None:
        self.unsubscribed.append(channel)
        self._wanted.discard(channel)
        await asyncio.sleep(0)
        if self.is_away:
            raise BrokerUnavailable

    async def deliveries(self) -> AsyncIterator[Delivery | Reconnected]:
        while True:
            yield await self._deliveries.get()

    async def close(self) -> None:
        """Nothing to let go of."""
