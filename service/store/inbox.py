"""Commands a client was told are accepted and that are not done yet, and the keys of those that are.

A command that must wait (a tool holds the conversation) is written here, synced, before its 200, and taken out when
it has been applied, a message that asks for a run when that was asked for. Entries are applied in order of arrival,
also after a crash. A message's entry is renamed to carry the id of its event just before that event is appended, so
that a crash between append and removal cannot apply it twice. An applied entry with an idempotency key leaves that key
behind for a day: its repetition has no effect.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from service.errors import OwnershipLost
from service.store.atomic import fsync_directory, write_atomically
from service.store.layout import ConversationDirectory
from service.store.owner_record import Fence

_WIDTH = 10
_NOTHING = "-"
KEY_SECONDS = 24 * 3600
"""How long a key is remembered at least; as long as others in the field keep theirs (Stripe's API: 24 h)."""
_PRUNE_EVERY = 64


class InboxEntry(NamedTuple):
    """One accepted command; `path` is its file, `<number>.<kind>.<key or ->.<event id or ->.json`."""

    path: Path
    number: int
    kind: str
    key: str | None
    event_id: str | None
    """The event this entry became or was about to become; it is not applied again when the log holds that event."""

    def read(self) -> bytes:
        return self.path.read_bytes()


class Inbox:
    """One conversation's waiting commands. Only its owner writes; blocking calls."""

    def __init__(self, directory: ConversationDirectory, *, fsync: bool, fence: Fence | None = None) -> None:
        """With `fence` nothing is stored that the next owner would not find when it looks."""
        self._fence = fence
        self._path = directory.inbox
        self._done = directory.inbox / "done"
        self._fsync = fsync
        self._lock = threading.Lock()
        self._is_closed = False
        self._next_number = max((entry.number for entry in self.entries()), default=0) + 1
        self._prune()  # now too: numbers begin anew, and may never come to `_PRUNE_EVERY`

    def entries(self) -> list[InboxEntry]:
        """What waits, in order of arrival."""
        return sorted((_parse(path) for path in waiting_files(self._path)), key=lambda entry: entry.number)

    def is_done(self, key: str) -> bool:
        """Whether a command with this key was applied, as far as is remembered."""
        return (self._done / key).exists()

    def reserve(self) -> int:
        """The next place in the order; call where the order is decided, then `put` at leisure."""
        number = self._next_number
        self._next_number += 1
        return number

    def put(self, number: int, kind: str, content: bytes, key: str | None = None) -> InboxEntry:
        """Store a command so that it survives a crash; on return it may be acknowledged.

        Raises OwnershipLost after `close`, and when the fence says so.
        """
        if not self._done.is_dir():
            for path in (self._path, self._done):  # `parents=True` would leave the mode of the first to the umask
                path.mkdir(mode=0o700, exist_ok=True)
            self._sync(self._path.parent)
        path = self._path / _name(number, kind, key, None)
        write_atomically(path, content, fsync=self._fsync, committing=self._while_open)
        return InboxEntry(path, number, kind, key, None)

    def close(self) -> set[int]:
        """Take no more, and return the places of what waits: a command that is being stored is in it now or never."""
        with self._lock:
            self._is_closed = True
        return {entry.number for entry in self.entries()}

    @contextmanager
    def _while_open(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise OwnershipLost
            if self._fence is not None:
                self._fence.check()
            yield

    def assign(self, entry: InboxEntry, event_id: str) -> InboxEntry:
        """Note which event the entry is about to become."""
        path = self._path / _name(entry.number, entry.kind, entry.key, event_id)
        entry.path.rename(path)
        return entry._replace(path=path, event_id=event_id)

    def finish(self, entry: InboxEntry) -> None:
        """Take out an applied entry; its key is remembered."""
        if entry.key is None:
            self.remove(entry)
            return
        done = self._done / entry.key
        entry.path.rename(done)
        os.truncate(done, 0)  # the command itself is of no more use
        self._sync(self._done)
        if entry.number % _PRUNE_EVERY == 0:
            self._prune()

    def remove(self, entry: InboxEntry) -> None:
        """Take out an entry that could not be applied: its repetition is another try."""
        entry.path.unlink(missing_ok=True)

    def _prune(self) -> None:
        oldest = time.time() - KEY_SECONDS
        for path in self._done.iterdir() if self._done.is_dir() else ():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _sync(self, directory: Path) -> None:
        if self._fsync:
            fsync_directory(directory)


def waiting_files(inbox: Path) -> list[Path]:
    """The entries in an inbox directory, which need not exist; in no order."""
    return list(inbox.glob("[0-9]*.json"))


def key_name(key: str) -> str:
    """A client's idempotency key as part of a file's name."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _name(number: int, kind: str, key: str | None, event_id: str | None) -> str:
    return f"{number:0{_WIDTH}}.{kind}.{key or _NOTHING}.{event_id or _NOTHING}.json"


def _parse(path: Path) -> InboxEntry:
    number, kind, key, event_id = path.name.removesuffix(".json").split(".")
    return InboxEntry(
        path, int(number), kind, None if key == _NOTHING else key, None if event_id == _NOTHING else event_id
    )
