"""Ready-made answers: four lines that belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.store.layout import ConversationDirectory
from service.store.snapshot import (
    Snapshot,
    SnapshotHeader,
    SnapshotReader,
    leaf_of,
    parse_snapshot,
    write_snapshot,
)
from tests.unit.store.conversation_files import make_conversation

HEADER = SnapshotHeader("idle", "2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z")
SNAPSHOT = Snapshot(HEADER, b'{"leaf_event_id":"e1"}', b'{"key":"full_state"}', b'{"leaf_event_id":"e1","skills":[1]}')


@pytest.fixture
def directory(tmp_path: Path) -> ConversationDirectory:
    return make_conversation(tmp_path)


def test_snapshot_is_read_as_it_was_written(directory: ConversationDirectory) -> None:
    """Byte for byte."""
    write_snapshot(directory, SNAPSHOT)
    assert SnapshotReader().read(directory) == SNAPSHOT


def test_answer_with_skills_is_not_stored_twice(directory: ConversationDirectory) -> None:
    """An empty line stands for the answer without."""
    write_snapshot(directory, SNAPSHOT._replace(info_with_skills=b""))
    read = SnapshotReader().read(directory)
    assert read is not None
    assert read.info_with_skills == read.info


def test_newer_snapshot_is_seen_at_once(directory: ConversationDirectory) -> None:
    """A client that was told of a change asks at once."""
    reader = SnapshotReader()
    for number in range(20):
        write_snapshot(directory, SNAPSHOT._replace(info=b"%d" % number))
        read = reader.read(directory)
        assert read is not None
        assert read.info == b"%d" % number


def test_directory_from_elsewhere_has_no_snapshot(directory: ConversationDirectory) -> None:
    """A runner must describe it first."""
    assert SnapshotReader().read(directory) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\n\n\n", b'{"status":"idle"}\n1\n2\n', b'{"statu\n1\n2\n', b"[]\n1\n2\n", b"1\n1\n2\n3\n4"],
    ids=["empty", "cut short", "blank lines", "older header", "broken header", "no object", "more lines"],
)
def test_what_is_no_snapshot_counts_as_none(data: bytes) -> None:
    """It is made again from the truth beside it."""
    assert parse_snapshot(data) is None


def test_head_is_read_from_the_answer() -> None:
    """Where the conversation's tree stands, or nowhere yet."""
    assert leaf_of(SNAPSHOT) == "e1"
    assert leaf_of(SNAPSHOT._replace(info=b'{"leaf_event_id":null}')) is None
