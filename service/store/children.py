"""Which conversations name another as their parent: an empty file for each in the parent's folder.

Whoever makes or deletes a child writes there, without being the parent's owner; each name is written once. Blocking.
"""

from __future__ import annotations

import os
from uuid import UUID

from service.store.layout import ConversationDirectory

_NONE = b'"sub_conversation_ids":[]'


def note_child(parent: ConversationDirectory, child_id: UUID) -> None:
    """Raises FileNotFoundError when the parent is gone."""
    parent.children.mkdir(mode=0o700, exist_ok=True)
    (parent.children / child_id.hex).touch()


def forget_child(parent: ConversationDirectory, child_id: UUID) -> None:
    (parent.children / child_id.hex).unlink(missing_ok=True)


def children_of(parent: ConversationDirectory) -> list[UUID]:
    """The oldest first."""
    try:
        with os.scandir(parent.children) as entries:
            found = [(entry.stat().st_mtime_ns, entry.name) for entry in entries]
    except FileNotFoundError:
        return []
    return [UUID(hex=name) for _, name in sorted(found)]


def with_children(info: bytes, parent: ConversationDirectory) -> bytes:
    """A ConversationInfo that says whose parent it is, out of one that does not."""
    ids = children_of(parent)
    if not ids:
        return info
    listed = ",".join(f'"{child_id}"' for child_id in ids)
    return info.replace(_NONE, b'"sub_conversation_ids":[%s]' % listed.encode(), 1)
