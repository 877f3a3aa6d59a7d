"""The SDK's window to the disk, for the one runner that owns the conversation.

Compared with the SDK's `LocalFileStore`: every write is fenced, including those of the constructor; an appended
event's bytes are handed out as they were written; and nothing is done for other writers, of whom there are none (no
file lock, no length marker, no cache of file texts).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from openhands.sdk.io import FileStore

from service.errors import OwnershipLost
from service.runner.conversation.command import Command
from service.store.atomic import fsync_directory, write_atomically
from service.store.event_listing import EventListing
from service.store.event_name import parse_event_name
from service.store.inbox import Inbox
from service.store.layout import ConversationDirectory
from service.store.owner_record import Fence

_EVENTS = "events"
"""The folder, as the SDK names it."""

OnAppend = Callable[[int, str, bytes], None]
"""Called with (seq, event id, bytes) on the appending thread, which holds the store's lock: must not block or raise."""


def _nobody_listens(seq: int, event_id: str, data: bytes) -> None:
    """Until the conversation is hosted, whose readers are then told all of its state."""


class OwnedStore(FileStore):
    """Rooted at one conversation's directory. Thread-safe."""

    def __init__(self, directory: ConversationDirectory, fence: Fence, inbox: Inbox, *, fsync: bool) -> None:
        self._directory = directory
        self._fence = fence
        self._inbox = inbox
        self._fsync = fsync
        self._listing = EventListing(directory)
        self.on_append: OnAppend = _nobody_listens
        self._lock = threading.RLock()
        self._is_closed = False
        self._applying = threading.local()

    @property
    def is_closed(self) -> bool:
        """Whether what was written last may have vanished."""
        return self._is_closed

    def close(self) -> None:
        """From now on nothing is written: the conversation belongs to another runner or is being deleted.

        State vanishes; an event is refused, or the tool whose action it is would be started.
        """
        self._is_closed = True

    def sync_names(self) -> None:
        """Make the files written so far survive a power cut under their names; before acknowledging."""
        if self._fsync:
            fsync_directory(self._directory.path)
            if self._directory.events.is_dir():
                fsync_directory(self._directory.events)

    @contextmanager
    def applying(self, command: Command) -> Iterator[None]:
        """While the block runs, a user message that this thread appends is the one `command` asked for."""
        self._applying.command = command
        try:
            yield
        finally:
            self._applying.command = None

    def write(self, path: str, contents: str | bytes) -> None:
        if path.endswith(".marker"):
            return
        data = contents.encode() if isinstance(contents, str) else contents
        folder, file_name = os.path.split(path)
        name = parse_event_name(file_name) if folder == _EVENTS else None
        if self._is_closed:
            if name is not None:
                raise OwnershipLost
            return
        self._fence.check()
        if name is None:
            self._put(path, data)
            return
        self._note_message(name.event_id, data)
        self._put(path, data)
        self._listing.note(name)
        self.on_append(name.seq, name.event_id, data)

    def _put(self, path: str, data: bytes) -> None:
        target = os.path.join(self._directory.path, path)
        if not os.path.isdir(folder := os.path.dirname(target)):
            os.mkdir(folder, 0o700)
        write_atomically(
            target,
            data,
            fsync=self._fsync,
            fsync_name=False,
            temporary_in=self._directory.path,  # else a listing of the events would be of no use while one is written
            committing=self._while_owned,
        )

    @contextmanager
    def _while_owned(self) -> Iterator[None]:
        """Asks once more when the bytes are on disk, which may have taken seconds."""
        if self._is_closed:
            raise OwnershipLost
        self._fence.check()
        yield

    def _note_message(self, event_id: str, data: bytes) -> None:
        """Let the inbox know which event its entry becomes, so that a crash from here on cannot apply it twice."""
        command: Command | None = getattr(self._applying, "command", None)
        if command is None or command.kind != "message":
            return
        if b'"source":"user"' in data and data.endswith(b'"kind":"MessageEvent"}'):
            command.event_id = event_id
            if command.entry is not None:
                command.entry = self._inbox.assign(command.entry, event_id)

    def read(self, path: str) -> str:
        return (self._directory.path / path).read_text("utf-8")

    def list(self, path: str) -> list[str]:
        directory = self._directory.path / path
        if not directory.is_dir():
            return []
        with os.scandir(directory) as entries:
            return [f"{path}/{entry.name}/" if entry.is_dir() else f"{path}/{entry.name}" for entry in entries]

    def delete(self, path: str) -> None:
        if not self._is_closed and not path.endswith(".marker"):
            (self._directory.path / path).unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        # The SDK asks for its length marker before each append; without one it would count the files.
        return path.endswith(".marker") or (self._directory.path / path).exists()

    def get_absolute_path(self, path: str) -> str:
        return str(self._directory.path / path)

    @contextmanager
    def lock(self, path: str, timeout: float = 30.0) -> Iterator[None]:
        with self._lock:
            yield
