"""The history of shell commands on disk: what is found after concurrent writers, crashes, clearing and time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import pytest

from service.store.bash_history import BashHistory, new_command_id
from service.store.live_output import Delta, LiveOutput, Position, deltas_of
from tests.waiting import wait_until

FOREVER = 1 << 60


@pytest.fixture
def history(tmp_path: Path) -> BashHistory:
    return BashHistory(tmp_path / "bash_events")


def ids(history: BashHistory, first: int = 0, last: int = FOREVER) -> list[str]:
    return [entry.event_id for entry in history.entries(first, last, descending=False)]


def run(history: BashHistory, command: str) -> str:
    """A command with one output; returns its id."""
    command_id = new_command_id()
    history.begin(command_id, command, None, 300)
    history.add_output(command_id, 0, 0, command, None)
    return command_id


def test_concurrent_writers_lose_nothing_and_keep_the_order_of_time(history: BashHistory) -> None:
    with ThreadPoolExecutor(8) as pool:
        commands = list(pool.map(lambda number: run(history, str(number)), range(200)))
    entries = list(history.entries(0, FOREVER, descending=False))
    assert len(entries) == len({entry.event_id for entry in entries}) == 400
    assert [entry.micros for entry in entries] == sorted(entry.micros for entry in entries)
    assert {entry.command_id for entry in entries} == set(commands)
    assert list(history.entries(0, FOREVER, descending=True)) == entries[::-1]


def test_half_a_line_of_the_index_is_dropped(history: BashHistory) -> None:
    """As a crash may leave it: what comes after it is found."""
    first = run(history, "first")
    [index] = (history.directory / "index").iterdir()
    with index.open("ab") as file:
        file.write(b"17957")
    second = run(history, "second")
    assert [event_id for event_id in ids(history) if event_id in (first, second)] == [first, second]


@pytest.mark.parametrize("writes_before", [0, 1], ids=["half an event", "an event that is not in the index"])
def test_full_disk_leaves_nothing_of_an_event(history: BashHistory, writes_before: int) -> None:
    """So it is there once when it is stored again."""
    command_id = new_command_id()
    history.begin(command_id, "echo x", None, 300)
    sizes: list[int] = []

    def write_until_full(descriptor: int, data: bytes) -> int:
        sizes.append(os_write(descriptor, data if len(sizes) < writes_before else data[:7]))
        if len(sizes) > writes_before:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sizes[-1]

    os_write = os.write
    with patch.object(os, "write", side_effect=write_until_full), pytest.raises(OSError, match="space"):
        history.add_output(command_id, 0, 0, "x\n", None)
    assert history.outputs(command_id) == []
    output = history.add_output(command_id, 0, 0, "x\n", None)
    assert history.outputs(command_id) == [output]
    assert ids(history) == [command_id, json.loads(output)["id"]]


def test_event_and_outputs_are_found_by_id(history: BashHistory) -> None:
    command_id = new_command_id()
    event = history.begin(command_id, "echo é", "/tmp", 5)
    output = history.add_output(command_id, 0, None, "x\n", None)
    last = history.add_output(command_id, 1, 0, None, None)
    assert history.event(command_id) == event
    assert history.event(json.loads(last)["id"]) == last
    assert history.outputs(command_id) == [output, last]
    assert history.event("0" * 32) is None
    assert history.event("nope") is None
    assert history.outputs("nope") == []


def read_bytes() -> int:
    """What this process has read so far, of files and others."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


@pytest.mark.skipif(sys.platform != "linux", reason="what was read is looked up in /proc")
@pytest.mark.parametrize("descending", [False, True])
def test_outputs_of_a_command_are_read_together(history: BashHistory, *, descending: bool) -> None:
    """Those of commands that ran at the same time as well: no file is gone through again for each of its events."""
    commands = [new_command_id() for _ in range(2)]
    for command_id in commands:
        history.begin(command_id, "yes", None, 300)
    for order in range(50):
        for command_id in commands:
            history.add_output(command_id, order, None, "y\n" * 10_000, None)
    entries = list(history.entries(0, FOREVER, descending=descending))
    before = read_bytes()
    size = sum(len(history.read(entry) or b"") for entry in entries)
    assert size > 2_000_000
    assert read_bytes() - before < 3 * size


def test_command_that_goes_on_after_clearing_is_found(history: BashHistory) -> None:
    """By who has looked into its former file."""
    command_id = run(history, "one")
    assert history.event(command_id) is not None
    history.clear()
    assert history.event(command_id) is None
    output = history.add_output(command_id, 1, 0, "late", None)
    assert history.event(json.loads(output)["id"]) == output


def test_clearing_counts_and_leaves_room_for_what_still_comes(history: BashHistory) -> None:
    command_id = run(history, "one")
    assert history.clear() == 2
    assert history.clear() == 0
    output = history.add_output(command_id, 1, 0, "late", None)
    assert history.outputs(command_id) == [output]
    assert len(ids(history)) == 1


def test_directory_is_no_event_of_the_published_server(history: BashHistory) -> None:
    """Whatever its name is, it keeps nothing from being cleared."""
    run(history, "one")
    directory = history.directory / f"20260101000000_BashCommand_{'0' * 32}"
    directory.mkdir()
    assert len(ids(history)) == 2
    assert history.clear() == 2
    assert directory.exists()


def test_purging_deletes_what_is_older(history: BashHistory) -> None:
    old = run(history, "old")
    boundary = next(history.entries(0, FOREVER, descending=True)).micros + 1
    new = run(history, "new")
    history.purge(boundary)
    assert history.event(old) is None
    assert history.event(new) is not None
    assert len(ids(history)) == 2


def test_index_of_a_host_goes_with_its_last_event(history: BashHistory) -> None:
    """Containers come and go, each under a name of its own."""
    run(history, "old")
    [index] = (history.directory / "index").iterdir()
    index.rename(index.with_name("gone"))
    new = run(history, "new")
    history.purge(next(history.entries(0, FOREVER, descending=True)).micros)
    assert [path.name for path in (history.directory / "index").iterdir()] == [index.name]
    assert [event_id[:24] for event_id in ids(history)] == [new[:24]]


@pytest.mark.skipif(sys.platform != "linux", reason="who waits for a lock is looked up in /proc")
def test_event_whose_index_is_removed_as_empty_is_found(history: BashHistory) -> None:
    """Its writer has opened the file and waits for the lock of who removes it."""
    command_id = run(history, "old")
    [index] = (history.directory / "index").iterdir()
    waits = re.compile(rf"-> FLOCK .*:{index.stat().st_ino} ")
    with ThreadPoolExecutor(1) as pool:
        with index.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            written = pool.submit(history.add_output, command_id, 1, 0, "late", None)
            wait_until(lambda: waits.search(Path("/proc/locks").read_text()), "the writer waits")
            index.unlink()
        late = json.loads(written.result())["id"]
    assert ids(history) == [late]


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_hosts_are_merged_without_keeping_their_files_open(history: BashHistory) -> None:
    """There may be more of them than one process may have open."""
    for number in range(200):
        run(history, str(number))
        [index] = (path for path in (history.directory / "index").iterdir() if not path.name.startswith("host-"))
        index.rename(index.with_name(f"host-{number}"))
    before = len(os.listdir("/proc/self/fd"))
    entries = history.entries(0, FOREVER, descending=False)
    next(entries)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(list(entries)) == 399


@pytest.mark.parametrize("seconds_back", [5, 3600])
def test_events_after_the_clock_was_set_back_are_found(history: BashHistory, seconds_back: int) -> None:
    """A little is made up for; far back they have the time that it is, in an index of their own."""
    run(history, "first")
    early = time.time_ns() - seconds_back * 1_000_000_000
    with patch.object(time, "time_ns", return_value=early):
        second = run(history, "second")
        third = run(history, "third")
    entries = list(history.entries(0, FOREVER, descending=False))
    assert [entry.micros for entry in entries] == sorted(entry.micros for entry in entries)
    assert len({entry.event_id for entry in entries}) == 6
    assert list(history.entries(0, FOREVER, descending=True)) == entries[::-1]
    late = [entry for entry in entries if entry.command_id in (second, third)]
    if seconds_back > 10:
        assert [abs(entry.micros - early // 1000) < 10 for entry in late] == [True] * 4
    else:
        assert late == entries[2:]
    assert list(history.entries(late[0].micros, late[-1].micros, descending=False)) == late[:-1]


def test_line_of_zeros_is_passed_over(history: BashHistory) -> None:
    """As a power cut leaves it: what comes before and after is found, and commands go on."""
    first = run(history, "first")
    [index] = (history.directory / "index").iterdir()
    with index.open("ab") as file:
        file.write(bytes(51))
    second = run(history, "second")
    found = list(history.entries(0, FOREVER, descending=False))
    assert [entry.command_id for entry in found] == [first, first, second, second]
    assert list(history.entries(found[1].micros, FOREVER, descending=False))[-2:] == found[2:]


def test_index_that_was_put_away_takes_no_other_with_it(history: BashHistory) -> None:
    """Two purge at once; between them a command begins a new index."""
    run(history, "old")
    [index] = (history.directory / "index").iterdir()
    open_file = Path.open

    def purge_before(path: Path, mode: str = "r", **options: Any) -> IO[Any]:
        file = open_file(path, mode, **options)
        if mode == "r+b" and not purged:
            purged.append(path)
            index.unlink()
            purged.append(run(history, "new"))
        return file

    purged: list[Any] = []
    boundary = next(history.entries(0, FOREVER, descending=True)).micros + 1
    with patch.object(Path, "open", purge_before):
        history.purge(boundary)
    assert [entry.command_id for entry in history.entries(0, FOREVER, descending=False)] == [purged[1]] * 2


def test_output_of_a_deleted_conversation_does_not_bring_it_back(tmp_path: Path) -> None:
    history = BashHistory(tmp_path / "conversation" / "bash_events")
    command_id = new_command_id()
    history.begin(command_id, "x", None, 1)
    (tmp_path / "conversation").rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        history.add_output(command_id, 0, 0, None, None)
    assert not (tmp_path / "conversation").exists()


def test_live_output_is_read_from_any_position(tmp_path: Path) -> None:
    live = LiveOutput(tmp_path, "ab")
    assert live.since(Position(), 100) == []
    live.append("stdout", "aé")
    live.append("stderr", "x")
    assert live.since(Position(), 100) == [Delta("stdout", 0, "aé"), Delta("stderr", 0, "x")]
    assert live.since(Position.parse("1.1"), 100) == [Delta("stdout", 1, "é")]
    # A piece may end within a character, which then comes with the next.
    assert live.since(Position(), 2)[0] == Delta("stdout", 0, "a")
    live.remove()
    assert live.since(Position(), 100) == []


@pytest.mark.parametrize("text", ["", "x", "é", "日本", "😀"])
def test_whole_text_is_one_delta(text: str) -> None:
    assert deltas_of("stdout", text.encode(), 3) == ([Delta("stdout", 3, text)] if text else [])
