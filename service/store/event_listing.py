"""A listing of a long log's directory that its owner keeps, so that a reader who knows the rest reads what is new.

The directory is the truth. Each line has a name, and before it the directory's time when that had been added to it; so
the listing is complete while one of its lines has the time that the directory has now. After whatever else happens
there (another program's event, a file renamed or deleted, a crash before the line) none has, and the reader lists.
A copy's directory has a time of its own, so the listing that was copied with it is not believed either.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from service.store.atomic import write_atomically
from service.store.event_name import EventName, event_file_name, parse_event_name
from service.store.layout import ConversationDirectory

_log = structlog.get_logger(__name__)

SHORTEST = 256
"""Events from which on there is a listing; to list fewer costs no more than to read it (0.1 ms)."""


class Listed(NamedTuple):
    """What a reader found."""

    names: list[EventName]
    """In the order of the log, without gaps."""
    last_line_at: int
    """Offset in bytes; from there a reader who knows all these names reads on."""


class EventListing:
    """The owner's hand. Blocking; called by one thread at a time."""

    def __init__(self, directory: ConversationDirectory) -> None:
        """For a new owner, who does not know what the last one may have left unlisted."""
        self._directory = directory
        self._length = -1
        self._size_bytes = -1
        """Of a listing that has all events; -1 while there is none."""
        self._is_dense = True
        self._remove()

    def note(self, name: EventName) -> None:
        """Add an event that has just got its name. Where that fails there is no listing until the next event."""
        if name.seq + 1 < SHORTEST or not self._is_dense:
            return
        try:
            if name.seq != self._length or not self._append(name):
                self._write()
            self._length = name.seq + 1
        except OSError as error:
            self._remove()
            _log.warning("event_not_listed", conversation_id=str(self._directory.conversation_id), error=str(error))

    def _append(self, name: EventName) -> bool:
        """False when the file is not as it was left: another owner wrote to it, or a full disk took half a line."""
        line = _line(_time_of(self._directory.events), name)
        descriptor = os.open(self._directory.event_listing, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size != self._size_bytes:
                return False
            self._size_bytes += len(line)
            return os.write(descriptor, line) == len(line)
        finally:
            os.close(descriptor)

    def _write(self) -> None:
        time_ns = _time_of(self._directory.events)
        names = sorted(name for name in map(parse_event_name, os.listdir(self._directory.events)) if name is not None)
        self._is_dense = all(name.seq == seq for seq, name in enumerate(names))
        if not self._is_dense:  # a deposed owner's last event may be beside another of its number
            self._remove()
            return
        content = b"".join(_line(time_ns, name) for name in names)
        write_atomically(self._directory.event_listing, content, fsync=False)
        self._size_bytes = len(content)

    def _remove(self) -> None:
        self._length = -1
        with suppress(OSError):
            os.unlink(self._directory.event_listing)


def read_listing(
    directory: ConversationDirectory, events: os.stat_result, known: EventName | None, last_line_at: int
) -> Listed | None:
    """Names from `known` on if its line is still where it was, else all; None where the directory must be listed.

    Blocking.

    Args:
        events: of the directory of events, asked before.
        known: the newest name that was read before, None for none.
        last_line_at: where its line was.
    """
    time_ns = _time(events)
    try:
        with directory.event_listing.open("rb") as file:
            file.seek(last_line_at)
            listed = _parse(file.read(), time_ns, last_line_at)
            if last_line_at > 0 and (listed is None or listed.names[0] != known):
                file.seek(0)
                listed = _parse(file.read(), time_ns, 0)
    except OSError:  # there is none, or a network disk has lost it: the directory is the truth
        return None
    # Who knows more has seen an event whose line is yet to come.
    return listed if listed is None or known is None or known in listed.names else None


def size_of_listing(directory: ConversationDirectory) -> int:
    """-1 where there is none. Blocking."""
    try:
        return os.stat(directory.event_listing).st_size
    except OSError:
        return -1


def _parse(data: bytes, time_ns: int, offset: int) -> Listed | None:
    """None when this is not the whole of a listing from some line to its end."""
    if b"%d event" % time_ns not in data:
        return None
    words = data.decode(errors="replace").split()
    names = [name for name in map(parse_event_name, words[1::2]) if name is not None]
    first = names[0].seq if offset and names else 0
    if 2 * len(names) != len(words) or any(name.seq != seq for seq, name in enumerate(names, first)):
        return None
    return Listed(names, offset + data.rfind(b"\n", 0, -1) + 1)


def _line(time_ns: int, name: EventName) -> bytes:
    return f"{time_ns} {event_file_name(*name)}\n".encode()


def _time_of(directory: Path) -> int:
    return _time(os.stat(directory))


def _time(status: os.stat_result) -> int:
    """Not of its content: copies of a directory are given that."""
    return status.st_ctime_ns
