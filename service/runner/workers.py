"""Threads for calls into the SDK, which wait for its state lock and for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

_THREADS = 64
"""A call may wait for a running tool: more threads than conversations that are busy at once (guess)."""


class Workers:
    """A pool of threads; `close` waits for none of them."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._executor = ThreadPoolExecutor(threads, "sdk")

    async def call[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `function`, run in a thread. Cancelling the caller does not stop the thread.

        What is bound to the caller's log lines, and the span it is in, are so there, too.
        """
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: context.run(function, *args, **kwargs)
        )

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
