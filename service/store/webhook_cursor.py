"""How far one receiver of webhooks has been told of one conversation's log; kept beside the log.

The batch that is being tried is part of it: whoever goes on after a crash posts the same events under the same id, so
that a receiver recognises what it has already.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

import structlog

from service.store.atomic import write_atomically
from service.store.event_name import parse_event_name
from service.store.layout import ConversationDirectory

_log = structlog.get_logger(__name__)


class Cursor(NamedTuple):
    """The content of `webhooks/<receiver id>.json`."""

    next_seq: int
    """The first event that is not known to have arrived."""
    trying_through_seq: int | None = None
    """The last event of the batch that begins at `next_seq` and may have arrived."""


def read_cursor(directory: ConversationDirectory, receiver_id: str) -> Cursor | None:
    """None for a receiver that this conversation has not met. Blocking."""
    path = directory.webhooks / f"{receiver_id}.json"
    try:
        return Cursor(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        # Rather tell everything again than leave something out.
        _log.error("unreadable_webhook_cursor", file=str(path), error=repr(error))
        return Cursor(0)


def write_cursor(directory: ConversationDirectory, receiver_id: str, cursor: Cursor, *, fsync: bool) -> None:
    """Replace the file. Blocking."""
    directory.webhooks.mkdir(mode=0o700, exist_ok=True)
    content = json.dumps(cursor._asdict()).encode()
    write_atomically(directory.webhooks / f"{receiver_id}.json", content, fsync=fsync)


def has_untold_events(directory: ConversationDirectory, receiver_ids: Iterable[str]) -> bool:
    """Whether the log is longer than what one of these receivers was told. Blocking."""
    known = (read_cursor(directory, receiver_id) for receiver_id in receiver_ids)
    cursors = [cursor for cursor in known if cursor is not None]
    if not cursors:
        return False
    try:
        names = os.listdir(directory.events)
    except FileNotFoundError:
        return False  # nothing was appended yet, or the conversation is being deleted
    length = sum(parse_event_name(name) is not None for name in names)
    return any(cursor.next_seq < length for cursor in cursors)
