"""What a power cut may leave at the end of a log: files with a name and not all of their bytes.

A server that syncs each event before its name appears leaves none; one with `fsync` off, or another program, may.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from service.store.event_name import parse_event_name
from service.store.layout import ConversationDirectory

_PREFIX = ".torn-"


def set_aside_torn_tail(directory: ConversationDirectory) -> list[Path]:
    """Rename the unreadable events at the end of the log, so that it ends with a whole one. For the owner; blocking.

    Nothing is deleted. Returns where they are now, and those of earlier calls that `note_told` was not called for.
    """
    if not directory.events.is_dir():
        return []
    events = ((parse_event_name(path.name), path) for path in directory.events.iterdir())
    newest_first = sorted(((name.seq, path) for name, path in events if name), reverse=True)
    for path in itertools.takewhile(_is_torn, (path for _, path in newest_first)):
        path.rename(path.with_name(f"{_PREFIX}{path.name}"))
    return sorted(directory.events.glob(f"{_PREFIX}*.json"))


def note_told(path: Path) -> None:
    """Note that the conversation says what became of this file."""
    path.rename(path.with_name(f"{path.name}.told"))


def _is_torn(path: Path) -> bool:
    try:
        return not isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return True
