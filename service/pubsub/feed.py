"""A stream without holes: what a conversation's log holds after a position, then what is published, each event once.

The naive way, subscribe and hope, loses what is published while history is read, and everything a broken connection
swallowed. Reading history first and subscribing second loses the events in between. So: subscribe first, read the
log, then merge what waits in the backlog by `seq`. The log is the truth; a message only says that it grew:

* an envelope at `position + 1` is delivered as it is;
* one at or before the position was already read from the log and is skipped;
* one further on shows a gap, which is read from the log before it is delivered;
* with no news for `POSITION_CHECK_SECONDS` the log is looked at anyway, so a silent broker only costs time.

While the reader has everything and keeps up, the next envelope goes to it without waking its task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from enum import Enum, auto
from typing import Protocol

from service.identity import UNKNOWN_STREAM_EPOCH, StreamEpoch
from service.metrics import metrics
from service.pubsub.envelope import Envelope, Kind
from service.pubsub.hub import Arrival, Subscriber, TakeAtOnce

POSITION_CHECK_SECONDS = 2.0
_LOG_LAG_RETRY_SECONDS = 0.02
_LOG_LAG_LIMIT_SECONDS = 5.0


class ConversationGone(Exception):
    """The conversation was deleted while it was followed."""


class LogBehind(Exception):
    """Events were published that the log still does not show; the reader should come back later."""

    def __init__(self, position: int, published_seq: int) -> None:
        self.position = position
        self.published_seq = published_seq

    def __str__(self) -> str:
        return f"the log ends at {self.position}, {self.published_seq} was published"


class EventReader(Protocol):
    """What the feed needs from a log (`service.store.event_log`)."""

    async def length(self) -> int | None:
        """How many events are readable now; None when the conversation is gone."""

    async def read(self, start: int, stop: int) -> list[bytes]:
        """The stored bytes of events `start` to `stop - 1`; fewer when they are large, never none."""


class Verdict(Enum):
    """What to do with an arrival, given the position reached."""

    DELIVER = auto()
    SKIP = auto()
    FILL_GAP = auto()


def judge(position: int, envelope: Envelope) -> Verdict:
    """Pure: `position` is the last seq delivered, -1 before the first."""
    if envelope.kind is not Kind.DURABLE:
        return Verdict.DELIVER if envelope.seq <= position else Verdict.FILL_GAP
    if envelope.seq <= position:
        return Verdict.SKIP
    return Verdict.DELIVER if envelope.seq == position + 1 else Verdict.FILL_GAP


class Feed:
    """Follows one conversation for one reader. Iterate `batches` once."""

    def __init__(
        self,
        log: EventReader,
        subscriber: Subscriber,
        after_seq: int,
        take_at_once: TakeAtOnce | None = None,
        stream_epoch: StreamEpoch | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            stream_epoch: of the history that is followed, if known; else that of the first that is published.
            take_at_once: how the reader takes what arrives while it waits for the next batch, which then lacks it.
        """
        self._log = log
        self._subscriber = subscriber
        self._take_at_once = take_at_once
        self._replay_bytes = metrics().replay_bytes
        self._stream_epoch = stream_epoch or UNKNOWN_STREAM_EPOCH
        self.position = after_seq
        """The last seq handed out; where the reader may resume."""

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        """Arrivals in order, a few at a time; an empty batch says that transients may have been lost.

        Never ends by itself.

        Raises:
            ConversationGone: the conversation was deleted.
            LogBehind: what was published did not become readable.
        """
        async for batch in self._from_log():
            yield batch
        while True:
            arrivals = self._subscriber.take()
            if self._subscriber.take_lagging():
                async for batch in self._from_log():
                    yield batch
                yield []
            if arrivals:
                async for batch in self._merge(arrivals):
                    yield batch
            elif not await self._subscriber.wait(POSITION_CHECK_SECONDS, self._take_next):
                async for batch in self._from_log():
                    yield batch

    def _take_next(self, arrivals: Sequence[Arrival]) -> bool:
        """Whether these were what comes next, and the reader has them."""
        if self._take_at_once is None:
            return False
        position = self.position
        for arrival in arrivals:
            envelope = arrival.envelope
            if self._is_over(envelope) or judge(position, envelope) is not Verdict.DELIVER:
                return False
            if envelope.kind is Kind.DURABLE:
                position = envelope.seq
        if not self._take_at_once(arrivals):
            return False
        self.position = position
        return True

    def _is_over(self, envelope: Envelope) -> bool:
        """Whether the conversation was deleted; where the news of it was lost, another may have its id by now."""
        if envelope.kind is Kind.DELETED:
            return True
        if self._stream_epoch == UNKNOWN_STREAM_EPOCH:
            self._stream_epoch = envelope.stream_epoch
        return envelope.stream_epoch not in (self._stream_epoch, UNKNOWN_STREAM_EPOCH)

    async def _from_log(self, through: int = -1) -> AsyncIterator[list[Arrival]]:
        """What the log holds after the position, at least up to `through`."""
        give_up_at = time.monotonic() + _LOG_LAG_LIMIT_SECONDS
        while True:
            end = await self._log.length()
            if end is None:
                raise ConversationGone
            while self.position + 1 < end:
                payloads = await self._log.read(self.position + 1, end)
                batch = [
                    Arrival(Envelope(Kind.DURABLE, seq, UNKNOWN_STREAM_EPOCH, payload))
                    for seq, payload in enumerate(payloads, self.position + 1)
                ]
                self.position += len(batch)
                self._replay_bytes.inc(sum(map(len, payloads)))
                yield batch
            if self.position >= through:
                return
            if time.monotonic() > give_up_at:
                raise LogBehind(self.position, through)
            # Published is appended, yet on a network disk another host may see the file a moment later.
            await asyncio.sleep(_LOG_LAG_RETRY_SECONDS)

    async def _merge(self, arrivals: list[Arrival]) -> AsyncIterator[list[Arrival]]:
        batch: list[Arrival] = []
        for arrival in arrivals:
            envelope = arrival.envelope
            if self._is_over(envelope):
                if batch:
                    yield batch
                raise ConversationGone
            verdict = judge(self.position, envelope)
            if verdict is Verdict.FILL_GAP:
                if batch:
                    yield batch
                    batch = []
                missing_through = envelope.seq - (envelope.kind is Kind.DURABLE)
                async for filled in self._from_log(missing_through):
                    yield filled
                verdict = judge(self.position, envelope)
            if verdict is Verdict.SKIP:
                continue
            if envelope.kind is Kind.DURABLE:
                self.position = envelope.seq
            batch.append(arrival)
        if batch:
            yield batch
