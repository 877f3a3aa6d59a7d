"""Names that must not be swapped: mypy refuses one where another is meant. And ids that follow from keys."""

from __future__ import annotations

from typing import NewType
from uuid import UUID, uuid5

StreamEpoch = NewType("StreamEpoch", bytes)
"""16 bytes naming one history; it changes when a log is replaced, so a seq of the old one means nothing in the new."""

UNKNOWN_STREAM_EPOCH = StreamEpoch(bytes(16))

LeaseEpoch = NewType("LeaseEpoch", int)
"""Fencing token of a conversation: one higher with every claim, 0 before the first."""

RunnerId = NewType("RunnerId", str)
"""Names one runner process; new with every start."""

_KEYED_IDS = UUID("5f0c7d5e-6f0b-4c55-9c3e-5d0a5a3c9f11")
"""Namespace of the ids made from idempotency keys (RFC 9562 section 5.5); random, and never to change."""


def keyed_id(idempotency_key: str) -> UUID:
    """The id of what a request with this key makes when it names none, so that its repetition finds it."""
    return uuid5(_KEYED_IDS, idempotency_key)
