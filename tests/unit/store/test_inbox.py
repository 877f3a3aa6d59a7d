"""Accepted commands survive a crash, keep their order, and are applied once; their keys are remembered."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from service.store import inbox as inbox_module
from service.store.inbox import Inbox, key_name, waiting_files
from service.store.layout import ConversationDirectory
from tests.unit.store.conversation_files import make_conversation


@pytest.fixture
def directory(tmp_path: Path) -> ConversationDirectory:
    return make_conversation(tmp_path)


def contents(directory: ConversationDirectory) -> list[tuple[str, bytes, str | None]]:
    """What a runner that starts now would find."""
    return [(entry.kind, entry.read(), entry.event_id) for entry in Inbox(directory, fsync=False).entries()]


def test_inbox_of_a_conversation_that_never_waited_is_empty(directory: ConversationDirectory) -> None:
    """And nothing is made for it."""
    assert contents(directory) == []
    assert waiting_files(directory.inbox) == []
    assert not Inbox(directory, fsync=False).is_done("k1")
    assert not directory.inbox.exists()


def test_commands_are_kept_in_order_of_arrival(directory: ConversationDirectory) -> None:
    """The order is decided by `reserve`, however long each took to be stored."""
    inbox = Inbox(directory, fsync=True)
    first, second, third = inbox.reserve(), inbox.reserve(), inbox.reserve()
    inbox.put(third, "pause", b"{}")
    inbox.put(first, "message", b'{"a":1}')
    inbox.put(second, "secrets", b"sealed")
    expected = [("message", b'{"a":1}', None), ("secrets", b"sealed", None), ("pause", b"{}", None)]
    assert contents(directory) == expected


def test_more_than_ten_commands_keep_their_order(directory: ConversationDirectory) -> None:
    """Numbers are compared as numbers."""
    inbox = Inbox(directory, fsync=False)
    for number in range(12):
        inbox.put(inbox.reserve(), "message", str(number).encode())
    assert [content for _, content, _ in contents(directory)] == [str(number).encode() for number in range(12)]


def test_commands_after_a_restart_come_behind_those_that_wait(directory: ConversationDirectory) -> None:
    """A number is not given twice while its entry is there."""
    inbox = Inbox(directory, fsync=False)
    inbox.put(inbox.reserve(), "message", b"old")
    again = Inbox(directory, fsync=False)
    again.put(again.reserve(), "message", b"new")
    assert [content for _, content, _ in contents(directory)] == [b"old", b"new"]


def test_assigned_entry_carries_its_event_and_keeps_its_place(directory: ConversationDirectory) -> None:
    """A crash from then on finds out whether the event was appended."""
    inbox = Inbox(directory, fsync=False)
    entry = inbox.put(inbox.reserve(), "message", b"one")
    inbox.put(inbox.reserve(), "message", b"two")
    event_id = "0a0b0c0d-0000-4000-8000-000000000001"
    assigned = inbox.assign(entry, event_id)
    assert assigned.event_id == event_id
    assert contents(directory) == [("message", b"one", event_id), ("message", b"two", None)]


def test_assigned_entry_can_be_assigned_again(directory: ConversationDirectory) -> None:
    """After a crash before the append, the next try makes another event."""
    inbox = Inbox(directory, fsync=False)
    entry = inbox.assign(inbox.put(inbox.reserve(), "message", b"one"), "aaaaaaaa")
    inbox.assign(entry, "bbbbbbbb")
    assert contents(directory) == [("message", b"one", "bbbbbbbb")]


def test_removed_entry_is_gone(directory: ConversationDirectory) -> None:
    """Under whichever name it has, and once more does no harm."""
    inbox = Inbox(directory, fsync=False)
    plain = inbox.put(inbox.reserve(), "pause", b"{}")
    assigned = inbox.assign(inbox.put(inbox.reserve(), "message", b"one"), "aaaaaaaa")
    for entry in (plain, assigned, plain):
        inbox.remove(entry)
    assert contents(directory) == []


def test_finished_entry_without_a_key_is_gone(directory: ConversationDirectory) -> None:
    """There is nothing to remember."""
    inbox = Inbox(directory, fsync=True)
    inbox.finish(inbox.put(inbox.reserve(), "pause", b"{}"))
    assert contents(directory) == []


@pytest.mark.parametrize("fsync", [False, True])
def test_finished_entry_leaves_its_key(directory: ConversationDirectory, fsync: bool) -> None:
    """Its repetition is recognised, also by the next owner; a command that waits or failed is not done."""
    inbox = Inbox(directory, fsync=fsync)
    waiting, failed, finished = (inbox.put(inbox.reserve(), "message", b"", key) for key in ("k1", "k2", "k3"))
    inbox.remove(failed)
    inbox.finish(inbox.assign(finished, "aaaaaaaa"))
    again = Inbox(directory, fsync=fsync)
    assert [again.is_done(key) for key in ("k1", "k2", "k3")] == [False, False, True]
    assert [entry.key for entry in again.entries()] == [waiting.key]


def test_keys_are_forgotten_after_a_day(directory: ConversationDirectory) -> None:
    """Now and then, so that they do not pile up; a younger one stays."""
    inbox = Inbox(directory, fsync=False)
    for key in ("old", "young"):
        inbox.finish(inbox.put(inbox.reserve(), "message", b"", key))
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(directory.inbox / "done" / "old", (two_days_ago, two_days_ago))
    with patch.object(inbox_module, "_PRUNE_EVERY", 1):
        inbox.finish(inbox.put(inbox.reserve(), "message", b"", "new"))
    assert [inbox.is_done(key) for key in ("old", "young", "new")] == [False, True, True]


def test_keys_are_forgotten_by_an_inbox_that_is_opened_often(directory: ConversationDirectory) -> None:
    """Its numbers never grow; and a key is remembered without its command."""
    inbox = Inbox(directory, fsync=False)
    for key in ("old", "young"):
        inbox.finish(inbox.put(inbox.reserve(), "message", b"long", key))
    done = directory.inbox / "done"
    assert [path.stat().st_size for path in done.iterdir()] == [0, 0]
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(done / "old", (two_days_ago, two_days_ago))
    again = Inbox(directory, fsync=False)
    assert [again.is_done(key) for key in ("old", "young")] == [False, True]


@pytest.mark.parametrize("key", ["plain", "a/../b", "dots.and spaces", "ü" * 500, ""])
def test_any_key_can_be_part_of_a_files_name(directory: ConversationDirectory, key: str) -> None:
    """Clients choose them freely."""
    inbox = Inbox(directory, fsync=False)
    inbox.put(inbox.reserve(), "message", b"one", key_name(key))
    [entry] = Inbox(directory, fsync=False).entries()
    assert (entry.key, entry.event_id, entry.read()) == (key_name(key), None, b"one")
    assert key_name(key) != key_name(key + "x")


def test_half_written_entry_is_ignored(directory: ConversationDirectory) -> None:
    """Its client was never answered."""
    inbox = Inbox(directory, fsync=False)
    inbox.put(inbox.reserve(), "message", b"one")
    (directory.inbox / ".0000000002.message.json.1234.tmp").write_bytes(b"ha")
    assert contents(directory) == [("message", b"one", None)]


def test_commands_are_for_the_servers_eyes_only(directory: ConversationDirectory) -> None:
    """They hold what users wrote."""
    inbox = Inbox(directory, fsync=False)
    entry = inbox.put(inbox.reserve(), "message", b"one")
    assert os.stat(directory.inbox).st_mode & 0o777 == 0o700
    assert os.stat(entry.path).st_mode & 0o777 == 0o600
