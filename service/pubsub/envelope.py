"""What travels on a channel: the bytes of one event and where they stand in the log.

Wire layout, network byte order: version (1 byte), kind (1), seq (8, signed), stream_epoch (16 raw bytes), payload.
The payload is never parsed on the way; a durable one is, byte for byte, the event's file in the log.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from service.identity import StreamEpoch

_VERSION = 1
_HEADER = struct.Struct("!BBq16s")


class Kind(IntEnum):
    """What a reader may do with an envelope."""

    DURABLE = 0
    """In the log at `seq`; delivered exactly once, in order."""
    TRANSIENT = 1
    """Never stored; `seq` is the last durable seq before it. May be dropped, is never replayed."""
    DELETED = 2
    """The conversation is gone; nothing follows. The payload is empty."""
    PROGRESS = 3
    """How far an answer of the LLM has come (`pubsub.progress`); else as TRANSIENT."""
    PRESENCE = 4
    """Who watches; `seq` is -1. Else as TRANSIENT."""


class Envelope(NamedTuple):
    """One message on a conversation's channel."""

    kind: Kind
    seq: int
    """0-based dense index in the log; -1 for a transient before the first event."""
    stream_epoch: StreamEpoch
    payload: bytes
    """UTF-8 JSON, one object; of a PROGRESS what `pubsub.progress` says."""


class MalformedEnvelope(ValueError):
    """Bytes on a channel that this version cannot read."""


def encode(envelope: Envelope) -> bytes:
    """The envelope as one message for the broker."""
    return _HEADER.pack(_VERSION, envelope.kind, envelope.seq, envelope.stream_epoch) + envelope.payload


def decode(message: bytes) -> Envelope:
    """Reverse of `encode`.

    Raises:
        MalformedEnvelope: too short, an unknown version or an unknown kind.
    """
    try:
        version, kind, seq, stream_epoch = _HEADER.unpack_from(message)
    except struct.error as error:
        raise MalformedEnvelope(f"{len(message)} bytes are no envelope") from error
    if version != _VERSION or kind > max(Kind):
        raise MalformedEnvelope(f"version {version}, kind {kind}")
    return Envelope(Kind(kind), seq, StreamEpoch(stream_epoch), message[_HEADER.size :])
