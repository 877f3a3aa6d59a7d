"""Threads for blocking calls: what waits takes none from what does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from service.runner.workers import Workers
from tests.waiting import wait_until_async

RUNS = 100
TIMEOUT_SECONDS = 10.0


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(1, runs=RUNS)
    yield workers
    workers.close()


async def test_tools_of_all_runs_leave_threads_for_others(workers: Workers) -> None:
    """A command waits for each of them; the disk is written, and other conversations get their commands applied."""
    begun: list[int] = []
    go_on = threading.Event()

    def wait_for_tool() -> None:
        begun.append(threading.get_ident())
        go_on.wait()

    waiting = [asyncio.create_task(workers.call_that_waits(wait_for_tool)) for _ in range(RUNS)]
    try:
        await wait_until_async(lambda: len(begun) == RUNS, "a command waits for each tool", TIMEOUT_SECONDS)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            assert await workers.call(str.upper, "disk") == "DISK"
            assert await workers.call_that_waits(str.upper, "command") == "COMMAND"
    finally:
        go_on.set()
        await asyncio.gather(*waiting)
