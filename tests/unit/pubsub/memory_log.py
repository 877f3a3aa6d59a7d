"""A log in memory and envelopes for it, for tests of what reads them."""

from __future__ import annotations

import asyncio

from service.identity import StreamEpoch
from service.pubsub.envelope import Envelope, Kind
from service.pubsub.hub import Arrival

EPOCH = StreamEpoch(b"0123456789abcdef")


def payload_of(seq: int) -> bytes:
    """What the event at `seq` says."""
    return b'{"seq":%d}' % seq


def durable(seq: int) -> Arrival:
    """The event at `seq` as it is published."""
    return Arrival(Envelope(Kind.DURABLE, seq, EPOCH, payload_of(seq)))


def transient(seq: int, number: int = 0) -> Arrival:
    """Something unstored that was published after the event at `seq`."""
    return Arrival(Envelope(Kind.TRANSIENT, seq, EPOCH, b'{"transient":%d}' % number))


def deleted(seq: int) -> Arrival:
    """The news that the conversation is gone, whose last event was at `seq`."""
    return Arrival(Envelope(Kind.DELETED, seq, EPOCH, b""))


class MemoryLog:
    """An `EventReader`; what is appended may become readable later than it is published."""

    def __init__(self, length: int = 0, batch_events: int = 100) -> None:
        self.appended = length
        self.hidden = 0
        """How many of the last events cannot be read yet; one fewer with every look."""
        self.is_gone = False
        self._batch_events = batch_events

    def append(self) -> int:
        """Returns the seq of the new event."""
        self.appended += 1
        return self.appended - 1

    async def length(self) -> int | None:
        await asyncio.sleep(0)
        if self.is_gone:
            return None
        readable = max(0, self.appended - self.hidden)
        self.hidden = max(0, self.hidden - 1)
        return readable

    async def read(self, start: int, stop: int) -> list[bytes]:
        assert start < stop, "the feed asks for nothing"
        await asyncio.sleep(0)
        return [payload_of(seq) for seq in range(start, min(stop, start + self._batch_events))]
