"""What a power cut may leave at the end of a log: files with a name and not all of their bytes.

A server that syncs each event before its name appears leaves none; one with `fsync` off, or another program, may.
"""

from __future__ import annotations

import json
from pathlib import Path

from service.store.event_name import parse_event_name
from service.store.layout import ConversationDirectory


def set_aside_torn_tail(directory: ConversationDirectory) -> list[Path]:
    """Rename the unreadable events at the end of the log, so that it ends with a whole one. For the owner; blocking.

    Returns where they are now, newest first; nothing is deleted.
    """
    if not directory.events.is_dir():
        return []
    names = sorted((path for path in directory.events.iterdir() if parse_event_name(path.name)), reverse=True)
    torn = []
    for path in names:
        if _is_whole(path):
            break
        torn.append(path.rename(path.with_name(f".torn-{path.name}")))
    return torn


def _is_whole(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False
