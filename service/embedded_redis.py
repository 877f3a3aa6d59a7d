"""A Redis inside this process, for a server that is one: fakeredis, and an exchange beside it for publishing."""

from __future__ import annotations

import threading
from typing import Any

from fakeredis import FakeAsyncRedis, FakeServer

from service.exchange import Exchange


class EmbeddedRedis:
    """What its clients share, on whatever loop or thread they are."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.exchange = Exchange()
        """fakeredis takes ten times as long to pass a message on."""
        self.touched = Touched()

    def client(self) -> FakeAsyncRedis:
        """For one event loop."""
        return _Client(self)


class Touched:
    """When conversations have changed, until somebody asks in which order. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scores: dict[str, int] = {}

    def note(self, name: str, score: int) -> None:
        with self._lock:
            self._scores[name] = score

    def forget(self, name: str) -> None:
        """Of a conversation that is deleted; else, where nobody asks, what there was would stay for ever."""
        with self._lock:
            self._scores.pop(name, None)

    def take(self) -> dict[str, int]:
        """All that was noted since the last call."""
        with self._lock:
            taken, self._scores = self._scores, {}
        return taken


class _Client(FakeAsyncRedis):
    """fakeredis, whose channels are those of the exchange."""

    def __init__(self, embedded: EmbeddedRedis) -> None:
        super().__init__(server=embedded.server)
        self._exchange = embedded.exchange

    async def pubsub_numsub(self, *channels: Any, **options: Any) -> list[tuple[bytes | str, int]]:
        return [(channel, self._exchange.count(channel)) for channel in channels]
