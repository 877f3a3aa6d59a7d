"""A command's output on its way to those who watch it: written together, told at most twenty times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from service.runner.workers import Workers
from service.store.live_output import STREAMS, LiveOutput
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_TELL_SECONDS = 0.05
_WAITING_CHARACTERS = 4 << 20
"""Above this the disk is slower than the command, and those who watch get the rest once it is stored."""


class Watched:
    """Of one command. Methods of the runner's loop."""

    def __init__(self, history: Path, command_id: str, workers: Workers, tell: Callable[[str], None]) -> None:
        """`tell` lets readers know that there is more of a command."""
        self._live = LiveOutput(history, command_id)
        self._command_id = command_id
        self._workers = workers
        self._tell = tell
        self._waiting: dict[str, list[str]] = {stream: [] for stream in STREAMS}
        self._waiting_characters = 0
        self._is_due = False
        self._is_cut = False
        self._tasks = TaskSet()
        self.is_there = False
        """Whether there was anything to write."""

    def add(self, stream: str, text: str) -> None:
        self.is_there = True
        if self._waiting_characters > _WAITING_CHARACTERS:
            self._is_cut = True
        if self._is_cut:
            return
        self._waiting[stream].append(text)
        self._waiting_characters += len(text)
        if not self._is_due:
            self._is_due = True
            self._tasks.start(self._write_soon(), f"live output {self._command_id}")

    async def close(self) -> None:
        """The command has ended: write what waits. Whoever is a little behind may read on until the files go."""
        await self._tasks.wait()

    async def _write_soon(self) -> None:
        await asyncio.sleep(_TELL_SECONDS)
        self._is_due = False
        waiting, self._waiting = self._waiting, {stream: [] for stream in STREAMS}
        self._waiting_characters = 0
        try:
            for stream, texts in waiting.items():
                if texts:
                    await self._workers.call(self._live.append, stream, "".join(texts))
        except OSError as error:
            # The stored output is what counts, and says so when it cannot be stored either.
            _log.warning("live_output_not_written", command_id=self._command_id, error=str(error))
        self._tell(self._command_id)
