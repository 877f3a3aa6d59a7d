"""A pool of threads that bears a machine which gives no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import structlog

_log = structlog.get_logger(__name__)


class ThreadPool(ThreadPoolExecutor):
    """Goes on with the threads it has where the machine gives no more; the library has queued the work then, and does
    it, but says that it failed. Each loop of ours has one for `asyncio.to_thread`.
    """

    def __init__(self, max_workers: int | None, thread_name_prefix: str) -> None:
        super().__init__(max_workers, thread_name_prefix)
        self.submit(int).result()  # so that there is one

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if not self._threads:
                raise
            _log.warning("no_more_threads", threads=len(self._threads), error=str(error))
