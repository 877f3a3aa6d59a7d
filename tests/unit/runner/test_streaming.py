"""What becomes of the SDK's stream callbacks: who is told what, and how pieces that wait become one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from openhands.sdk.agent.stream_context import StreamAborted, StreamDelta, StreamStarted

from service.identity import UNKNOWN_STREAM_EPOCH
from service.pubsub.broker import Channel
from service.pubsub.envelope import Kind
from service.pubsub.envelope import decode as envelope_of
from service.pubsub.progress import Progress, Step, decode
from service.runner.conversation.outbox import Outbox
from service.runner.conversation.streaming import Progressing
from service.runner.publisher import UNMADE_BYTES, Message
from tests.unit.runner.rig import RecordingPublisher


class WaitingPublisher(RecordingPublisher):
    """As one whose broker is slow: nothing is made before it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Message] = []

    def put(self, channel: Channel, *messages: Message) -> None:
        self.waiting += messages

    def taken(self) -> list[Progress]:
        """Take everything; the progress in it."""
        made = [message if isinstance(message, bytes) else message() for message in self.waiting]
        self.waiting.clear()
        envelopes = [envelope_of(message) for message in made]
        return [decode(envelope.payload) for envelope in envelopes if envelope.kind is Kind.PROGRESS]


@pytest.fixture
def publisher() -> WaitingPublisher:
    return WaitingPublisher()


@pytest.fixture
def progressing(publisher: WaitingPublisher) -> Progressing:
    return Progressing(Outbox(publisher, Channel("events"), UNKNOWN_STREAM_EPOCH))


def delta(text: str, order: int = 0, **fields: Any) -> StreamDelta:
    return replace(StreamDelta("item", 1, order, "text", text), **fields)


def frames(progress: list[Progress]) -> list[dict[str, object]]:
    return [json.loads(each.frame) for each in progress]


def test_each_step_is_worded_for_both_sockets(publisher: WaitingPublisher, progressing: Progressing) -> None:
    """The events socket is told of deltas only; null keys are left out."""
    progressing(StreamStarted("item", 1, None))
    progressing(delta("one", chunk_id="c"))
    progressing(StreamAborted("item", 1, "cancelled"))
    told = publisher.taken()

    assert [each.step for each in told] == [Step.STARTED, Step.DELTA, Step.ABORTED]
    assert {(each.item_id, each.attempt) for each in told} == {(b"item", 1)}
    assert frames(told) == [
        {"type": "item_started", "item_id": "item", "attempt": 1},
        {
            "type": "delta",
            "item_id": "item",
            "attempt": 1,
            "order": 0,
            "kind": "text",
            "content": "one",
            "chunk_id": "c",
        },
        {"type": "item_aborted", "item_id": "item", "attempt": 1, "reason": "cancelled"},
    ]
    assert [bool(each.event) for each in told] == [False, True, False]
    event = json.loads(told[1].event)
    assert (event["kind"], event["content"]) == ("StreamingDeltaEvent", "one")


def test_pieces_that_wait_become_one_and_orders_stay_dense(
    publisher: WaitingPublisher, progressing: Progressing
) -> None:
    """A reader sees the same text in fewer pieces, and no hole in their numbers."""
    progressing(delta("one"))
    first = publisher.taken()
    for order, text in enumerate([" two", " three", " four"], start=1):
        progressing(delta(text, order))
    second = publisher.taken()

    assert [(frame["order"], frame["content"]) for frame in frames(first + second)] == [
        (0, "one"),
        (1, " two three four"),
    ]


@pytest.mark.parametrize("other", [{"kind": "reasoning"}, {"attempt": 2}], ids=str)
def test_pieces_of_another_kind_or_attempt_stay_apart(
    publisher: WaitingPublisher, progressing: Progressing, other: dict[str, Any]
) -> None:
    """They mean something else."""
    progressing(delta("one"))
    progressing(delta("two", **other))
    assert [frame["content"] for frame in frames(publisher.taken())] == ["one", "two"]


def test_pieces_become_no_larger_than_what_is_counted_for_them(
    publisher: WaitingPublisher, progressing: Progressing
) -> None:
    """So the publisher's limit holds also for what is not made yet."""
    for order in range(1000):
        progressing(delta("x" * 100, order))
    told = publisher.taken()
    assert all(len(each.frame) < UNMADE_BYTES for each in told)
    assert sum(len(str(frame["content"])) for frame in frames(told)) == 100_000
    assert len(told) < 100


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [(["\ud83d", "\ude00!"], "\U0001f600!"), (["a\ud83d"], "a\ufffd"), (["\ude00b"], "\ufffdb")],
    ids=["cut in two", "first half", "second half"],
)
def test_half_a_surrogate_pair_is_no_reason_to_be_silent(
    publisher: WaitingPublisher, progressing: Progressing, pieces: list[str], shown: str
) -> None:
    """An LLM's provider may cut where it likes; such a half has no UTF-8 form."""
    for order, piece in enumerate(pieces):
        progressing(delta(piece, order))
    told = publisher.taken()
    assert [frame["content"] for frame in frames(told)] == [shown]
    assert json.loads(told[0].event)["content"] == shown
