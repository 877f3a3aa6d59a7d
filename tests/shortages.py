"""A machine that gives no more of something."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Whoever wants to start one is refused."""
    with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        yield


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """This process can open nothing; what is open goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def assert_own_threads_go_on() -> None:
    """Those that the running loop has itself do all that it gives them, once, where there are no more."""
    done: list[int] = []
    with no_more_threads():
        await asyncio.gather(*(asyncio.to_thread(done.append, number) for number in range(8)))
    assert sorted(done) == [*range(8)]
