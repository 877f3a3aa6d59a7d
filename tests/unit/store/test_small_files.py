"""Names, places, whole-file writes and the cache of small files."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store import atomic
from service.store.atomic import write_atomically
from service.store.cached_file import FileCache
from service.store.event_name import EventName, event_file_name, parse_event_name
from service.store.layout import ConversationsRoot
from tests.unit.store.conversation_files import LONG_AGO, make_conversation

ID = UUID("0123456789abcdef0123456789abcdef")


# Names


@given(st.integers(0, 10**8), st.uuids())
def test_event_name_is_parsed_as_it_was_made(seq: int, event_id: UUID) -> None:
    """Also past five digits, where the names no longer sort as text."""
    name = event_file_name(seq, str(event_id))
    assert parse_event_name(name) == EventName(seq, str(event_id))


def test_event_name_is_the_sdks() -> None:
    """Five digits at least, then the id."""
    assert event_file_name(7, "aaaa-bbbb") == "event-00007-aaaa-bbbb.json"


@pytest.mark.parametrize(
    "name",
    [
        ".eventlog.lock",
        ".eventlog-len-3.marker",
        ".event-00001-aaaaaaaa.json.k3f.tmp",
        "event-00001-aaaaaaaa.json.tmp",
        "event-0001-aaaaaaaa.json",
        "event-00001-aaaa.json",
        "event-00001-not an id.json",
        "event-00001.json",
    ],
)
def test_other_names_are_no_events(name: str) -> None:
    """The directory also holds markers, locks and leftovers."""
    assert parse_event_name(name) is None


# Places


def test_a_conversation_lives_under_its_undashed_id(tmp_path: Path) -> None:
    """The layout of the SDK, with our files beside it."""
    directory = ConversationsRoot(tmp_path).directory(ID)
    assert directory.path == tmp_path / "0123456789abcdef0123456789abcdef"
    assert directory.conversation_id == ID
    places = [
        directory.events,
        directory.base_state,
        directory.meta,
        directory.snapshot,
        directory.owner,
        directory.inbox,
    ]
    assert [place.name for place in places] == [
        "events",
        "base_state.json",
        "meta.json",
        "snapshot.jsonl",
        "owner.json",
        "inbox",
    ]


def test_only_directories_named_like_ids_are_conversations(tmp_path: Path) -> None:
    """Deleted ones on their way out, and whatever else lies there, are not listed."""
    root = ConversationsRoot(tmp_path / "conversations")
    assert root.ids() == []
    made = make_conversation(root.path, ID)
    for name in (f".deleted-{ID.hex}-aaaa", str(ID), ID.hex.upper(), "lost+found"):
        (root.path / name).mkdir()
    assert root.ids() == [made.conversation_id]


def test_a_directory_without_a_state_is_no_conversation(tmp_path: Path) -> None:
    """The state is written last when a conversation is made."""
    root = ConversationsRoot(tmp_path)
    directory = make_conversation(tmp_path, ID)
    assert root.exists(ID)
    directory.base_state.unlink()
    assert not root.exists(ID)


# Writes


@pytest.mark.parametrize("fsync", [False, True])
def test_file_is_replaced_whole(tmp_path: Path, fsync: bool) -> None:
    """Nothing but the new content is left, and only the server's user may read it."""
    path = tmp_path / "file"
    write_atomically(path, b"old and longer", fsync=fsync)
    write_atomically(path, b"new", fsync=fsync)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_file_is_synced_before_its_name_and_the_directory_after(tmp_path: Path) -> None:
    """A power cut finds the old file or the new one, never a name without content."""
    steps: list[str] = []

    def note_fsync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def note_replace(source: Path, target: Path) -> None:
        steps.append("name")
        os.rename(source, target)

    with patch.object(os, "fsync", note_fsync), patch.object(os, "replace", note_replace):
        write_atomically(tmp_path / "file", b"x", fsync=True)
        write_atomically(tmp_path / "file", b"y", fsync=False)
    assert steps == ["file", "name", "directory", "name"]


def test_short_writes_are_continued(tmp_path: Path) -> None:
    """The kernel may take less than it was given."""

    def write_a_little(descriptor: int, data: memoryview) -> int:
        return real_write(descriptor, data[:3])

    real_write = os.write
    with patch.object(os, "write", write_a_little):
        write_atomically(tmp_path / "file", b"0123456789", fsync=False)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """A full disk costs the new content only."""
    path = tmp_path / "file"
    write_atomically(path, b"old", fsync=False)
    with patch.object(atomic, "write_all", side_effect=OSError("no space")), pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new", fsync=False)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


# Cache


def test_cached_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    """Replaced, it is another file; gone, there is none."""
    cache, path = FileCache(capacity=8, load=load), tmp_path / "file"
    assert cache.read(path) is None
    for content in (b"one", b"two", b"six"):
        write_atomically(path, content, fsync=False)
        assert cache.read(path) == content
    path.unlink()
    assert cache.read(path) is None


def load(name: str) -> bytes:
    return Path(name).read_bytes()


def test_settled_file_is_read_once(tmp_path: Path) -> None:
    """What has not changed for a while is served from memory."""
    cache, path = FileCache(capacity=8, load=load), tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, (LONG_AGO, LONG_AGO))
    with patch.object(Path, "read_bytes", autospec=True, side_effect=Path.read_bytes) as read:
        assert [cache.read(path) for _ in range(3)] == [b"one"] * 3
    assert read.call_count == 1


def test_file_that_was_just_written_is_not_believed_twice(tmp_path: Path) -> None:
    """Two writes within one tick of the file system's clock look the same from outside."""
    cache, path = FileCache(capacity=8, load=load), tmp_path / "file"
    path.write_bytes(b"one")
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    assert cache.read(path) == b"one"
    path.write_bytes(b"two")
    os.utime(path, ns=(now, now))
    assert cache.read(path) == b"two"


def test_cache_of_files_is_bounded_by_weight(tmp_path: Path) -> None:
    """What was used longest ago makes room; a file that has changed counts as it is now, one that is gone not."""
    cache = FileCache(10, load, len)
    paths = [tmp_path / name for name in "abc"]

    def is_kept(path: Path) -> bool:
        with patch.object(Path, "read_bytes", autospec=True, side_effect=Path.read_bytes) as read:
            cache.read(path)
        return read.call_count == 0

    def put(path: Path, content: bytes) -> None:
        path.write_bytes(content)
        os.utime(path, (LONG_AGO, LONG_AGO))
        assert cache.read(path) == content

    put(paths[0], b"four")
    put(paths[1], b"four")
    put(paths[0], b"sixsix")
    assert is_kept(paths[0])
    assert is_kept(paths[1])
    paths[0].unlink()
    assert cache.read(paths[0]) is None
    put(paths[2], b"sixsix")
    assert is_kept(paths[1])
    put(paths[0], b"four")
    assert [is_kept(path) for path in (paths[1], paths[0])] == [True, True]
    put(paths[2], b"far too large")
    assert not is_kept(paths[2])


def test_cache_of_files_is_bounded(tmp_path: Path) -> None:
    """The one used longest ago is read again."""
    cache = FileCache(capacity=2, load=load)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode())
        os.utime(path, (LONG_AGO, LONG_AGO))
    for path in (paths[0], paths[1], paths[0], paths[2]):
        cache.read(path)
    with patch.object(Path, "read_bytes", autospec=True, side_effect=Path.read_bytes) as read:
        assert [cache.read(path) for path in (paths[0], paths[2], paths[1])] == [b"a", b"c", b"b"]
    assert read.call_count == 1
