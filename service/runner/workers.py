"""Threads for calls into the SDK, which wait for its state lock and for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial

from service.thread_pool import ThreadPool

_THREADS = 64
"""For calls of which none takes long (guess)."""
_WAITING_THREADS_PER_RUN = 3
"""A run may keep a command waiting, its interruption, and itself where the agent knows only the blocking step."""


class Threads:
    """One pool of threads; `close` waits for none of them."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPool(threads, "sdk")

    async def call[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `function`, run in a thread. Cancelling the caller does not stop the thread.

        What is bound to the caller's log lines, and the span it is in, are so there, too.
        """
        return await _call(self._executor, partial(function, *args, **kwargs))

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class Workers(Threads):
    """Two pools, so that what waits keeps nothing from the disk."""

    def __init__(self, threads: int = _THREADS, *, runs: int = 0) -> None:
        """`runs`: how many there may be at once."""
        super().__init__(threads)
        self._waiting = ThreadPool(threads + runs * _WAITING_THREADS_PER_RUN, "sdk-waiting")

    async def call_that_waits[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As `call`, for what may wait for a tool, which holds its conversation's state lock, or for an LLM."""
        return await _call(self._waiting, partial(function, *args, **kwargs))

    def close(self) -> None:
        super().close()
        self._waiting.shutdown(wait=False, cancel_futures=True)


async def _call[R](executor: ThreadPool, function: Callable[[], R]) -> R:
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(executor, lambda: context.run(function))
