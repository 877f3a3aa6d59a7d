"""A command in its first moments, and one that is told something before it has begun."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from service.runner.bash_command import BashCommand, Output
from service.runner.command_process import CommandRequest
from service.runner.workers import Workers
from tests.waiting import wait_until

LONG_SECONDS = 30.0


class Command:
    """A BashCommand whose outputs are kept."""

    def __init__(self, workers: Workers, line: str, timeout_seconds: int = 60) -> None:
        self.outputs: list[Output] = []
        self.told: list[bytes] = []
        self.shown = ""
        self._workers = workers
        wanted = CommandRequest(line, None, timeout_seconds)
        self.command = BashCommand(wanted, workers, self._store, self.told.append, self._show, 1 << 24)

    def _store(self, output: Output) -> bytes:
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
