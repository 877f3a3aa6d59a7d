"""Events are read as the bytes they were stored as, whatever else happens to the directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest

from service.errors import ConversationNotFound
from service.store import event_log
from service.store.event_log import ByteCache, EventFacts, EventKey, EventLog, EventLogs
from service.store.event_name import event_file_name, names_from
from service.store.layout import ConversationDirectory, ConversationsRoot
from tests.unit.store.conversation_files import LONG_AGO, make_conversation, message, put_event

CACHE_BYTES = 1 << 20
PATIENCE_SECONDS = 10.0


def open_log(directory: ConversationDirectory) -> EventLog:
    return EventLog(directory, ByteCache(CACHE_BYTES))


@pytest.fixture
def directory(tmp_path: Path) -> ConversationDirectory:
    return make_conversation(tmp_path)


# Length


async def test_length_of_no_conversation_is_none(tmp_path: Path) -> None:
    """Also when an empty directory was left behind."""
    directory = ConversationsRoot(tmp_path).directory(uuid4())
    assert await open_log(directory).length() is None
    directory.path.mkdir()
    assert await open_log(directory).length() is None


async def test_length_before_the_first_event_is_zero(directory: ConversationDirectory) -> None:
    """A conversation without an events directory exists."""
    assert await open_log(directory).length() == 0


async def test_length_counts_events_and_nothing_else(directory: ConversationDirectory) -> None:
    """Markers, locks and what a crash left behind are no events."""
    put_event(directory, 0)
    for name in (".eventlog.lock", ".eventlog-len-1.marker", ".event-00001-aaaaaaaa.json.x.tmp", "event-00001-x.json"):
        (directory.events / name).touch()
    assert await open_log(directory).length() == 1


async def test_event_is_seen_as_soon_as_it_is_there(directory: ConversationDirectory) -> None:
    """Also when it comes within the same tick of the file system's clock as the last look."""
    log = open_log(directory)
    for seq in range(50):
        put_event(directory, seq)
        assert await log.length() == seq + 1


async def test_directory_that_was_just_changed_is_not_believed_twice(directory: ConversationDirectory) -> None:
    """Two events within one tick leave it with the same time."""
    log, now = open_log(directory), time.time_ns()
    for seq in range(2):
        put_event(directory, seq)
        os.utime(directory.events, ns=(now, now))
        assert await log.length() == seq + 1


async def test_unchanged_directory_is_listed_once(directory: ConversationDirectory) -> None:
    """A settled log costs one `stat` a look."""
    put_event(directory, 0)
    os.utime(directory.events, (LONG_AGO, LONG_AGO))
    log = open_log(directory)
    with patch.object(os, "listdir", side_effect=os.listdir) as listing:
        assert [await log.length() for _ in range(3)] == [1, 1, 1]
    assert listing.call_count == 1


async def test_events_behind_a_gap_are_not_readable_yet(directory: ConversationDirectory) -> None:
    """On a network disk a later name may show up first."""
    put_event(directory, 0)
    put_event(directory, 2)
    log = open_log(directory)
    assert await log.length() == 1
    put_event(directory, 1)
    assert await log.length() == 3


@pytest.mark.parametrize("names_in_all", [6, 100_006], ids=["few", "numbers of six digits"])
def test_new_names_are_found_without_parsing_the_old(names_in_all: int) -> None:
    """The old are sorted out by their text, as long as that is in the order of the numbers."""
    names = [event_file_name(seq, f"{seq:08}") for seq in range(names_in_all)]
    names = [".eventlog.lock", *reversed(names), "event-00001-x.json.tmp"]
    wanted = {event_file_name(seq, f"{seq:08}") for seq in range(names_in_all - 4, names_in_all)}
    found = names_from(names_in_all - 4, names)
    assert wanted <= set(found)
    assert len(found) == 4 or names_in_all > 100_000


async def test_two_events_of_one_number_leave_the_rest_alone(directory: ConversationDirectory) -> None:
    """As a deposed owner's last may be beside its successor's; a reader stays with the one it has seen."""
    for seq in range(3):
        put_event(directory, seq, id=f"{seq:08}")
    logs = [open_log(directory), open_log(directory)]
    await logs[0].length()
    others = [f"{number:08x}" for number in range(0xA0, 0xC0)]
    for other in others:  # one of them is what a listing would show last
        put_event(directory, 2, id=other)
    assert await logs[0].length() == await logs[1].length() == 3
    assert logs[0].id_of(2) == "00000002"
    seen = logs[1].id_of(2)
    put_event(directory, 3, id="00000003")
    assert [await log.length() for log in logs] == [4, 4]
    assert (logs[0].id_of(2), logs[1].id_of(2)) == ("00000002", seen)
    assert [log.id_of(0) for log in logs] == ["00000000"] * 2


# Bytes


async def test_read_returns_the_stored_bytes(directory: ConversationDirectory) -> None:
    """Not one byte differs, spaces included."""
    stored = [put_event(directory, seq, text="ä ") for seq in range(5)]
    log = open_log(directory)
    await log.length()
    assert await log.read(1, 4) == stored[1:4]
    assert await log.read_many([4, 0]) == [stored[4], stored[0]]


@pytest.mark.parametrize("is_cached", [False, True], ids=["from disk", "from memory"])
async def test_one_read_is_bounded(directory: ConversationDirectory, is_cached: bool) -> None:
    """By number and by size, yet never empty."""
    small = [put_event(directory, seq) for seq in range(150)]
    large = [put_event(directory, 150 + seq, text="x" * 700_000) for seq in range(3)]
    log = EventLog(directory, ByteCache(10 << 20))
    await log.length()
    if is_cached:
        await log.read_many(list(range(153)))
    assert await log.read(0, 153) == small[:100]
    assert await log.read(150, 153) == large[:2]
    assert await log.read(152, 153) == large[2:]


async def test_events_are_read_from_disk_once(directory: ConversationDirectory) -> None:
    """They never change, so the second reader is served from memory."""
    stored = put_event(directory, 0, id="aaaaaaaa")
    log = open_log(directory)
    await log.length()
    await log.read(0, 1)
    (directory.events / "event-00000-aaaaaaaa.json").unlink()
    assert await log.read(0, 1) == [stored]
    assert await log.read_many([0]) == [stored]


async def test_seq_and_id_lead_to_each_other(directory: ConversationDirectory) -> None:
    """As of the last look; an unknown id has no seq."""
    put_event(directory, 0, id="aaaaaaaa")
    put_event(directory, 1, id="bbbbbbbb")
    log = open_log(directory)
    await log.length()
    assert (log.seq_of("bbbbbbbb"), log.id_of(1)) == (1, "bbbbbbbb")
    assert log.seq_of("cccccccc") is None


# Deletion


async def test_deleted_conversation_has_no_length(directory: ConversationDirectory) -> None:
    """A log that was open is not remembered as it was."""
    put_event(directory, 0)
    log = open_log(directory)
    await log.length()
    shutil.rmtree(directory.path)
    assert await log.length() is None
    assert log.seq_of("aaaaaaaa") is None


@pytest.mark.parametrize("looks_again", [False, True])
async def test_reading_a_conversation_that_was_deleted_meanwhile_is_refused(
    directory: ConversationDirectory, looks_again: bool
) -> None:
    """The reader learns that it is gone, whether or not somebody else noticed before."""
    put_event(directory, 0)
    log = open_log(directory)
    await log.length()
    shutil.rmtree(directory.path)
    if looks_again:
        await log.length()
    with pytest.raises(ConversationNotFound):
        await log.read(0, 1)
    with pytest.raises(ConversationNotFound):
        await log.read_many([0])


@pytest.mark.parametrize("same_inode", [False, True])
async def test_conversation_made_again_under_its_id_has_its_own_events(
    directory: ConversationDirectory, same_inode: bool
) -> None:
    """A client may delete and create with the same id; the new directory may even get the old inode number."""
    for seq in range(3):
        put_event(directory, seq)
    log = open_log(directory)
    await log.length()
    await log.facts(3)
    await log.read(0, 3)
    if same_inode:
        for path in directory.events.iterdir():
            path.unlink()
    else:
        directory.events.rename(directory.path / "old")
    new = [put_event(directory, seq, **message(f"new {seq}")) for seq in range(4)]

    assert await log.length() == 4
    assert await log.read(0, 4) == new
    assert [facts.text for facts in await log.facts(4)] == ["new 0", "new 1", "new 2", "new 3"]


@pytest.mark.parametrize("left", [0, 1])
async def test_conversation_that_is_deleted_after_a_look_is_not_found(
    directory: ConversationDirectory, left: int
) -> None:
    """By whoever goes on with what that look has shown; others may have looked again, at what was made in its place."""
    for seq in range(3):
        put_event(directory, seq)
    log = open_log(directory)
    assert await log.length() == 3
    directory.events.rename(directory.path / "old")
    for seq in range(left):
        put_event(directory, seq)
    assert await log.length() == left
    with pytest.raises(ConversationNotFound):
        await log.facts(3)
    with pytest.raises(ConversationNotFound):
        log.id_of(2)


# Facts


async def test_facts_are_what_filters_need(directory: ConversationDirectory) -> None:
    """Kind, source and time of every event, and the text of messages in lower case."""
    put_event(directory, 0)
    said = message("Hello", timestamp="2026-01-02T03:04:05.5", extended_content=[{"type": "text", "text": "A Skill"}])
    said["llm_message"] |= {"reasoning_content": "Hmm", "content": [*said["llm_message"]["content"], {"type": "image"}]}
    put_event(directory, 1, **said)
    log = open_log(directory)
    await log.length()
    assert await log.facts(2) == [
        EventFacts("PauseEvent", "user", "2026-01-01T00:00:00", ""),
        EventFacts("MessageEvent", "user", "2026-01-02T03:04:05.5", "hello\na skill\nhmm"),
    ]


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"kind":"MessageEvent","source":"user","llm_message":1}'])
async def test_unreadable_event_passes_no_filter(directory: ConversationDirectory, content: bytes) -> None:
    """One bad file does not spoil the search in the others."""
    put_event(directory, 0)
    directory.events.joinpath("event-00001-aaaaaaaa.json").write_bytes(content)
    put_event(directory, 2)
    log = open_log(directory)
    await log.length()
    assert [facts.kind for facts in await log.facts(3)] == ["PauseEvent", "", "PauseEvent"]


async def test_each_event_is_parsed_once(directory: ConversationDirectory) -> None:
    """A search after every new event costs that event only."""
    log = open_log(directory)
    with patch.object(event_log, "facts_of", side_effect=event_log.facts_of) as parse:
        for seq in range(5):
            put_event(directory, seq)
            await log.length()
            assert len(await log.facts(seq + 1)) == seq + 1
    assert parse.call_count == 5


# Several readers


async def test_readers_that_give_up_leave_the_log_whole(directory: ConversationDirectory) -> None:
    """A thread goes on when its caller is cancelled, and must not write into what the next one builds."""
    for seq in range(300):
        put_event(directory, seq, id=f"{seq:08}", **message(f"text {seq}"))
    log = open_log(directory)
    for patience in range(6):
        readers = [asyncio.create_task(log.length()), asyncio.create_task(_facts_length(log))]
        for _ in range(patience):
            await asyncio.sleep(0)
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)

    lengths = await asyncio.gather(*(log.length() for _ in range(5)))
    assert lengths == [300] * 5
    counts = await asyncio.gather(*(_facts_length(log) for _ in range(5)))
    assert counts == [300] * 5
    assert [log.id_of(seq) for seq in range(300)] == [f"{seq:08}" for seq in range(300)]
    assert [facts.text for facts in await log.facts(300)] == [f"text {seq}" for seq in range(300)]


async def test_readers_who_come_during_a_look_share_the_next(directory: ConversationDirectory) -> None:
    """Which shows what was there when they came, as the one that is under way may not."""
    put_event(directory, 0)
    log = open_log(directory)
    has_listed, may_end = threading.Event(), threading.Event()

    def slow_list(path: str) -> list[str]:
        names = os_listdir(path)
        has_listed.set()
        assert may_end.wait(PATIENCE_SECONDS)
        return names

    os_listdir = os.listdir
    with patch.object(os, "listdir", side_effect=slow_list) as listing:
        first = asyncio.create_task(log.length())
        assert await asyncio.to_thread(has_listed.wait, PATIENCE_SECONDS)
        put_event(directory, 1)
        later = [asyncio.create_task(log.length()) for _ in range(20)]
        await asyncio.sleep(0)
        may_end.set()
        assert await first == 1
        assert await asyncio.gather(*later) == [2] * 20
    assert listing.call_count == 2


async def _facts_length(log: EventLog) -> int:
    return len(await log.facts(0))


# Memory


def key(number: int) -> EventKey:
    return EventKey(UUID(int=1), str(number))


def test_cache_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    """The bytes of all conversations together stay within the limit."""
    cache = ByteCache(30)
    for number in range(3):
        cache.put(key(number), b"x" * 10)
    cache.get(key(0))
    cache.put(key(3), b"x" * 10)
    assert [cache.get(key(number)) is not None for number in range(4)] == [True, False, True, True]
    assert cache.size_bytes == 30


def test_cache_counts_an_event_once() -> None:
    """Two threads may read the same file at the same time."""
    cache = ByteCache(30)
    cache.put(key(0), b"x" * 10)
    cache.put(key(0), b"x" * 10)
    assert cache.size_bytes == 10


def test_cache_is_not_emptied_by_one_large_event() -> None:
    """What could never fit is not kept at all."""
    cache = ByteCache(30)
    cache.put(key(0), b"x" * 10)
    cache.put(key(1), b"x" * 31)
    assert cache.get(key(0)) is not None
    assert cache.get(key(1)) is None


async def test_logs_share_their_memory_and_their_number_is_bounded(tmp_path: Path) -> None:
    """A log that was put away is opened again like new."""
    ids = [make_conversation(tmp_path).conversation_id for _ in range(3)]
    logs = EventLogs(ConversationsRoot(tmp_path), CACHE_BYTES)
    with patch.object(event_log, "_OPEN_LOGS", 2):
        opened = [logs.open(conversation_id) for conversation_id in ids]
        assert logs.open(ids[2]) is opened[2]
        assert logs.open(ids[0]) is not opened[0]
    assert await logs.open(ids[0]).length() == 0
    assert await logs.open(uuid4()).length() is None


async def test_what_logs_remember_is_bounded(tmp_path: Path) -> None:
    """A worker that has searched the texts of many conversations does not keep them all."""
    logs = EventLogs(ConversationsRoot(tmp_path), CACHE_BYTES)
    opened = []
    with patch.object(event_log, "_OPEN_LOGS_BYTES", 25_000):
        for number in range(4):
            directory = make_conversation(tmp_path)
            put_event(directory, 0, id=f"{number:08}", **message("x" * 10_000))
            log = logs.open(directory.conversation_id)
            await log.length()
            await log.facts(1)
            assert 10_000 < log.size_bytes < 11_000
            opened.append((directory.conversation_id, log))
    assert [logs.open(conversation_id) is log for conversation_id, log in reversed(opened)] == [True] * 3 + [False]
