"""WebSocket text frames as bytes.

Frames from a server are not masked and carry no state (RFC 6455 section 5.2, no extension negotiated), so the frame of
an event is built once and written to every socket, and several frames are written at once.
"""

from __future__ import annotations

from service.pubsub.envelope import Envelope

_TEXT_FINAL = 0x81


def text_frame(payload: bytes) -> bytes:
    """`payload`, UTF-8, as one unfragmented text frame."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT_FINAL, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def event_frame(envelope: Envelope) -> bytes:
    """An event as the events socket sends it: the stored bytes and nothing else."""
    return text_frame(envelope.payload)
