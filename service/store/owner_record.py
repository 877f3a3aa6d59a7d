"""Who may write a conversation, kept where the writes go.

The lease in Redis decides who *should* own a conversation. This record fences: a claim raises `lease_epoch`, and
before each append and state write an owner looks whether its claim is still the one on disk.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import NamedTuple

from service.errors import OwnershipLost
from service.identity import LeaseEpoch, RunnerId, StreamEpoch
from service.store.atomic import write_atomically
from service.store.cached_file import FileCache
from service.store.event_name import parse_event_name
from service.store.layout import ConversationDirectory

NOBODY = RunnerId("")

_CACHED_RECORDS = 4096

INTERRUPTION_SECONDS = 600.0
"""A run that was cut off longer ago says nothing about the next (guess)."""


class OwnerRecord(NamedTuple):
    """The content of `owner.json`."""

    lease_epoch: LeaseEpoch
    runner_id: RunnerId
    """The last one to claim; NOBODY once it has let go in good order."""
    stream_epoch: StreamEpoch
    interruptions: tuple[float, ...] = ()
    """Unix times at which an owner was found to have died in the middle of a run; the recent ones."""
    settled_length: int = 0
    """How long the log was when a client last moved HEAD. Until it grows beyond that, HEAD is what `base_state.json`
    says; afterwards it is the last event."""
    owes_run: bool = False
    """A run was accepted that the status in `base_state.json` does not show: the next owner goes on with it."""


def read_owner(directory: ConversationDirectory) -> OwnerRecord | None:
    """The record, or None for a directory that no runner of ours ever claimed."""
    try:
        return _parse(directory.owner.read_bytes())
    except FileNotFoundError:
        return None


class StreamEpochs:
    """Which history a conversation has, for those who only read it; the last few thousand stay in memory."""

    def __init__(self) -> None:
        self._files = FileCache(_CACHED_RECORDS, lambda path: _parse(Path(path).read_bytes()))

    def of(self, directory: ConversationDirectory) -> StreamEpoch | None:
        """None for a directory that no runner of ours ever claimed. Blocking, microseconds."""
        record = self._files.read(directory.owner)
        return None if record is None else record.stream_epoch


def _parse(data: bytes) -> OwnerRecord:
    record = json.loads(data)
    return OwnerRecord(
        LeaseEpoch(record["lease_epoch"]),
        RunnerId(record["runner_id"]),
        StreamEpoch(bytes.fromhex(record["stream_epoch"])),
        tuple(record.get("interruptions", ())),
        record.get("settled_length", 0),
        record.get("owes_run", False),
    )


def claim(directory: ConversationDirectory, runner_id: RunnerId, *, fsync: bool) -> OwnerRecord:
    """Become the one writer; the previous owner's next write fails.

    The caller holds the conversation's lease. Should another claim nevertheless at the same moment, both may get the
    same epoch, and the one whose record is on disk at the end is the owner. A history without an identity gets one.
    """
    previous = read_owner(directory)
    record = OwnerRecord(
        LeaseEpoch(previous.lease_epoch + 1 if previous else 1),
        runner_id,
        previous.stream_epoch if previous else StreamEpoch(uuid.uuid4().bytes),
        previous.interruptions if previous else (),
        previous.settled_length if previous else _settled_length(directory),
        previous is not None and previous.owes_run,
    )
    _write(directory, record, fsync=fsync)
    return record


def _settled_length(directory: ConversationDirectory) -> int:
    """The length of a log that somebody else has left behind in good order, not in the middle of a run; else 0."""
    if not directory.events.is_dir() or json.loads(directory.base_state.read_bytes())["execution_status"] == "running":
        return 0
    return sum(parse_event_name(name) is not None for name in os.listdir(directory.events))


def give_up(directory: ConversationDirectory, record: OwnerRecord, *, owes_run: bool, fsync: bool) -> None:
    """Note that the owner let go in good order: whoever comes next need not ask whether it is dead."""
    current = read_owner(directory)
    if current is not None and _is_of(record, current):
        _write(directory, current._replace(runner_id=NOBODY, owes_run=owes_run), fsync=fsync)


def note_run(directory: ConversationDirectory, record: OwnerRecord, *, fsync: bool) -> None:
    """Note that the status shows the run that was owed. Raises OwnershipLost when another has claimed."""
    _write(directory, _require_current(directory, record)._replace(owes_run=False), fsync=fsync)


def note_navigation(directory: ConversationDirectory, record: OwnerRecord, log_length: int, *, fsync: bool) -> None:
    """Note that a client has moved HEAD: as long as the log is no longer than this, it is where the state says.

    Raises OwnershipLost when another has claimed.
    """
    current = _require_current(directory, record)
    _write(directory, current._replace(settled_length=log_length), fsync=fsync)


def note_interruption(directory: ConversationDirectory, record: OwnerRecord, now: float, *, fsync: bool) -> int:
    """Note that a run was cut off; returns how often that was within `INTERRUPTION_SECONDS`, this time included.

    Raises OwnershipLost when another has claimed.
    """
    current = _require_current(directory, record)
    recent = (*(then for then in current.interruptions if now - then < INTERRUPTION_SECONDS), now)
    _write(directory, current._replace(interruptions=recent), fsync=fsync)
    return len(recent)


class Fence:
    """Asks, at the price of one `stat`, whether a claim still stands."""

    def __init__(self, directory: ConversationDirectory, record: OwnerRecord) -> None:
        self._directory = directory
        self._record = record
        # Not what is there now: between the claim and this line another runner may have claimed too.
        self._seen: tuple[int, int, int] | None = None

    def check(self) -> None:
        """Return if this claim is the newest.

        Raises:
            OwnershipLost: another runner claimed the conversation, or its directory is gone.
        """
        signature = self._signature()
        if signature == self._seen and signature is not None:
            return
        _require_current(self._directory, self._record)
        self._seen = signature

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._directory.owner)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def _require_current(directory: ConversationDirectory, record: OwnerRecord) -> OwnerRecord:
    """What has become of the record since it was claimed. Raises OwnershipLost when it is another's."""
    current = read_owner(directory)
    if current is None or not _is_of(record, current):
        raise OwnershipLost
    return current


def _is_of(claimed: OwnerRecord, current: OwnerRecord) -> bool:
    return (claimed.lease_epoch, claimed.runner_id) == (current.lease_epoch, current.runner_id)


def _write(directory: ConversationDirectory, record: OwnerRecord, *, fsync: bool) -> None:
    content = record._asdict() | {"stream_epoch": record.stream_epoch.hex()}
    write_atomically(directory.owner, json.dumps(content).encode(), fsync=fsync)
