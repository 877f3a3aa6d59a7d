"""From the threads that append events to the broker, in order and without making them wait."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

import structlog

from service.errors import BrokerUnavailable
from service.metrics import metrics
from service.pubsub.broker import Broker, Channel

_log = structlog.get_logger(__name__)

_BATCH = 256
_QUEUE_LIMIT_BYTES = 64 << 20
"""Without a broker the queue keeps this much and then drops the oldest: readers have the log."""
_RETRY_SECONDS = 0.2
PUBLISHING = "publishing"
"""Under which what fails here is counted."""

Message = bytes | Callable[[], bytes]
"""What is published, or what makes it when its turn has come."""
UNMADE_BYTES = 16 << 10
"""What a message that is not made yet counts for; it must not become much larger."""


class Publisher:
    """One queue and one task per runner. `put` may be called from any thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Channel, Message]] = deque()
        self._queue_bytes = 0
        self._lock = threading.Lock()
        self._news = asyncio.Event()

    @property
    def queue_bytes(self) -> int:
        """What waits for the broker."""
        return self._queue_bytes

    def put(self, channel: Channel, *messages: Message) -> None:
        """Queue messages, which are published together; never blocks."""
        with self._lock:
            was_empty = not self._queue
            self._queue.extend((channel, message) for message in messages)
            self._queue_bytes += sum(map(_size_of, messages))
            while self._queue_bytes > _QUEUE_LIMIT_BYTES:
                self._queue_bytes -= _size_of(self._queue.popleft()[1])
        if was_empty:  # else the task has been woken, and takes all there is
            self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Publish what is queued, until cancelled."""
        while True:
            if not self._queue:
                await self._news.wait()
            self._news.clear()
            while self._queue:
                await self._publish(self._take())

    async def flush(self) -> None:
        """Publish what is queued now; gives up when the broker does not answer."""
        while self._queue:
            try:
                await self._broker.publish(self._take())
            except BrokerUnavailable:
                return

    def _take(self) -> list[tuple[Channel, bytes]]:
        with self._lock:
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            self._queue_bytes -= sum(_size_of(message) for _, message in batch)
        return [(channel, made) for channel, message in batch if (made := _made(message)) is not None]

    async def _publish(self, batch: list[tuple[Channel, bytes]]) -> None:
        try:
            await self._broker.publish(batch)
        except BrokerUnavailable as error:
            # Some of the batch may be out already; repeating it is safe, since readers go by seq.
            _log.warning("publish_failed", messages=len(batch), error=str(error.__cause__))
            with self._lock:
                self._queue.extendleft(reversed(batch))
                self._queue_bytes += sum(len(message) for _, message in batch)
            self._news.set()
            await asyncio.sleep(_RETRY_SECONDS)


def _made(message: Message) -> bytes | None:
    """None for what cannot be made: it must not keep those behind it."""
    if isinstance(message, bytes):
        return message
    try:
        return message()
    except Exception:  # noqa: BLE001  supervisor: what is made at its turn is progress, without which readers can do
        metrics().step_failures.labels(PUBLISHING).inc()
        _log.exception("message_not_made")
        return None


def _size_of(message: Message) -> int:
    return len(message) if isinstance(message, bytes) else UNMADE_BYTES
