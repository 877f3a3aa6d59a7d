"""Which runner is at which command, so that any worker can have it stopped and none is left without an end."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from service.identity import RunnerId
from service.store.atomic import write_atomically

_log = structlog.get_logger(__name__)


class RunningCommand(NamedTuple):
    """One command between its start and its last output."""

    command_id: str
    runner_id: RunnerId
    history: Path
    """Directory of the history it is in (`service.store.bash_history`)."""


class RunningCommands:
    """One small file for each command that runs, in a directory that all processes share. Blocking."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "running"
        self._unreadable: set[str] = set()

    def add(self, command: RunningCommand) -> None:
        content = json.dumps({"runner_id": command.runner_id, "history": str(command.history)}).encode()
        try:
            write_atomically(self._path(command.command_id), content, fsync=False)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._path(command.command_id), content, fsync=False)

    def remove(self, command_id: str) -> None:
        Path(self._path(command_id)).unlink(missing_ok=True)

    @contextmanager
    def held(self, command_id: str) -> Iterator[bool]:
        """Keep others from a command for the length of the block; True while it is there."""
        try:
            file = open(self._path(command_id), "r+b")  # NFS locks only what may be written
        except FileNotFoundError:
            yield False
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield os.path.exists(self._path(command_id))  # another may have removed it until the lock was ours

    def find(self, command_id: str) -> RunningCommand | None:
        """None for one that has ended, and for one whose file cannot be read, which is logged once."""
        try:
            said = json.loads(Path(self._path(command_id)).read_bytes())
            return RunningCommand(command_id, RunnerId(said["runner_id"]), Path(said["history"]))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            if command_id not in self._unreadable:
                self._unreadable.add(command_id)
                _log.error("unreadable_running_command", file=self._path(command_id), error=repr(error))
            return None

    def all(self) -> list[RunningCommand]:
        """Those of all runners."""
        if not self._directory.is_dir():
            return []
        names = [path.name for path in self._directory.iterdir() if not path.name.startswith(".")]
        return [found for name in names if (found := self.find(name)) is not None]

    def _path(self, command_id: str) -> str:
        return f"{self._directory}/{command_id}"
