"""What the disk says about every conversation, for the index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import structlog

from service.store.layout import ConversationDirectory, ConversationsRoot
from service.store.snapshot import read_brief

_log = structlog.get_logger(__name__)


class Found(NamedTuple):
    """One conversation on disk."""

    conversation_id: UUID
    created_at: str
    updated_at: str
    status: str


def scan(root: ConversationsRoot) -> Iterator[Found]:
    """Every readable conversation, in no order; blocking. An unreadable one is logged and left out."""
    for conversation_id in root.ids():
        directory = root.directory(conversation_id)
        try:
            if directory.base_state.exists():
                yield _from_snapshot(directory) or _from_files(directory)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error("unreadable_conversation", conversation_id=str(conversation_id), error=repr(error))


def _from_snapshot(directory: ConversationDirectory) -> Found | None:
    brief = read_brief(directory)
    if brief is None:
        return None
    header = brief.header
    return _found(directory, header.created_at, header.updated_at, header.status)


def _from_files(directory: ConversationDirectory) -> Found:
    """For a directory that only the SDK or the published server wrote."""
    status = json.loads(directory.base_state.read_bytes())["execution_status"]
    modified_at = datetime.fromtimestamp(directory.base_state.stat().st_mtime, UTC).isoformat()
    try:
        meta = json.loads(directory.meta.read_bytes())
    except FileNotFoundError:
        meta = {}
    return _found(directory, meta.get("created_at", modified_at), meta.get("updated_at", modified_at), status)


def _found(directory: ConversationDirectory, created_at: Any, updated_at: Any, status: Any) -> Found:
    """Raises ValueError or TypeError for what the index could not take."""
    for moment in (created_at, updated_at):
        datetime.fromisoformat(moment)
    if not isinstance(status, str):
        raise TypeError(f"the status is {status!r}")
    return Found(directory.conversation_id, created_at, updated_at, status)
