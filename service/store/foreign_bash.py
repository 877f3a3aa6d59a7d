"""The published server's bash history: one JSON file an event, named by time, kind and ids."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_NAME = re.compile(r"(\d{14})(\d{6})?_(BashCommand|BashOutput)(?:_([0-9a-f]{32}))?_([0-9a-f]{32})")

_FIELDS = {
    "BashCommand": {"id", "timestamp"},
    "BashOutput": {"id", "timestamp", "order", "exit_code", "stdout", "stderr"},
}
"""What is looked at in an event."""

ForeignEntry = tuple[int, str, str, Path]
"""Microseconds, event id, command id, file."""


def foreign_entries(directory: Path) -> Iterator[ForeignEntry]:
    """The events in a directory, in no order; files of other names, and of no time, are left out."""
    if not directory.is_dir():
        return
    with os.scandir(directory) as entries:
        files = [Path(entry) for entry in entries if entry.is_file()]
    for path in files:
        match = _NAME.fullmatch(path.name)
        if match is not None:
            seconds, micros, _, command_id, event_id = match.groups()
            try:
                moment = datetime.strptime(seconds, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            except ValueError:
                continue
            yield int(moment.timestamp()) * 1_000_000 + int(micros or 0), event_id, command_id or event_id, path


def foreign_event(path: Path) -> bytes | None:
    """The event, on one line, its id first as in ours; None for a file that cannot be read or holds none."""
    try:
        event = json.loads(path.read_bytes())
        if not _FIELDS[event["kind"]] <= event.keys():
            return None
        return json.dumps({"id": event["id"], **event}, ensure_ascii=False, separators=(",", ":")).encode()
    except (OSError, ValueError, KeyError, TypeError):
        return None
