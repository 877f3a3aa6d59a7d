"""Ready-made answers: four lines that belong together."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from service.store.layout import ConversationDirectory
from service.store.snapshot import (
    Snapshot,
    SnapshotHeader,
    SnapshotReader,
    leaf_of,
    read_brief,
    read_snapshot,
    write_snapshot,
)
from tests.unit.store.conversation_files import LONG_AGO, make_conversation

HEADER = SnapshotHeader("idle", "2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z")
SNAPSHOT = Snapshot(HEADER, b'{"leaf_event_id":"e1"}', b'{"key":"full_state"}', b'{"leaf_event_id":"e1","skills":[1]}')


@pytest.fixture
def directory(tmp_path: Path) -> ConversationDirectory:
    return make_conversation(tmp_path)


def test_snapshot_is_read_as_it_was_written(directory: ConversationDirectory) -> None:
    """Byte for byte."""
    write_snapshot(directory, SNAPSHOT)
    assert read_snapshot(directory) == SNAPSHOT
    assert read_brief(directory) == SNAPSHOT[:2]
    reader = SnapshotReader()
    answers = [reader.info(directory), reader.full_state(directory), reader.info(directory, with_skills=True)]
    assert answers == [*SNAPSHOT[1:]]


def test_answer_with_skills_is_not_stored_twice(directory: ConversationDirectory) -> None:
    """An empty line stands for the answer without."""
    write_snapshot(directory, SNAPSHOT._replace(info_with_skills=b""))
    assert SnapshotReader().info(directory, with_skills=True) == SNAPSHOT.info


def test_newer_snapshot_is_seen_at_once(directory: ConversationDirectory) -> None:
    """A client that was told of a change asks at once."""
    reader = SnapshotReader()
    for number in range(20):
        write_snapshot(directory, SNAPSHOT._replace(info=b"%d" % number))
        assert reader.info(directory) == b"%d" % number


def test_directory_from_elsewhere_has_no_snapshot(directory: ConversationDirectory) -> None:
    """A runner must describe it first."""
    reader = SnapshotReader()
    answers = [reader.info(directory), reader.full_state(directory), reader.info(directory, with_skills=True)]
    assert answers == [None] * 3
    assert read_brief(directory) is None


def test_skills_do_not_stay_in_memory(directory: ConversationDirectory) -> None:
    """A list of thousands of conversations would take a gigabyte of them in each worker."""
    skills = b'{"skills":"' + b"x" * 1_000_000 + b'"}'
    write_snapshot(directory, Snapshot(HEADER, b"{}", skills, skills))
    os.utime(directory.snapshot, (LONG_AGO, LONG_AGO))
    reader = SnapshotReader()
    tracemalloc.start()
    try:
        assert reader.info(directory) == b"{}"
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\n\n\n", b'{"status":"idle"}\n1\n2\n', b'{"statu\n1\n2\n', b"[]\n1\n2\n", b"1\n1\n2\n3\n4"],
    ids=["empty", "cut short", "blank lines", "older header", "broken header", "no object", "more lines"],
)
def test_what_is_no_snapshot_counts_as_none(directory: ConversationDirectory, data: bytes) -> None:
    """It is made again from the truth beside it."""
    directory.snapshot.write_bytes(data)
    assert read_snapshot(directory) is None


def test_brief_that_is_cut_short_counts_as_none(directory: ConversationDirectory) -> None:
    """The disk may lose the end of a file with the power."""
    write_snapshot(directory, SNAPSHOT)
    data = directory.snapshot.read_bytes()
    complete = data.index(b"\n", data.index(b"\n") + 1) + 1
    for length in range(len(data)):
        directory.snapshot.write_bytes(data[:length])
        assert (read_brief(directory) is None) == (length < complete)


def test_head_is_read_from_the_answer() -> None:
    """Where the conversation's tree stands, or nowhere yet."""
    assert leaf_of(SNAPSHOT.info) == "e1"
    assert leaf_of(b'{"leaf_event_id":null}') is None
