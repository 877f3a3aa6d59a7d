"""One writer: a claim raises the lease epoch, and the fence asks whether it is still the newest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from service.errors import OwnershipLost
from service.identity import RunnerId
from service.store.layout import ConversationDirectory
from service.store.owner_record import (
    INTERRUPTION_SECONDS,
    NOBODY,
    Fence,
    claim,
    give_up,
    note_interruption,
    note_run,
    read_owner,
)
from tests.unit.store.conversation_files import make_conversation, put_event

ONE, OTHER = RunnerId("one"), RunnerId("other")


@pytest.fixture
def directory(tmp_path: Path) -> ConversationDirectory:
    return make_conversation(tmp_path)


def test_directory_from_elsewhere_has_no_owner(directory: ConversationDirectory) -> None:
    """Nobody of ours ever claimed it."""
    assert read_owner(directory) is None


def test_each_claim_is_one_higher_and_the_history_keeps_its_identity(directory: ConversationDirectory) -> None:
    """Also when the same runner claims again."""
    claims = [claim(directory, runner_id, fsync=False) for runner_id in (ONE, OTHER, OTHER)]
    assert [record.lease_epoch for record in claims] == [1, 2, 3]
    assert [record.runner_id for record in claims] == [ONE, OTHER, OTHER]
    assert len({record.stream_epoch for record in claims}) == 1
    assert len(claims[0].stream_epoch) == 16
    assert read_owner(directory) == claims[-1]


def test_two_histories_have_different_identities(tmp_path: Path) -> None:
    """A seq of one means nothing in the other."""
    first, second = (claim(make_conversation(tmp_path), ONE, fsync=False) for _ in range(2))
    assert first.stream_epoch != second.stream_epoch


def test_the_newest_claim_passes_the_fence(directory: ConversationDirectory) -> None:
    """Again and again, also when the record was written anew with the same content."""
    fence = Fence(directory, claim(directory, ONE, fsync=False))
    fence.check()
    content = directory.owner.read_bytes()
    directory.owner.unlink()
    directory.owner.write_bytes(content)
    fence.check()


def test_a_deposed_owner_is_stopped_for_good(directory: ConversationDirectory) -> None:
    """By another runner's claim as by a later one of its own."""
    fence = Fence(directory, claim(directory, ONE, fsync=False))
    fence.check()
    newer = Fence(directory, claim(directory, OTHER, fsync=False))
    for _ in range(2):
        with pytest.raises(OwnershipLost):
            fence.check()
    newer.check()
    claim(directory, ONE, fsync=False)
    with pytest.raises(OwnershipLost):
        fence.check()
    with pytest.raises(OwnershipLost):
        newer.check()


def test_an_owner_deposed_before_its_first_look_is_stopped(directory: ConversationDirectory) -> None:
    """A runner may be held up between its claim and the first write."""
    record = claim(directory, ONE, fsync=False)
    claim(directory, OTHER, fsync=False)
    fence = Fence(directory, record)
    with pytest.raises(OwnershipLost):
        fence.check()


def test_of_two_that_claim_at_once_one_may_write(directory: ConversationDirectory) -> None:
    """Both have read the record before either wrote it, so their epochs are the same."""
    claim(directory, ONE, fsync=False)
    before = directory.owner.read_bytes()
    first = Fence(directory, claim(directory, ONE, fsync=False))
    first.check()
    directory.owner.write_bytes(before)
    second = Fence(directory, claim(directory, OTHER, fsync=False))
    with pytest.raises(OwnershipLost):
        first.check()
    second.check()


def test_an_owner_that_let_go_leaves_nobody_behind(directory: ConversationDirectory) -> None:
    """Whoever comes next need not ask whether it is dead; the history and its epochs go on."""
    record = claim(directory, ONE, fsync=False)
    give_up(directory, record, owes_run=False, fsync=False)
    assert read_owner(directory) == record._replace(runner_id=NOBODY)
    assert claim(directory, OTHER, fsync=False).lease_epoch == 2


def test_a_run_that_is_owed_is_noted_until_the_status_shows_it(directory: ConversationDirectory) -> None:
    """Whoever comes next may die before."""
    give_up(directory, claim(directory, ONE, fsync=False), owes_run=True, fsync=False)
    claim(directory, OTHER, fsync=False)
    record = claim(directory, ONE, fsync=False)
    assert record.owes_run
    note_run(directory, record, fsync=False)
    assert not claim(directory, OTHER, fsync=False).owes_run


def test_a_deposed_owner_cannot_let_go_for_its_successor(directory: ConversationDirectory) -> None:
    """It notices late that it was deposed."""
    deposed = claim(directory, ONE, fsync=False)
    current = claim(directory, OTHER, fsync=False)
    give_up(directory, deposed, owes_run=False, fsync=False)
    assert read_owner(directory) == current


def test_a_deposed_owner_cannot_count_an_interruption(directory: ConversationDirectory) -> None:
    """It was held up after its claim, and would write its successor out of the record."""
    deposed = claim(directory, ONE, fsync=False)
    current = claim(directory, OTHER, fsync=False)
    with pytest.raises(OwnershipLost):
        note_interruption(directory, deposed, 0.0, fsync=False)
    assert read_owner(directory) == current


def test_an_owner_that_let_go_writes_nothing_more(directory: ConversationDirectory) -> None:
    """Its successor may be about to claim."""
    record = claim(directory, ONE, fsync=False)
    fence = Fence(directory, record)
    give_up(directory, record, owes_run=False, fsync=False)
    with pytest.raises(OwnershipLost):
        fence.check()


def test_letting_go_of_a_deleted_conversation_does_nothing(directory: ConversationDirectory) -> None:
    """There is no place to write to."""
    record = claim(directory, ONE, fsync=False)
    shutil.rmtree(directory.path)
    give_up(directory, record, owes_run=False, fsync=False)
    assert not directory.path.exists()


def test_interruptions_are_counted_over_owners(directory: ConversationDirectory) -> None:
    """The recent ones: a conversation that kills whoever runs it is noticed."""
    counts = []
    for moment in (0.0, 10.0, 20.0, INTERRUPTION_SECONDS + 15.0):
        record = claim(directory, ONE, fsync=False)
        fence = Fence(directory, record)
        counts.append(note_interruption(directory, record, moment, fsync=False))
        fence.check()
    assert counts == [1, 2, 3, 2]


@pytest.mark.parametrize(
    ("status", "length"), [("idle", 2), ("finished", 2), ("waiting_for_confirmation", 2), ("running", 0)]
)
def test_log_that_was_left_in_good_order_is_settled(tmp_path: Path, status: str, length: int) -> None:
    """At the first claim, and remembered: HEAD may have been moved back on purpose."""
    directory = make_conversation(tmp_path, execution_status=status)
    for seq in range(2):
        put_event(directory, seq)
    assert claim(directory, ONE, fsync=False).settled_length == length
    put_event(directory, 2)
    assert claim(directory, OTHER, fsync=False).settled_length == length
    record = read_owner(directory)
    assert record is not None
    assert record.settled_length == length


def test_new_conversation_has_nothing_settled(directory: ConversationDirectory) -> None:
    """Its log is our own from the beginning."""
    assert claim(directory, ONE, fsync=False).settled_length == 0


def test_a_deleted_conversation_has_no_owner(directory: ConversationDirectory) -> None:
    """Nothing is written into the place where it was."""
    fence = Fence(directory, claim(directory, ONE, fsync=False))
    shutil.rmtree(directory.path)
    with pytest.raises(OwnershipLost):
        fence.check()
