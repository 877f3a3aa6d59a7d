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

_CACHED_BRIEFS_BYTES = 64 << 20
"""Thousands of them; one grows with each LLM call (guess)."""
_HEADER_BYTES = 500
"""What a header takes in memory, roughly."""
_BRIEF_BYTES = 1 << 14
"""Holds the first two lines of most."""


class SnapshotHeader(NamedTuple):
    """What lists sort and filter by."""

    status: str
    created_at: str
    """UTC, ISO-8601, microseconds, `Z`: sorts as text."""
    updated_at: str


class Brief(NamedTuple):
    """The first two lines: a few KB, and all that most readers want."""

    header: SnapshotHeader
    info: bytes


class Snapshot(NamedTuple):
    """The four lines, of which the last two hold the skills of an agent: hundreds of KB where there are many."""

    header: SnapshotHeader
    info: bytes
    full_state: bytes
    info_with_skills: bytes
    """Empty where that is `info`: the agent has none."""


def write_snapshot(directory: ConversationDirectory, snapshot: Snapshot) -> None:
    """Replace the file. Not synced: after a power cut it is made again from the truth beside it."""
    header = json.dumps(snapshot.header._asdict()).encode()
    lines = (header, snapshot.info, snapshot.full_state, snapshot.info_with_skills)
    write_atomically(directory.snapshot, b"\n".join(lines), fsync=False)


def read_snapshot(directory: ConversationDirectory) -> Snapshot | None:
    """The current snapshot, or None where a runner must describe the conversation first. Blocking."""
    try:
        lines = directory.snapshot.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    header = _parse_header(lines[0])
    if header is None or len(lines) != 4 or not lines[1] or not lines[2]:
        return None  # cut short, or from a version that wrote something else
    return Snapshot(header, *lines[1:])


def read_brief(directory: ConversationDirectory) -> Brief | None:
    """As `read_snapshot`, of no more than the beginning of the file. Blocking, microseconds."""
    try:
        return _load_brief(str(directory.snapshot))
    except FileNotFoundError:
        return None


class SnapshotReader:
    """Answers about any conversation. Blocking, microseconds; None where a runner must describe it first."""

    def __init__(self) -> None:
        self._briefs = FileCache(_CACHED_BRIEFS_BYTES, _load_brief, _weight)

    def info(self, directory: ConversationDirectory, with_skills: bool = False) -> bytes | None:
        """Without skills mostly from memory."""
        if with_skills:
            snapshot = read_snapshot(directory)
            return None if snapshot is None else snapshot.info_with_skills or snapshot.info
        brief = self._briefs.read(directory.snapshot)
        return None if brief is None else brief.info

    def full_state(self, directory: ConversationDirectory) -> bytes | None:
        """From the disk each time."""
        snapshot = read_snapshot(directory)
        return None if snapshot is None else snapshot.full_state


def _load_brief(path: str) -> Brief | None:
    with open(path, "rb", buffering=_BRIEF_BYTES) as file:
        header = _parse_header(file.readline())
        info = file.readline()
    if header is None or len(info) < 2 or not info.endswith(b"\n"):
        return None
    return Brief(header, info[:-1])


def _weight(brief: Brief | None) -> int:
    return _HEADER_BYTES + (0 if brief is None else len(brief.info))


def _parse_header(line: bytes) -> SnapshotHeader | None:
    try:
        return SnapshotHeader(**json.loads(line))
    except (ValueError, TypeError):
        return None


def leaf_of(info: bytes) -> str | None:
    """HEAD of the conversation's tree, as its owner last said."""
    leaf: str | None = json.loads(info)["leaf_event_id"]
    return leaf
