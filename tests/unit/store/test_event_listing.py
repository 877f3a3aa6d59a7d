"""The listing spares readers the directory, and is not believed where it may lack something."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from service.store import event_listing
from service.store.event_listing import EventListing
from service.store.event_log import ByteCache, EventLog
from service.store.event_name import EventName, event_file_name, parse_event_name
from service.store.layout import ConversationDirectory
from tests.unit.store.conversation_files import LONG_AGO, make_conversation, put_event

LONG_AGO_NS = LONG_AGO * 10**9
REAL_TIME = event_listing._time


@pytest.fixture(autouse=True)
def every_log_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a directory's time is one that a test can set."""
    monkeypatch.setattr(event_listing, "SHORTEST", 2)
    monkeypatch.setattr(event_listing, "_time", lambda status: status.st_mtime_ns)


@pytest.fixture
def directory(tmp_path: Path) -> ConversationDirectory:
    return make_conversation(tmp_path)


class Owner:
    """Appends as the owner of a conversation does, each event at a time of its own."""

    def __init__(self, directory: ConversationDirectory) -> None:
        self._directory = directory
        self._listing = EventListing(directory)

    def append(self, *seqs: int) -> None:
        for seq in seqs:
            self.note(put(self._directory, seq))

    def note(self, name: EventName) -> None:
        self._listing.note(name)


def put(directory: ConversationDirectory, seq: int) -> EventName:
    """An event that is not listed."""
    name = EventName(seq, f"{seq:08}")
    put_event(directory, seq, id=name.event_id)
    os.utime(directory.events, ns=(0, LONG_AGO_NS + seq))
    return name


def open_log(directory: ConversationDirectory) -> EventLog:
    return EventLog(directory, ByteCache(1 << 20))


def listed(directory: ConversationDirectory) -> list[str]:
    return directory.event_listing.read_text().split()[1::2]


def names(length: int) -> list[str]:
    return [event_file_name(seq, f"{seq:08}") for seq in range(length)]


@contextmanager
def unlisted() -> Iterator[None]:
    """Nobody lists a directory."""
    with patch.object(os, "listdir", side_effect=AssertionError("the directory is listed")):
        yield


# The owner


def test_short_log_has_no_listing(directory: ConversationDirectory) -> None:
    Owner(directory).append(0)
    assert not directory.event_listing.exists()


def test_long_log_has_all_its_names(directory: ConversationDirectory) -> None:
    """Those before it was long, too."""
    Owner(directory).append(0, 1, 2, 3)
    assert listed(directory) == names(4)


def test_names_are_added_without_listing_the_directory(directory: ConversationDirectory) -> None:
    owner = Owner(directory)
    owner.append(0, 1)
    with unlisted():
        owner.append(2, 3)
    assert listed(directory) == names(4)


def test_new_owner_makes_it_anew(directory: ConversationDirectory) -> None:
    """What happened between owners is in it."""
    Owner(directory).append(0, 1)
    put(directory, 2)
    Owner(directory).append(3)
    assert listed(directory) == names(4)


def test_line_of_another_owner_is_noticed(directory: ConversationDirectory) -> None:
    """One that was deposed may wake up and write its line; this one's next event makes the listing anew."""
    owner = Owner(directory)
    owner.append(0, 1, 2)
    add_an_old_line(directory.event_listing)
    owner.append(3)
    assert listed(directory) == names(4)


@pytest.mark.parametrize("call", ["open", "write"])
async def test_full_disk_costs_the_listing_and_no_event(directory: ConversationDirectory, call: str) -> None:
    """Also where the event has the time of the one before. The next one that finds room is listed with all others."""
    owner = Owner(directory)
    owner.append(0, 1)
    name = put(directory, 2)
    os.utime(directory.events, ns=(0, LONG_AGO_NS + 1))
    with patch.object(os, call, side_effect=OSError(errno.ENOSPC, "full")):
        owner.note(name)
    assert not directory.event_listing.exists()
    assert await open_log(directory).length() == 3
    owner.append(3)
    assert listed(directory) == names(4)


def test_log_with_two_events_of_one_number_has_no_listing(directory: ConversationDirectory) -> None:
    """As a deposed owner's last may be beside its successor's: a reader would read it in vain each time."""
    owner = Owner(directory)
    owner.append(0, 1, 2)
    put_event(directory, 2, id="aaaaaaaa")
    Owner(directory).append(3)
    assert not directory.event_listing.exists()


async def test_new_owner_begins_without_one(directory: ConversationDirectory) -> None:
    """The last may have died between an event and its line, and the event have the time of the one before."""
    Owner(directory).append(*range(5))
    put(directory, 5)
    os.utime(directory.events, ns=(0, LONG_AGO_NS + 4))
    log = open_log(directory)
    assert await log.length() == 5
    EventListing(directory)
    assert await log.length() == 6


def test_half_a_line_is_not_added_to(directory: ConversationDirectory) -> None:
    """A disk may take some bytes and then no more."""
    owner = Owner(directory)
    owner.append(0, 1)
    name = put(directory, 2)
    os_write = os.write
    full = OSError(errno.ENOSPC, "full")
    with (
        patch.object(os, "write", side_effect=lambda descriptor, line: os_write(descriptor, line[:20])),
        patch.object(event_listing, "write_atomically", side_effect=full),
    ):
        owner.note(name)
    assert not directory.event_listing.exists()
    owner.append(3)
    assert listed(directory) == names(4)


# Readers


async def test_reader_lists_no_directory_that_has_a_listing(directory: ConversationDirectory) -> None:
    """Neither at its first look nor after new events."""
    owner = Owner(directory)
    owner.append(*range(5))
    log = open_log(directory)
    with unlisted():
        assert await log.length() == 5
        for seq in range(5, 9):
            owner.append(seq)
            assert await log.length() == seq + 1
    assert [log.id_of(seq) for seq in range(9)] == [f"{seq:08}" for seq in range(9)]


async def test_reader_who_knows_the_log_reads_what_is_new(directory: ConversationDirectory) -> None:
    """However long the log is."""
    owner = Owner(directory)
    owner.append(*range(50))
    log = open_log(directory)
    await log.length()
    owner.append(50, 51)
    with patch.object(event_listing, "parse_event_name", side_effect=parse_event_name) as parse:
        assert await log.length() == 52
    assert parse.call_count == 3


async def test_listing_of_a_new_owner_is_read_from_its_beginning(directory: ConversationDirectory) -> None:
    """Its lines are elsewhere; what the reader has found out about events stays."""
    Owner(directory).append(0, 1, 2)
    log = open_log(directory)
    await log.length()
    facts = await log.facts(3)
    Owner(directory).append(3)
    with unlisted():
        assert await log.length() == 4
    assert await log.facts(4) is facts


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def lose_a_line(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))


def lose_the_first_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def lose_a_block(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(60) + content[160:])


def add_an_old_line(path: Path) -> None:
    with path.open("a") as file:
        file.write(f"{LONG_AGO_NS} {event_file_name(1, 'aaaaaaaa')}\n")


@pytest.mark.parametrize(
    "spoil", [truncate, lose_a_line, lose_the_first_line, lose_a_block, add_an_old_line, Path.unlink]
)
@pytest.mark.parametrize("is_known", [False, True], ids=["new reader", "reader who knows the log"])
async def test_spoilt_listing_is_not_believed(
    directory: ConversationDirectory, spoil: Callable[[Path], None], is_known: bool
) -> None:
    """As a power cut or two owners may leave it, with the directory's time in its last line."""
    Owner(directory).append(*range(5))
    log = open_log(directory)
    if is_known:
        await log.length()
    spoil(directory.event_listing)
    assert await log.length() == 5
    assert log.id_of(4) == "00000004"


async def test_event_of_another_program_is_seen(directory: ConversationDirectory) -> None:
    """The published server keeps no listing."""
    Owner(directory).append(*range(5))
    log = open_log(directory)
    await log.length()
    put(directory, 5)
    assert await log.length() == 6
    assert await open_log(directory).length() == 6


async def test_event_that_was_renamed_away_is_gone(directory: ConversationDirectory) -> None:
    """As an owner sets aside what a power cut has torn."""
    Owner(directory).append(*range(5))
    directory.events.joinpath(event_file_name(4, "00000004")).rename(directory.events / ".torn")
    assert await open_log(directory).length() == 4


async def test_line_that_comes_late_is_seen(directory: ConversationDirectory) -> None:
    """The owner may be stopped between an event and its line, and the event have the time of the one before."""
    owner = Owner(directory)
    owner.append(*range(5))
    name = put(directory, 5)
    os.utime(directory.events, ns=(0, LONG_AGO_NS + 4))
    log = open_log(directory)
    assert await log.length() == 5
    owner.note(name)
    assert await log.length() == 6


async def test_reader_who_knows_more_than_the_listing_does_not_forget_it(directory: ConversationDirectory) -> None:
    """It listed the directory while a line was yet to come; then the time was that of a line again."""
    owner = Owner(directory)
    owner.append(*range(5))
    put(directory, 5)
    log = open_log(directory)
    assert await log.length() == 6
    os.utime(directory.events, ns=(0, LONG_AGO_NS + 4))
    assert await log.length() == 6


async def test_listing_that_cannot_be_read_is_none(directory: ConversationDirectory) -> None:
    """On a network disk it may be replaced between its opening and its reading."""
    Owner(directory).append(*range(5))
    stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    with patch.object(Path, "open", side_effect=stale):
        assert await open_log(directory).length() == 5


async def test_listing_in_a_copy_is_not_believed(
    directory: ConversationDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup of a live conversation may have it newer than the events, with the time that these are given."""
    monkeypatch.setattr(event_listing, "_time", REAL_TIME)
    owner = Owner(directory)
    owner.append(*range(5))
    copy = ConversationDirectory(tmp_path / "copy" / directory.path.name)
    copy.path.mkdir(parents=True)
    shutil.copytree(directory.events, copy.events)
    owner.append(5)
    shutil.copy2(directory.event_listing, copy.event_listing)
    assert await open_log(copy).length() == 5
    assert len(listed(copy)) == 6


async def test_conversation_made_again_has_its_own_events(directory: ConversationDirectory) -> None:
    """Also when its directory has the inode number and the time of the old one."""
    Owner(directory).append(*range(3))
    log = open_log(directory)
    await log.length()
    for path in directory.events.iterdir():
        path.unlink()
    owner = EventListing(directory)
    for seq in range(4):
        put_event(directory, seq, id=f"aaaa{seq:04}")
        os.utime(directory.events, ns=(0, LONG_AGO_NS + seq))
        owner.note(EventName(seq, f"aaaa{seq:04}"))
    assert await log.length() == 4
    assert [log.id_of(seq) for seq in range(4)] == [f"aaaa{seq:04}" for seq in range(4)]
