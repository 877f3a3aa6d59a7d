"""A command in its first moments, and one that is told something before it has begun."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from service.runner.bash.command import CHUNK_CHARACTERS, BashCommand, Output
from service.runner.bash.process import CommandRequest
from service.runner.workers import Workers
from tests.waiting import wait_until

LONG_SECONDS = 30.0


class Command:
    """A BashCommand whose outputs are kept."""

    def __init__(self, workers: Workers, line: str, timeout_seconds: int = 60) -> None:
        self.outputs: list[Output] = []
        self.told: list[bytes] = []
        self.shown = ""
        self.refusals_left = 0
        """How often the disk is full yet."""
        self._workers = workers
        wanted = CommandRequest(line, None, timeout_seconds)
        self.command = BashCommand(wanted, workers, self._store, self.told.append, self._show, 1 << 24)

    def _store(self, output: Output) -> bytes:
        if self.refusals_left:
            self.refusals_left -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.outputs.append(output)
        return b"event %d" % output.order

    def _show(self, stream: str, text: str) -> None:
        self.shown += text

    async def begin(self, patience_seconds: float) -> None:
        await self._workers.call(self.command.begin, patience_seconds)

    async def run(self, patience_seconds: float = LONG_SECONDS) -> Output:
        async with asyncio.timeout(LONG_SECONDS):
            await self.begin(patience_seconds)
            await self.command.run()
        return self.outputs[-1]


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(2)
    yield workers
    workers.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_what_is_over_in_its_first_moments_is_stored_there(workers: Workers) -> None:
    one = Command(workers, "printf é; echo err >&2; exit 3")
    before = open_descriptors()
    await one.begin(LONG_SECONDS)
    assert one.outputs == [Output(0, 3, "é", "err\n")]
    assert open_descriptors() == before
    assert not one.command.ended.is_set()
    assert one.command.only_event is None


async def test_its_end_is_told_by_the_loop(workers: Workers) -> None:
    one = Command(workers, "true")
    await one.run()
    assert (one.told, one.command.only_event) == ([b"event 0"], b"event 0")
    assert one.command.ended.is_set()


@pytest.mark.parametrize("patience_seconds", [0.0, 0.01], ids=["none", "too little"])
async def test_what_goes_on_is_followed_by_the_loop(workers: Workers, tmp_path: Path, patience_seconds: float) -> None:
    one = Command(workers, f"printf 'a\\303'; until [ -e {tmp_path}/go ]; do sleep 0.01; done; printf '\\251b'")
    await one.begin(patience_seconds)
    (tmp_path / "go").touch()
    await one.command.run()
    assert one.outputs == [Output(0, 0, "aéb", None)]
    assert one.shown == "aéb"


async def test_loud_one_is_not_read_into_memory(workers: Workers) -> None:
    """The first moments end when there is much to read; the rest is stored in pieces."""
    one = Command(workers, "head -c 3000000 /dev/zero | tr '\\0' x")
    await one.run()
    assert [len(output.stdout or "") for output in one.outputs] == [1 << 20, 1 << 20, 3_000_000 - (2 << 20)]
    assert one.command.only_event is None


async def test_its_timeout_holds_in_the_first_moments(workers: Workers) -> None:
    one = Command(workers, "sleep 60", timeout_seconds=0)
    assert (await one.run()).exit_code == -1


async def test_killed_before_it_began(workers: Workers) -> None:
    one = Command(workers, "sleep 60")
    one.command.kill("why")
    assert await one.run() == Output(0, -1, None, "why")


async def test_stopped_before_it_began(workers: Workers) -> None:
    one = Command(workers, "sleep 60")
    one.command.stop()
    assert (await one.run()).exit_code == -15


async def test_killed_in_its_first_moments(workers: Workers, tmp_path: Path) -> None:
    one = Command(workers, f"touch {tmp_path}/begun; sleep 60")
    running = asyncio.create_task(one.run())
    await asyncio.to_thread(wait_until, (tmp_path / "begun").exists, "the command runs")
    one.command.kill("why")
    assert await running == Output(0, -1, None, "why")


async def test_one_that_no_worker_can_stay_with_is_followed_by_the_loop(workers: Workers) -> None:
    """The runner had no descriptor left just then: the command that was started keeps its end."""
    one = Command(workers, "echo on")
    with patch.object(os, "pidfd_open", side_effect=OSError("too many")):
        await one.begin(LONG_SECONDS)
    await one.command.run()
    assert one.outputs == [Output(0, 0, "on\n", None)]


async def test_what_cannot_be_spawned(workers: Workers) -> None:
    output = await Command(workers, "echo \0").run()
    assert (output.exit_code, output.stdout) == (-1, None)
    assert "Error executing command" in (output.stderr or "")


@pytest.mark.parametrize("line", ["echo x; exit 3", "/no/such/shell"], ids=["run", "not spawned"])
@pytest.mark.parametrize("patience_seconds", [0.0, LONG_SECONDS], ids=["on the loop", "in its first moments"])
async def test_end_that_meets_a_full_disk_is_stored_later(workers: Workers, line: str, patience_seconds: float) -> None:
    """Whoever waits for it would wait for ever."""
    one = Command(workers, line)
    one.refusals_left = 2
    last = await one.run(patience_seconds)
    assert one.outputs == [last]
    assert last.exit_code == (3 if line.startswith("echo") else 127)
    assert (one.command.ended.is_set(), one.told) == (True, [b"event 0"])


async def test_why_it_was_killed_is_said_once(workers: Workers) -> None:
    """However often the disk refuses to take it."""
    one = Command(workers, "sleep 600")
    one.refusals_left = 2
    one.command.kill("gone")
    assert await one.run(0.0) == Output(0, -1, None, "gone")


async def test_output_that_meets_a_full_disk_is_stored_in_its_order(workers: Workers) -> None:
    """Also when the command is over its time meanwhile."""
    size = CHUNK_CHARACTERS + 5
    one = Command(workers, f"head -c {size} /dev/zero | tr '\\0' x; sleep 600", timeout_seconds=1)
    one.refusals_left = 4
    last = await one.run(0.0)
    assert [output.order for output in one.outputs] == [0, 1]
    assert "".join(output.stdout or "" for output in one.outputs) == "x" * size
    assert last.exit_code == -1
