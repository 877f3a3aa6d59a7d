"""Which runner is at which command, so that any worker can have it stopped and none is left without an end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from service.identity import RunnerId
from service.store.atomic import write_atomically


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

    def add(self, command: RunningCommand) -> None:
        content = json.dumps({"runner_id": command.runner_id, "history": str(command.history)}).encode()
        try:
            write_atomically(self._path(command.command_id), content, fsync=False)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._path(command.command_id), content, fsync=False)

    def remove(self, command_id: str) -> bool:
        """Whether it was there, and it was this call that removed it."""
        try:
            os.unlink(self._path(command_id))
        except FileNotFoundError:
            return False
        return True

    def find(self, command_id: str) -> RunningCommand | None:
        try:
            said = json.loads(Path(self._path(command_id)).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return RunningCommand(command_id, RunnerId(said["runner_id"]), Path(said["history"]))

    def all(self) -> list[RunningCommand]:
        """Those of all runners."""
        if not self._directory.is_dir():
            return []
        names = [path.name for path in self._directory.iterdir() if not path.name.startswith(".")]
        return [found for name in names if (found := self.find(name)) is not None]

    def _path(self, command_id: str) -> str:
        return f"{self._directory}/{command_id}"
