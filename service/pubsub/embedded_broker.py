"""The broker of a server that is one process: between its threads, without a connection that could break."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

from service.exchange import Exchange
from service.pubsub.broker import Channel, Delivery, Reconnected

_BACKLOG_LIMIT_BYTES = 64 << 20
"""A loop that is so far behind loses what waits and is told so, as by a Redis that closes the connection."""


class EmbeddedBroker:
    """A `Broker`; its methods belong to the loop it was made on, what it receives may come from any thread."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._channels: set[Channel] = set()
        self._lock = threading.Lock()
        self._waiting: list[Delivery | Reconnected] = []
        self._waiting_bytes = 0
        self._news = asyncio.Event()

    async def publish(self, messages: Sequence[tuple[Channel, bytes]]) -> list[int]:
        return self._exchange.publish(messages)

    async def subscribe(self, channel: Channel) -> None:
        self._channels.add(channel)
        self._exchange.subscribe(channel, self._put)

    async def unsubscribe(self, channel: Channel) -> None:
        self._channels.discard(channel)
        self._exchange.unsubscribe(channel, self._put)

    async def deliveries(self) -> AsyncIterator[Delivery | Reconnected]:
        while True:
            await self._news.wait()
            self._news.clear()
            for message in self._take():
                yield message

    async def close(self) -> None:
        for channel in list(self._channels):
            await self.unsubscribe(channel)

    def _take(self) -> list[Delivery | Reconnected]:
        with self._lock:
            taken, self._waiting = self._waiting, []
            self._waiting_bytes = 0
        return taken

    def _put(self, channel: str, data: bytes) -> bool:
        if self._loop.is_closed():
            return False
        with self._lock:
            is_first = not self._waiting
            if self._waiting_bytes + len(data) > _BACKLOG_LIMIT_BYTES:
                self._waiting = [Reconnected()]
                self._waiting_bytes = 0
            self._waiting.append(Delivery(Channel(channel), data))
            self._waiting_bytes += len(data)
        if is_first:
            try:
                self._loop.call_soon_threadsafe(self._news.set)
            except RuntimeError:  # it was closed meanwhile
                return False
        return True
