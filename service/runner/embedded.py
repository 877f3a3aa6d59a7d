"""A runner inside a web process: a thread with the runner's event loop.

The SDK takes seconds to import, so the thread does that too: the web role answers meanwhile and is not ready.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import structlog

from service.redis_source import RedisSource
from service.settings import Settings

_log = structlog.get_logger(__name__)


class EmbeddedRunner:
    """Started once, stopped once."""

    def __init__(self, settings: Settings, source: RedisSource) -> None:
        self._settings = settings
        self._source = source
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)
        self.failure: Exception | None = None
        """Why it is not running, if it ended by itself; the web role is then not ready."""

    def start(self) -> None:
        """Begin; ready when the runner shows up in the catalog."""
        self._thread.start()

    async def stop(self) -> None:
        """End after draining."""
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            # Not uvloop, which the web role may have chosen for the process: it closes pipes that are not its own, and
            # runners that are processes have this loop too.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._main())
        except Exception as error:  # noqa: BLE001  supervisor of the thread
            self.failure = error
            _log.critical("runner_died", exc_info=error)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        # Imported here and not above: this import is the SDK's, and takes seconds.
        from service.runner.environment import import_sdk

        import_sdk()
        from service.runner.deferred import run_runner

        try:
            await run_runner(self._settings, self._source)
        except asyncio.CancelledError:
            _log.info("runner_stopped")
