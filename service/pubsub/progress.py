"""How an answer of the LLM comes: what stands in an envelope of the kind PROGRESS.

Two kinds of readers are told in different words, and both are made by the runner, so that a web worker only has to
pass on one or the other. Three lines, none of which holds a line break:

1. step, item id and attempt, separated by spaces;
2. the frame of the session socket, empty for RESET;
3. the event of the events socket, a StreamingDeltaEvent; empty but for DELTA.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Step(Enum):
    """What happened to the item, which is the event that the answer will be."""

    STARTED = b"started"
    DELTA = b"delta"
    ABORTED = b"aborted"
    RESET = b"reset"
    """Another runner owns the conversation: nothing more will come of an item that has begun. It has no item id."""


class Progress(NamedTuple):
    """One message; `decode(encode(progress)) == progress`."""

    step: Step
    item_id: bytes = b""
    attempt: int = 0
    frame: bytes = b""
    event: bytes = b""


def encode(progress: Progress) -> bytes:
    """The payload of an envelope."""
    head = b"%s %s %d" % (progress.step.value, progress.item_id, progress.attempt)
    return b"\n".join((head, progress.frame, progress.event))


def decode(payload: bytes) -> Progress:
    """Reverse of `encode`."""
    head, frame, event = payload.split(b"\n")
    step, item_id, attempt = head.split(b" ")
    return Progress(Step(step), item_id, int(attempt), frame, event)
