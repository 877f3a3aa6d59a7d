"""Names that must not be swapped: mypy refuses one where another is meant."""

from __future__ import annotations

from typing import NewType

StreamEpoch = NewType("StreamEpoch", bytes)
"""16 bytes naming one history; it changes when a log is replaced, so a seq of the old one means nothing in the new."""

UNKNOWN_STREAM_EPOCH = StreamEpoch(bytes(16))

LeaseEpoch = NewType("LeaseEpoch", int)
"""Fencing token of a conversation: one higher with every claim, 0 before the first."""

RunnerId = NewType("RunnerId", str)
"""Names one runner process; new with every start."""
