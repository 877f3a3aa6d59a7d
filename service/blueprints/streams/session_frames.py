"""What readers of a session are sent: envelopes with a `type`, as JSON around the stored bytes of the events.

A `Wrapping` makes of the JSON what goes over the wire: a WebSocket frame or a server-sent event. Both are built once
for all clients of a worker.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from service.blueprints.streams.frames import HEAD_BYTES, oversize_marker, text_frame
from service.pubsub.envelope import Envelope, Kind
from service.pubsub.hub import Arrival
from service.pubsub.progress import Progress, Step, decode

_FRAME_BYTES = 64
"""More than a frame adds to an event."""
_OWNER_LOST = "owner_lost"
_PROGRESS_LOST = "progress_lost"
"""Reasons of our own for `item_aborted`: the runner died, or this client was too slow to be told everything."""


class Wrapping(NamedTuple):
    """From JSON to bytes on the wire."""

    of_envelope: Callable[[Envelope], bytes]
    """A module's function, so that what it builds is shared."""
    of_frame: Callable[[bytes, int | None], bytes]
    """A frame of one client's own; with the seq of a stored event."""


def session_frame(envelope: Envelope) -> bytes:
    """The JSON for what was published; empty where a reader is told nothing."""
    match envelope.kind:
        case Kind.DURABLE:
            return durable_frame(envelope.seq, envelope.payload)
        case Kind.TRANSIENT:
            return b'{"type":"transient","event":' + envelope.payload + b"}"
        case Kind.PROGRESS:
            return decode(envelope.payload).frame
        case Kind.PRESENCE:
            return b'{"type":"presence",' + envelope.payload[1:]
        case Kind.DELETED:
            return b""


def durable_frame(seq: int, event: bytes) -> bytes:
    return b'{"type":"durable","seq":%d,"event":' % seq + event + b"}"


def _in_text_frame(envelope: Envelope) -> bytes:
    return text_frame(session_frame(envelope))


def _in_server_sent_event(envelope: Envelope) -> bytes:
    seq = envelope.seq if envelope.kind is Kind.DURABLE else None
    return server_sent_event(session_frame(envelope), seq)


def server_sent_event(data: bytes, event_id: int | None = None) -> bytes:
    """One server-sent event. JSON of ours has no line breaks; that of a directory from elsewhere may have some."""
    head = b"" if event_id is None else b"id: %d\n" % event_id
    return head + b"data: " + b"\ndata: ".join(data.splitlines()) + b"\n\n"


TEXT_FRAMES = Wrapping(_in_text_frame, lambda frame, seq: text_frame(frame))
SERVER_SENT_EVENTS = Wrapping(_in_server_sent_event, server_sent_event)


class SessionFrames:
    """Everything one reader is sent, in order.

    It is told of an item from the item's start, or not at all, and each start is followed by one end: the event with
    the item's id, or `item_aborted`.
    """

    def __init__(self, conversation_id: UUID, limit_bytes: int | None, wrapping: Wrapping) -> None:
        self._conversation_id = conversation_id
        self._limit_bytes = limit_bytes
        self._wrapping = wrapping
        self._open: Progress | None = None
        """The start of the item that is being told."""
        self._given_up = b""
        """The id of an item whose end this reader has been told before its time."""

    def of(self, **fields: Any) -> bytes:
        """A frame for this reader only."""
        return self._wrapping.of_frame(json.dumps(fields).encode(), None)

    def of_transient(self, event: bytes) -> bytes:
        return self._wrapping.of_frame(b'{"type":"transient","event":' + event + b"}", None)

    def of_batch(self, batch: list[Arrival]) -> bytes:
        return b"".join(map(self.of_arrival, batch))

    def gap(self) -> bytes:
        """Transient frames may have been lost: what is said of an open item could have holes."""
        return self._give_up(_PROGRESS_LOST)

    def of_arrival(self, arrival: Arrival) -> bytes:
        envelope = arrival.envelope
        if envelope.kind is Kind.PROGRESS:
            return self._of_progress(arrival)
        if envelope.kind is not Kind.DURABLE:
            return arrival.frame(self._wrapping.of_envelope)
        if self._open is not None and b'"id":"%s"' % self._open.item_id in envelope.payload[:HEAD_BYTES]:
            self._open = None
        if self._limit_bytes is not None and len(envelope.payload) + _FRAME_BYTES > self._limit_bytes:
            marker = oversize_marker(self._conversation_id, envelope.payload)
            return self._wrapping.of_frame(durable_frame(envelope.seq, marker), envelope.seq)
        return arrival.frame(self._wrapping.of_envelope)

    def _of_progress(self, arrival: Arrival) -> bytes:
        progress = decode(arrival.envelope.payload)
        before = b""
        match progress.step:
            case Step.RESET:
                return self._give_up(_OWNER_LOST)
            case Step.STARTED:
                if self._open is not None and self._open.item_id != progress.item_id:
                    before = self._give_up(_PROGRESS_LOST)
                if progress.item_id == self._given_up:
                    return b""
                self._open = progress
            case Step.DELTA:
                if self._open is None or self._open.item_id != progress.item_id:
                    return b""
            case Step.ABORTED:
                if progress.item_id == self._given_up:
                    return b""
                self._open = None
        return before + arrival.frame(self._wrapping.of_envelope)

    def _give_up(self, reason: str) -> bytes:
        if self._open is None:
            return b""
        item_id, attempt = self._open.item_id, self._open.attempt
        self._open, self._given_up = None, item_id
        return self.of(type="item_aborted", item_id=item_id.decode(), attempt=attempt, reason=reason)
