"""WebSocket text frames as bytes.

Frames from a server are not masked and carry no state (RFC 6455 section 5.2, no extension negotiated), so the frame of
an event is built once and written to every socket, and several frames are written at once.
"""

from __future__ import annotations

import json
import re
from uuid import UUID

from service.pubsub.envelope import Envelope, Kind
from service.pubsub.hub import Arrival
from service.pubsub.progress import decode

_TEXT_FINAL = 0x81

MARKER_BYTES = 1024
"""No marker is larger than this."""
_PYTHON_WEBSOCKETS_BYTES = 1024**2
"""What the `websockets` library, which the SDK's client uses, accepts unless told otherwise (its `max_size`)."""

HEAD_BYTES = 400
"""So much of a stored event holds its id and its time stamp."""
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,200})"')
_TIMESTAMP = re.compile(rb'"timestamp"\s*:\s*"([^"\\]{1,40})"')


def text_frame(payload: bytes) -> bytes:
    """`payload`, UTF-8, as one unfragmented text frame."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT_FINAL, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def event_frame(envelope: Envelope) -> bytes:
    """An event as the events socket sends it: the stored bytes and nothing else. Empty when there is none to send."""
    if envelope.kind is Kind.PRESENCE:
        return b""
    event = decode(envelope.payload).event if envelope.kind is Kind.PROGRESS else envelope.payload
    return text_frame(event) if event else b""


def accepted_bytes(user_agent: str) -> int | None:
    """The largest frame that a client takes if it does not say so; None when none is known.

    Python's `websockets` closes the connection over a larger one, and again whenever it comes back. Browsers take all.
    """
    return _PYTHON_WEBSOCKETS_BYTES if " websockets/" in user_agent else None


class SizedFrames:
    """A conversation's events for one client of the events socket; of those that it cannot take, the markers."""

    def __init__(self, conversation_id: UUID, limit_bytes: int | None) -> None:
        self._conversation_id = conversation_id
        self._limit_bytes = limit_bytes

    def of_arrival(self, arrival: Arrival) -> bytes:
        """The frame shared by all clients, unless this one cannot take it."""
        envelope = arrival.envelope
        if envelope.kind is Kind.DURABLE and self._is_too_large(envelope.payload):
            return self.of_event(envelope.payload)
        return arrival.frame(event_frame)

    def of_event(self, stored: bytes) -> bytes:
        return text_frame(oversize_marker(self._conversation_id, stored) if self._is_too_large(stored) else stored)

    def _is_too_large(self, payload: bytes) -> bool:
        return self._limit_bytes is not None and len(payload) > self._limit_bytes


def oversize_marker(conversation_id: UUID, stored: bytes) -> bytes:
    """What is sent in place of an event that is larger than the client takes: where to fetch it.

    A ConversationStateUpdateEvent with the key `oversize_event`, which every client can read. Its id follows from the
    event's, so that it too is told once.
    """
    # Every SDK puts these in front of what may be large.
    head = stored[:HEAD_BYTES]
    event_id, timestamp = (_first(pattern, head) for pattern in (_ID, _TIMESTAMP))
    marker = {
        "id": f"oversize-{event_id}",
        "timestamp": timestamp,
        "source": "environment",
        "key": "oversize_event",
        "value": {
            "event_id": event_id,
            "size_bytes": len(stored),
            "url": f"/api/conversations/{conversation_id}/events/{event_id}",
        },
        "kind": "ConversationStateUpdateEvent",
    }
    return json.dumps(marker).encode()


def _first(pattern: re.Pattern[bytes], head: bytes) -> str:
    found = pattern.search(head)
    assert found is not None, "every event has it"
    return found[1].decode()
