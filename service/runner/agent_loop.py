"""The event loop that agents run on.

One per process, whatever the number of runners in it: litellm keeps process-wide asyncio state (its LoggingWorker)
that breaks when two live loops use it (measured with litellm 1.105).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any

import structlog

from service.thread_pool import ThreadPool

_log = structlog.get_logger(__name__)

_TOOL_THREADS = 64
"""Every running tool call holds a thread of the loop's default executor; the default of cores + 4 would queue them."""


class AgentLoop:
    """A thread with an event loop; starts at once, stops with `stop`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(ThreadPool(_TOOL_THREADS, "tool"))
        self._thread = threading.Thread(target=self._run, name="agent-loop", daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        """Run on the agent loop; call from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self) -> None:
        """Cancel what still runs and end the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        if self._thread.is_alive():
            _log.error("agent_loop_does_not_stop")

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            pending = asyncio.all_tasks(self.loop)
            for task in pending:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self.loop.close()


class SharedAgentLoop:
    """The process's agent loop, alive while somebody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._agent_loop: AgentLoop | None = None

    def acquire(self) -> AgentLoop:
        with self._lock:
            if self._agent_loop is None:
                self._agent_loop = AgentLoop()
            self._users += 1
            return self._agent_loop

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._agent_loop is None:
                return
            agent_loop, self._agent_loop = self._agent_loop, None
        agent_loop.stop()


PROCESS_AGENT_LOOP = SharedAgentLoop()
