"""Commands a client was told are accepted and that are not in the log yet.

A command that must wait (a tool holds the conversation) is written here, synced, before its 200, and taken out when
it has been applied. Entries are applied in order of arrival, also after a crash. A message's entry is renamed to
carry the id of its event just before that event is appended, so that a crash between append and removal cannot apply
it twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from service.store.atomic import fsync_directory, write_atomically
from service.store.layout import ConversationDirectory

_WIDTH = 10


class InboxEntry(NamedTuple):
    """One accepted command; `path` is its file, `<number>.<kind>[.<event id>].json`."""

    path: Path
    number: int
    kind: str
    event_id: str | None
    """The event this entry became or was about to become; it counts as applied when the log holds that event."""

    def read(self) -> bytes:
        return self.path.read_bytes()


class Inbox:
    """One conversation's waiting commands. Only its owner writes; blocking calls."""

    def __init__(self, directory: ConversationDirectory, *, fsync: bool) -> None:
        self._path = directory.inbox
        self._fsync = fsync
        self._next_number = max((entry.number for entry in self.entries()), default=0) + 1

    def entries(self) -> list[InboxEntry]:
        """What waits, in order of arrival."""
        if not self._path.is_dir():
            return []
        return sorted(
            (_parse(path) for path in self._path.glob("[0-9]*.json")),
            key=lambda entry: entry.number,
        )

    def reserve(self) -> int:
        """The next place in the order; call where the order is decided, then `put` at leisure."""
        number = self._next_number
        self._next_number += 1
        return number

    def put(self, number: int, kind: str, content: bytes) -> InboxEntry:
        """Store a command so that it survives a crash; on return it may be acknowledged."""
        if not self._path.is_dir():
            self._path.mkdir(mode=0o700, exist_ok=True)
            if self._fsync:
                fsync_directory(self._path.parent)
        path = self._path / f"{number:0{_WIDTH}}.{kind}.json"
        write_atomically(path, content, fsync=self._fsync)
        return InboxEntry(path, number, kind, None)

    def assign(self, entry: InboxEntry, event_id: str) -> InboxEntry:
        """Note which event the entry is about to become."""
        path = self._path / f"{entry.number:0{_WIDTH}}.{entry.kind}.{event_id}.json"
        entry.path.rename(path)
        return entry._replace(path=path, event_id=event_id)

    def remove(self, entry: InboxEntry) -> None:
        """Forget an applied entry."""
        entry.path.unlink(missing_ok=True)


def _parse(path: Path) -> InboxEntry:
    number, kind, *event_id = path.name.removesuffix(".json").split(".")
    return InboxEntry(path, int(number), kind, event_id[0] if event_id else None)
