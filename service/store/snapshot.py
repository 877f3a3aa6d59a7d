"""A conversation's ready-made answers, written by its owner beside `base_state.json`.

One file, replaced whole, so the answers belong together. Each line is one JSON object without raw newlines:

1. header: the few facts that lists sort and filter by;
2. info: the body of `GET /api/conversations/{id}`, skills left out;
3. full_state: the event every events socket begins with;
4. info with skills, or an empty line when it would be the same.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from service.store.atomic import write_atomically
from service.store.cached_file import FileCache
from service.store.layout import ConversationDirectory

_CACHED_SNAPSHOTS = 4096


class SnapshotHeader(NamedTuple):
    """What lists sort and filter by."""

    status: str
    created_at: str
    """UTC, ISO-8601, microseconds, `Z`: sorts as text."""
    updated_at: str


class Snapshot(NamedTuple):
    """The four lines."""

    header: SnapshotHeader
    info: bytes
    full_state: bytes
    info_with_skills: bytes


def write_snapshot(directory: ConversationDirectory, snapshot: Snapshot) -> None:
    """Replace the file. Not synced: after a power cut it is made again from the truth beside it."""
    header = json.dumps(snapshot.header._asdict()).encode()
    lines = (header, snapshot.info, snapshot.full_state, snapshot.info_with_skills)
    write_atomically(directory.snapshot, b"\n".join(lines), fsync=False)


def parse_snapshot(data: bytes) -> Snapshot | None:
    """None when the file is cut short or from a version that wrote something else."""
    lines = data.split(b"\n")
    if len(lines) != 4 or not lines[1] or not lines[2]:
        return None
    try:
        header = SnapshotHeader(**json.loads(lines[0]))
    except (ValueError, TypeError):
        return None
    return Snapshot(header, lines[1], lines[2], lines[3] or lines[1])


class SnapshotReader:
    """Reads snapshots of any conversation; the last few thousand stay in memory."""

    def __init__(self) -> None:
        self._files = FileCache(_CACHED_SNAPSHOTS, parse_snapshot)

    def read(self, directory: ConversationDirectory) -> Snapshot | None:
        """The current snapshot, or None where a runner must describe the conversation first. Blocking, microseconds."""
        return self._files.read(directory.snapshot)


def leaf_of(snapshot: Snapshot) -> str | None:
    """HEAD of the conversation's tree, as its owner last said."""
    leaf: str | None = json.loads(snapshot.info)["leaf_event_id"]
    return leaf
