"""What one conversation publishes, in order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NewType

from service.identity import StreamEpoch
from service.pubsub.broker import Channel
from service.pubsub.envelope import Envelope, Kind, encode
from service.runner.publisher import Message, Publisher

Hold = NewType("Hold", int)


class _Thread(threading.local):
    """What a thread does in `together`."""

    is_collecting = False
    hold: Hold | None = None


class Outbox:
    """A conversation's events as they are appended, and transients in between. Callable from any thread.

    While anything holds it, nothing is published, and nothing is lost: a client that hears of a new status asks for
    the details at once, so they must be readable before the news goes out.
    """

    def __init__(self, publisher: Publisher, channel: Channel, stream_epoch: StreamEpoch) -> None:
        self._publisher = publisher
        self._channel = channel
        self._stream_epoch = stream_epoch
        self._last_seq = -1
        self._lock = threading.RLock()
        self._holds: set[Hold] = set()
        self._hold_numbers = itertools.count()
        self._waiting: list[Message] = []
        self._thread = _Thread()

    @property
    def last_seq(self) -> int:
        """The newest durable seq, -1 before the first event."""
        return self._last_seq

    @property
    def is_collecting(self) -> bool:
        """Whether this thread is in `together`."""
        return self._thread.is_collecting

    def resume(self, log_length: int) -> None:
        """Say how long the log is, before anything is appended to it here."""
        self._last_seq = log_length - 1

    def durable(self, seq: int, payload: bytes) -> None:
        """An event was appended."""
        with self._lock:
            if self._thread.is_collecting and self._thread.hold is None:
                self._thread.hold = self.hold()
            self._last_seq = seq
            self._put(Kind.DURABLE, payload)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Publish at the end of the block, in one go, what this thread appends in it: each socket is written to once.

        What others append after its first event waits behind it; so the block must not wait for them from then on.
        """
        thread = self._thread
        thread.is_collecting = True
        try:
            yield
        finally:
            thread.is_collecting = False
            if thread.hold is not None:
                self.release(thread.hold)
                thread.hold = None

    def transient(self, payload: bytes) -> None:
        """Publish something that is never stored, after all that was appended so far."""
        with self._lock:
            self._put(Kind.TRANSIENT, payload)

    def progress(self, make_payload: Callable[[], bytes]) -> None:
        """Publish how far an answer has come; what is called when the turn has come to say it."""
        with self._lock:
            seq = self._last_seq
            self._waiting.append(lambda: self._encode(Kind.PROGRESS, seq, make_payload()))
            self._flush()

    def deleted(self) -> None:
        """Tell every reader that the conversation is gone."""
        with self._lock:
            self._put(Kind.DELETED, b"")
            self.release_all()

    def hold(self) -> Hold:
        """Publish nothing until this is released."""
        with self._lock:
            hold = Hold(next(self._hold_numbers))
            self._holds.add(hold)
            return hold

    def release(self, hold: Hold) -> None:
        """Take one hold away; no effect the second time."""
        with self._lock:
            self._holds.discard(hold)
            self._flush()

    def release_all(self) -> None:
        """Publish whatever waits, now."""
        with self._lock:
            self._holds.clear()
            self._flush()

    def _put(self, kind: Kind, payload: bytes) -> None:
        self._waiting.append(self._encode(kind, self._last_seq, payload))
        self._flush()

    def _encode(self, kind: Kind, seq: int, payload: bytes) -> bytes:
        return encode(Envelope(kind, seq, self._stream_epoch, payload))

    def _flush(self) -> None:
        if self._waiting and not self._holds:
            self._publisher.put(self._channel, *self._waiting)
            self._waiting.clear()
