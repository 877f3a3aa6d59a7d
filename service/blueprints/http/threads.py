"""Which threads a blocking call is made in: asyncio's own (`asyncio.to_thread`) when it only needs the disk, those here
when it may run a program or write a whole archive, as for git, archives and trajectories.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial

from service.git.program import given_up
from service.thread_pool import ThreadPool

_THREADS = 8
"""For calls of which one may take minutes (guess)."""


class Threads:
    """For what may take long, so that it keeps nothing from the disk; `close` waits for none."""

    def __init__(self) -> None:
        self._executor = ThreadPool(_THREADS, "long")

    async def call_that_takes_long[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `function`, run in a thread.

        Cancelling the caller ends git and what looks at `is_given_up`, and waits for the end: the caller owns what the
        function writes to.
        """
        event, context = threading.Event(), copy_context()
        context.run(given_up.set, event)
        work = self._executor.submit(context.run, partial(function, *args, **kwargs))
        result = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            event.set()
            if not work.cancel():  # it has begun
                await asyncio.wait([result])
                result.exception()  # else it would be logged as one that nobody saw
            raise

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
