"""Commands run through `/api/bash` and their output, on a disk that all processes share.

Each command has a file of its own, to which its runner alone appends: one event a line, the command first. What comes
when is in an index of fixed-width lines, one file a host, appended to under a lock; so each is sorted, and a page is
found by bisection, however much was ever run. An id tells its file: nothing is looked up by listing.

    commands/<first 6 of the id>/<first 24>.jsonl     {"id":...,"kind":"BashCommand"} then {"kind":"BashOutput"} ...
    index/<host>                                      <microseconds, 16> <first 24 of the id> <last 8>

An id is 32 hex digits: milliseconds (12), random (12), and the event's number within its command (8), 0 for the command
itself. The published server keeps one file an event beside these (`service.store.foreign_bash`); they are read too.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import re
import secrets
import shutil
import socket
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from cachetools import LRUCache

from service.store.atomic import FILE_MODE, write_all
from service.store.foreign_bash import foreign_entries, foreign_event

_STEM = 24
_NUMBER = slice(7 + _STEM, 7 + 32)
"""Where a line has the event's number: at the end of the id, after `{"id":"`."""
_INDEX_LINE = 16 + 1 + _STEM + 1 + 8 + 1
_BLOCK_LINES = 64
"""Read at once of an index."""
_LINE = re.compile(rf"(\d{{16}}) ([0-9a-f]{{{_STEM}}}) ([0-9a-f]{{8}})\n")
_AHEAD_MICROS = 10_000_000
"""So far events may be stamped later than it is."""
_ID = re.compile("[0-9a-f]{32}")
_KNOWN_FILES = 16
"""Of commands that ran at the same time, whose events alternate; in each it is known what stands where."""


class Entry(NamedTuple):
    """Where an event stands among all events; sorts by time."""

    micros: int
    """Unix time."""
    event_id: str
    command_id: str
    """Of an output; the event's own for a command."""
    path: Path | None = None
    """The published server's file, if it is one of its events."""

    @property
    def is_command(self) -> bool:
        return self.event_id == self.command_id

    @property
    def cursor(self) -> str:
        """A page's name: the time and id of its first event."""
        return f"{self.micros:016d}_{self.event_id}"


def new_command_id() -> str:
    """One that nobody else makes; whoever asks for a command may choose it, and so listen before it runs."""
    return f"{time.time_ns() // 1_000_000:012x}7{secrets.token_hex(6)[:3]}8{secrets.token_hex(6)[:7]}" + "0" * 8


class BashHistory:
    """Blocking. Any process may read; a command's events are written by its runner.

    Who looks for events one after the other goes through a command's file once; one thread at a time.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: LRUCache[str, _CommandFile] = LRUCache(_KNOWN_FILES)

    def begin(self, command_id: str, command: str, cwd: str | None, timeout_seconds: int) -> bytes:
        """Store a new command; returns its event."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fields = {"command": command, "cwd": cwd, "timeout": timeout_seconds}
        return self._append(command_id[:_STEM], 0, fields, "BashCommand")

    def add_output(
        self, command_id: str, order: int, exit_code: int | None, stdout: str | None, stderr: str | None
    ) -> bytes:
        """Store a command's next output; returns its event. With an exit code it is the last.

        Raises:
            FileNotFoundError: the history was deleted with its conversation.
        """
        fields = {
            "command_id": command_id,
            "order": order,
            "exit_code": exit_code,
            "stdout": stdout,
            "stderr": stderr,
        }
        return self._append(command_id[:_STEM], order + 1, fields, "BashOutput")

    def outputs(self, command_id: str, after_order: int = -1) -> list[bytes]:
        """The outputs of a command with a larger order, in order; none for an unknown one.

        Those before are passed over one at a time. All outputs of a command of the published server are returned.
        """
        stem = command_id[:_STEM]
        if os.path.exists(self._file(stem)):
            return [line for line in self._lines(stem) if int(line[_NUMBER], 16) > after_order + 1]
        foreign = [entry for entry in foreign_entries(self.directory) if entry[2] == command_id != entry[1]]
        return [event for entry in sorted(foreign) if (event := foreign_event(entry[3])) is not None]

    def event(self, event_id: str) -> bytes | None:
        """One event, or None. The id as it is in the event."""
        if not _ID.fullmatch(event_id):
            return None  # a part of it is a file's name
        stem = event_id[:_STEM]
        file = self._files.setdefault(stem, _CommandFile(self._file(stem)))
        event = file.event(event_id)
        if event is not None:
            return event
        for entry in foreign_entries(self.directory):
            if entry[1] == event_id:
                return foreign_event(entry[3])
        return None

    def read(self, entry: Entry) -> bytes | None:
        """The event of an entry; None when it was deleted meanwhile."""
        return self.event(entry.event_id) if entry.path is None else foreign_event(entry.path)

    def entries(self, first: int, last: int, *, descending: bool) -> Iterator[Entry]:
        """All events with `first <= micros < last`, in the order of time; read as far as it is iterated."""
        sources = [_between(path, first, last, descending=descending) for path in self._index_files()]
        foreign = [Entry(*entry) for entry in foreign_entries(self.directory) if first <= entry[0] < last]
        sources.append(iter(sorted(foreign, reverse=descending)))
        return heapq.merge(*sources, reverse=descending)

    def clear(self) -> int:
        """Delete everything; returns how many events that were. Commands that run go on, and add to what comes."""
        count = sum(path.stat().st_size // _INDEX_LINE for path in self._index_files())
        foreign = list(foreign_entries(self.directory))
        for entry in foreign:
            entry[3].unlink(missing_ok=True)
        for name in ("index", "commands"):
            doomed = self.directory / f".{name}-{secrets.token_hex(4)}"
            try:
                (self.directory / name).rename(doomed)
            except FileNotFoundError:
                continue
            shutil.rmtree(doomed, ignore_errors=True)
        return count + len(foreign)

    def purge(self, before_micros: int) -> None:
        """Delete what is older."""
        for entry in list(self.entries(0, before_micros, descending=False)):
            with suppress(FileNotFoundError):
                os.unlink(entry.path or self._file(entry.event_id[:_STEM]))
        for path in self._index_files():
            _drop_before(path, before_micros)

    def _append(self, stem: str, number: int, fields: dict[str, Any], kind: str) -> bytes:
        try:
            return self._write(stem, number, fields, kind)
        except FileNotFoundError:
            # Not the directory itself: a conversation that is deleted meanwhile must not come back.
            for name in ("commands", f"commands/{stem[:6]}", "index"):
                (self.directory / name).mkdir(mode=0o700, exist_ok=True)
            return self._write(stem, number, fields, kind)

    def _write(self, stem: str, number: int, fields: dict[str, Any], kind: str) -> bytes:
        with open(f"{self.directory}/index/{socket.gethostname()}", "a+b", buffering=0, opener=_private) as indexed:
            fcntl.flock(indexed, fcntl.LOCK_EX)
            # What it says is asked for now: until the lock was ours others appended, or put it away.
            if _is_put_away(indexed):
                raise FileNotFoundError(indexed.name)
            status = os.fstat(indexed.fileno())
            # A crash may have left half a line.
            if status.st_size % _INDEX_LINE:
                indexed.truncate(status.st_size // _INDEX_LINE * _INDEX_LINE)
            # A clock that was set back would leave the lines unsorted: a little is made up for, else an index begins.
            micros, last_micros = time.time_ns() // 1000, _Lines(indexed.fileno()).last_micros
            if last_micros > micros + _AHEAD_MICROS:
                os.rename(indexed.name, f"{indexed.name}.{last_micros}")
                raise FileNotFoundError(indexed.name)
            micros = max(micros, last_micros + 1)
            event = {"id": f"{stem}{number:08x}", "timestamp": _stamp(micros), **fields, "kind": kind}
            line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
            with open(self._file(stem), "ab", buffering=0, opener=_private) as file:
                length = os.fstat(file.fileno()).st_size
                try:
                    write_all(file.fileno(), line + b"\n")
                    write_all(indexed.fileno(), b"%016d %s %08x\n" % (micros, stem.encode(), number))
                except OSError:
                    file.truncate(length)  # else a full disk would leave half a line, or one that is written again
                    raise
        return line

    def _lines(self, stem: str) -> Iterator[bytes]:
        """What is stored of a command, one event in memory at a time; a line that is being written is left out."""
        with suppress(FileNotFoundError, NotADirectoryError), open(self._file(stem), "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]

    def _file(self, stem: str) -> str:
        return f"{self.directory}/commands/{stem[:6]}/{stem}.jsonl"

    def _index_files(self) -> list[Path]:
        directory = self.directory / "index"
        return sorted(directory.iterdir()) if directory.is_dir() else []


class _CommandFile:
    """One command's events, found by id. What was gone through is known."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._first = b""
        """How it begins."""
        self._starts: dict[bytes, int] = {}
        """Where the line of an event begins, by the beginning of that line."""
        self._end = 0

    def event(self, event_id: str) -> bytes | None:
        """None when it is not there, or is being written."""
        head = b'{"id":"%s"' % event_id.encode()
        with suppress(FileNotFoundError, NotADirectoryError), open(self._path, "rb") as file:
            first = file.read(len(head))
            if first != self._first:  # it was deleted, and begun anew with a later event
                self._first, self._starts, self._end = first, {}, 0
            file.seek(self._starts.get(head, self._end))
            if head in self._starts:
                return file.readline()[:-1]
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._starts[line[: len(head)]] = self._end
                self._end += len(line)
                if line.startswith(head):
                    return line[:-1]
        return None


class _Lines:
    """What an open index says, sorted."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size // _INDEX_LINE

    @property
    def last_micros(self) -> int:
        """Of its last line; 0 when there is none."""
        return self._micros(self._length - 1) if self._length else 0

    def position(self, micros: int) -> int:
        """Of the first line that is not older."""
        return bisect_left(range(self._length), micros, key=self._micros)

    def read(self, start: int, count: int) -> list[Entry]:
        """Fewer than `count` where the file ends, or something is no line."""
        block = os.pread(self._descriptor, count * _INDEX_LINE, start * _INDEX_LINE).decode("ascii", "replace")
        return [Entry(int(micros), stem + number, stem + "0" * 8) for micros, stem, number in _LINE.findall(block)]

    def _micros(self, position: int) -> int:
        """0 for what is no line: zeros that a power cut left, or the end of a file that was shortened meanwhile."""
        digits = os.pread(self._descriptor, 16, position * _INDEX_LINE)
        return int(digits) if digits.isdigit() else 0


def _between(path: Path, first: int, last: int, *, descending: bool) -> Iterator[Entry]:
    """Part of an index, which is open only for each look into it: there may be more of them than descriptors."""
    with suppress(FileNotFoundError):
        with path.open("rb") as file:
            lines = _Lines(file.fileno())
            start, stop = lines.position(first), lines.position(last)
        while start < stop:
            count = min(stop - start, _BLOCK_LINES)
            with path.open("rb") as file:
                block = _Lines(file.fileno()).read(stop - count if descending else start, count)
            yield from reversed(block) if descending else block
            start, stop = (start, stop - count) if descending else (start + count, stop)


def _drop_before(path: Path, micros: int) -> None:
    """Leave out what is older; whoever appends does so before or after. What then is empty goes: hosts come and go."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_put_away(file):
            return
        file.seek(_Lines(file.fileno()).position(micros) * _INDEX_LINE)
        rest = file.read()
        if not rest:
            path.unlink(missing_ok=True)
        file.seek(0)
        file.write(rest)
        file.truncate()


def _is_put_away(index: IO[bytes]) -> bool:
    """Whether another file has its name by now, or none."""
    try:
        return not os.path.samestat(os.fstat(index.fileno()), os.stat(index.name))
    except FileNotFoundError:
        return True


def micros_of(moment: datetime) -> int:
    """Naive is UTC (contract)."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000)


def _stamp(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1_000_000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)
