"""What a running command has put out so far: one file a stream, appended to by its runner, gone soon after its end.

Stored outputs come in large pieces, because clients append what they poll. Who wants to watch reads here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

STREAMS = ("stdout", "stderr")

_POSITION = re.compile(r"([0-9]{1,12})\.([0-9]{1,12})")


class Delta(NamedTuple):
    """Some text of one stream."""

    stream: str
    offset_bytes: int
    """Where it begins in the stream's text as UTF-8."""
    text: str


class Position(NamedTuple):
    """How far a reader has come in each stream, in bytes; `3.0` as text."""

    stdout: int = 0
    stderr: int = 0

    def __str__(self) -> str:
        return f"{self.stdout}.{self.stderr}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises ValueError for anything else than two numbers, or for one beyond what a file can hold."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError("no position")
        return cls(int(match[1]), int(match[2]))

    def after(self, delta: Delta) -> Position:
        return self._replace(**{delta.stream: delta.offset_bytes + len(delta.text.encode())})


class LiveOutput:
    """Of one command. Blocking."""

    def __init__(self, directory: Path, command_id: str) -> None:
        """`directory`: of the history (`service.store.bash_history`)."""
        self._directory = directory / "live"
        self._command_id = command_id

    def append(self, stream: str, text: str) -> None:
        """Raises FileNotFoundError when the history was deleted with its conversation."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        with self._path(stream).open("ab") as file:
            file.write(text.encode())

    def since(self, position: Position, limit_bytes: int) -> list[Delta]:
        """What is there after `position`, at most so much of each stream; whole characters only."""
        found = []
        for stream, offset in zip(STREAMS, position, strict=True):
            try:
                with self._path(stream).open("rb") as file:
                    file.seek(offset)
                    data = file.read(limit_bytes)
            except (FileNotFoundError, NotADirectoryError):
                continue
            found += deltas_of(stream, data, offset)
        return found

    def remove(self) -> None:
        for stream in STREAMS:
            self._path(stream).unlink(missing_ok=True)

    def _path(self, stream: str) -> Path:
        return self._directory / f"{self._command_id}.{stream}"


def deltas_of(stream: str, data: bytes, offset_bytes: int) -> list[Delta]:
    """The text of `data` without a character that is cut off at its end; none for nothing."""
    for cut in range(min(4, len(data) + 1)):
        try:
            text = data[: len(data) - cut].decode()
        except UnicodeDecodeError:
            continue
        return [Delta(stream, offset_bytes, text)] if text else []
    return []
