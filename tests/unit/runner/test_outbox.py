"""What one conversation publishes: everything, in order, and not before REST answers tell it too."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from service.identity import StreamEpoch
from service.pubsub.broker import Channel
from service.pubsub.envelope import Kind
from service.runner.conversation.outbox import Outbox
from tests.unit.runner.rig import RecordingPublisher

CHANNEL = Channel("t:events:1")
EPOCH = StreamEpoch(b"0123456789abcdef")


@pytest.fixture
def publisher() -> RecordingPublisher:
    return RecordingPublisher()


@pytest.fixture
def outbox(publisher: RecordingPublisher) -> Outbox:
    return Outbox(publisher, CHANNEL, EPOCH)


def outline(publisher: RecordingPublisher) -> list[tuple[Kind, int, bytes]]:
    return [(envelope.kind, envelope.seq, envelope.payload) for envelope in publisher.envelopes]


def test_events_are_published_as_they_are_appended(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """With their seq and the history's identity, on the conversation's channel."""
    outbox.durable(0, b"a")
    outbox.durable(1, b"b")
    assert outline(publisher) == [(Kind.DURABLE, 0, b"a"), (Kind.DURABLE, 1, b"b")]
    assert {channel for channel, _ in publisher.published} == {CHANNEL}
    assert {envelope.stream_epoch for envelope in publisher.envelopes} == {EPOCH}


def test_transient_says_after_which_event_it_came(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """-1 before the first; after a restart the log's last."""
    outbox.transient(b"early")
    outbox.resume(5)
    assert outbox.last_seq == 4
    outbox.transient(b"x")
    outbox.durable(5, b"a")
    outbox.transient(b"y")
    kinds = [Kind.TRANSIENT, Kind.TRANSIENT, Kind.DURABLE, Kind.TRANSIENT]
    assert [(kind, seq) for kind, seq, _ in outline(publisher)] == list(zip(kinds, [-1, 4, 5, 5], strict=True))


def test_what_belongs_together_is_put_at_once(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """At the end of the block; what came before its first event does not wait."""
    with outbox.together():
        outbox.transient(b"x")
        assert publisher.puts == 1
        outbox.durable(0, b"a")
        outbox.durable(1, b"b")
        assert publisher.puts == 1
    assert publisher.puts == 2
    assert [seq for _, seq, _ in outline(publisher)] == [-1, 0, 1]
    outbox.durable(2, b"c")
    assert publisher.puts == 3


def test_what_was_appended_before_a_failure_is_published(outbox: Outbox, publisher: RecordingPublisher) -> None:
    with suppress(ZeroDivisionError), outbox.together():
        outbox.durable(0, b"a")
        raise ZeroDivisionError
    assert [seq for _, seq, _ in outline(publisher)] == [0]


def test_others_wait_behind_what_belongs_together(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """From its first event on and no longer; before it, a block that waits for its turn holds nobody up."""

    def append(seq: int) -> None:
        other = threading.Thread(target=outbox.durable, args=(seq, b"other"))
        other.start()
        other.join()

    with outbox.together():
        append(0)
        assert publisher.puts == 1
        outbox.durable(1, b"own")
        append(2)
        assert publisher.puts == 1
    assert [seq for _, seq, _ in outline(publisher)] == [0, 1, 2]


def test_held_outbox_publishes_nothing_and_loses_nothing(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """Released, it publishes in the order in which things happened."""
    hold = outbox.hold()
    outbox.durable(0, b"a")
    outbox.transient(b"x")
    outbox.durable(1, b"b")
    assert publisher.published == []
    outbox.release(hold)
    assert [payload for _, _, payload in outline(publisher)] == [b"a", b"x", b"b"]
    outbox.durable(2, b"c")
    assert len(publisher.published) == 4


def test_every_hold_must_be_released(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """Releasing one twice does not release another."""
    first, second = outbox.hold(), outbox.hold()
    outbox.durable(0, b"a")
    outbox.release(first)
    outbox.release(first)
    assert publisher.published == []
    outbox.release(second)
    assert len(publisher.published) == 1


def test_all_holds_can_be_released_at_once(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """At the end of a run; a late release does no harm."""
    hold = outbox.hold()
    outbox.hold()
    outbox.durable(0, b"a")
    outbox.release_all()
    outbox.release(hold)
    assert len(publisher.published) == 1


def test_deletion_is_told_whatever_holds(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """After what was appended before it."""
    outbox.hold()
    outbox.durable(0, b"a")
    outbox.deleted()
    assert outline(publisher) == [(Kind.DURABLE, 0, b"a"), (Kind.DELETED, 0, b"")]


def test_threads_do_not_mix_up_the_order(outbox: Outbox, publisher: RecordingPublisher) -> None:
    """Events come from one thread, tokens from another, holds from a third."""

    def stream() -> None:
        for _ in range(500):
            outbox.transient(b"x")

    def hold() -> None:
        for _ in range(200):
            outbox.release(outbox.hold())

    others = [threading.Thread(target=target) for target in (stream, stream, hold)]
    for thread in others:
        thread.start()
    for seq in range(500):
        outbox.durable(seq, b"a")
    for thread in others:
        thread.join()
    outbox.release_all()

    seqs = [seq for _, seq, _ in outline(publisher)]
    assert seqs == sorted(seqs)
    assert [seq for kind, seq, _ in outline(publisher) if kind is Kind.DURABLE] == list(range(500))
    assert len(publisher.published) == 1500
