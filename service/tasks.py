"""Background tasks that somebody holds: none is lost, and none dies unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from service.errors import BrokerUnavailable
from service.metrics import metrics

_log = structlog.get_logger(__name__)


class TaskSet:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run beside the caller; should it raise, that is logged with its traceback."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancel all and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(self) -> None:
        """Until all have ended by themselves."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("task_died", task=task.get_name(), exc_info=error)


async def repeat(step: Callable[[], Awaitable[object]], name: str, pause_seconds: float) -> None:
    """Until cancelled: take the step, pause, and take it again, whatever it raises.

    Where Redis does not answer it is passed over. Another error is logged with its traceback, and counted under `name`.
    """
    failures = metrics().step_failures.labels(name)
    while True:
        try:
            await step()
        except BrokerUnavailable:
            pass  # seen by everybody who asks
        except Exception:  # noqa: BLE001  supervisor: nobody else would take the step again
            failures.inc()
            _log.exception("step_failed", step=name)
        await asyncio.sleep(pause_seconds)
