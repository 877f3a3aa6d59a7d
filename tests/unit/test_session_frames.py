"""What one reader of a session is told of answers that grow: from their beginning or not at all, and to their end."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from service.blueprints.streams.frames import oversize_marker
from service.blueprints.streams.session_frames import SERVER_SENT_EVENTS, SessionFrames
from service.identity import UNKNOWN_STREAM_EPOCH
from service.pubsub.envelope import Envelope, Kind
from service.pubsub.hub import Arrival
from service.pubsub.progress import Progress, Step, encode


def progress(step: Step, item_id: bytes = b"", attempt: int = 1) -> Arrival:
    frame = b'{"type":"%s","item_id":"%s"}' % (step.value, item_id) if item_id else b""
    payload = encode(Progress(step, item_id, attempt, frame))
    return Arrival(Envelope(Kind.PROGRESS, 0, UNKNOWN_STREAM_EPOCH, payload))


def durable(event_id: str) -> Arrival:
    event = b'{"id":"%s","timestamp":"2026-01-01T00:00:00","kind":"MessageEvent"}' % event_id.encode()
    return Arrival(Envelope(Kind.DURABLE, 1, UNKNOWN_STREAM_EPOCH, event))


@pytest.fixture
def frames() -> SessionFrames:
    return SessionFrames(UUID(int=0), None, SERVER_SENT_EVENTS)


def told(data: bytes) -> list[tuple[str, Any]]:
    """Type and item (or event) of each frame."""
    texts = [line.removeprefix("data: ") for line in data.decode().splitlines() if line.startswith("data: ")]
    found = [json.loads(text) for text in texts]
    return [(frame["type"], frame.get("item_id") or frame["event"]["id"]) for frame in found]


START, DELTA, ABORTED = (progress(step, b"a") for step in (Step.STARTED, Step.DELTA, Step.ABORTED))
RESET = progress(Step.RESET)


def test_item_is_told_from_its_start_to_its_event(frames: SessionFrames) -> None:
    """After the event nothing is open any more."""
    assert told(frames.of_batch([START, DELTA, durable("a"), RESET])) == [
        ("started", "a"),
        ("delta", "a"),
        ("durable", "a"),
    ]


def test_pieces_without_a_beginning_are_left_out(frames: SessionFrames) -> None:
    """Their end is told: it may close what the client began on another connection."""
    assert told(frames.of_batch([DELTA, ABORTED])) == [("aborted", "a")]


def test_item_of_a_dead_owner_is_aborted(frames: SessionFrames) -> None:
    """Nobody else would."""
    assert told(frames.of_batch([START, RESET, RESET])) == [("started", "a"), ("item_aborted", "a")]


def test_item_with_a_gap_is_aborted_once_and_not_told_on(frames: SessionFrames) -> None:
    """Neither its pieces nor the end that the runner tells; only its event."""
    frames.of_batch([START, DELTA])
    assert told(frames.gap()) == [("item_aborted", "a")]
    assert frames.gap() == b""
    assert told(frames.of_batch([DELTA, progress(Step.STARTED, b"a", 2), DELTA, ABORTED, durable("a")])) == [
        ("durable", "a")
    ]


def test_next_attempt_supersedes_the_one_before(frames: SessionFrames) -> None:
    """It is the same item, so it stays open."""
    again = progress(Step.STARTED, b"a", 2)
    assert told(frames.of_batch([START, again, DELTA, ABORTED])) == [
        ("started", "a"),
        ("started", "a"),
        ("delta", "a"),
        ("aborted", "a"),
    ]


def test_line_breaks_of_foreign_files_keep_an_event_whole(frames: SessionFrames) -> None:
    """A server-sent event ends at an empty line."""
    pretty = Arrival(Envelope(Kind.DURABLE, 7, UNKNOWN_STREAM_EPOCH, b'{\n\n"id": 1}'))
    assert frames.of_batch([pretty]) == b'id: 7\ndata: {"type":"durable","seq":7,"event":{\ndata: \ndata: "id": 1}}\n\n'


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " : ")])
def test_large_event_is_told_by_its_marker_however_it_is_written(separators: tuple[str, str]) -> None:
    """A directory from elsewhere may have spaces and line breaks in its events."""
    event = {"id": "e-1", "timestamp": "2026-01-01T00:00:00", "kind": "MessageEvent", "text": "x" * 1000}
    marker = json.loads(oversize_marker(UUID(int=0), json.dumps(event, separators=separators).encode()))
    assert (marker["value"]["event_id"], marker["timestamp"]) == ("e-1", event["timestamp"])
