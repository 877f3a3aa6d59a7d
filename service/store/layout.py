"""Names and places of a conversation's files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from uuid import UUID

_HEX_ID = re.compile(r"[0-9a-f]{32}")
DELETED = ".deleted-"
DRAFT = ".fork-"
"""How the names of directories begin that are no conversation any more, or not yet."""


@dataclass(frozen=True)
class ConversationDirectory:
    """Where one conversation lives; the directory need not exist. Paths are put together once: lists ask for many."""

    path: Path

    @cached_property
    def conversation_id(self) -> UUID:
        return UUID(hex=self.path.name)

    @cached_property
    def events(self) -> Path:
        return self.path / "events"

    @cached_property
    def event_listing(self) -> Path:
        return self.path / "event_listing"

    @cached_property
    def base_state(self) -> Path:
        """The SDK writes it last when it makes a conversation: where it is missing there is none yet."""
        return self.path / "base_state.json"

    @cached_property
    def meta(self) -> Path:
        return self.path / "meta.json"

    @cached_property
    def snapshot(self) -> Path:
        return self.path / "snapshot.jsonl"

    @cached_property
    def owner(self) -> Path:
        return self.path / "owner.json"

    @cached_property
    def bash_events(self) -> Path:
        return self.path / "bash_events"

    @cached_property
    def inbox(self) -> Path:
        return self.path / "inbox"

    @cached_property
    def children(self) -> Path:
        return self.path / "children"

    @cached_property
    def webhooks(self) -> Path:
        return self.path / "webhooks"

    @cached_property
    def credential_bindings(self) -> Path:
        """Beside the directory, since it may be there before the conversation is."""
        return self.path.parent / ".credential_bindings" / self.path.name


@dataclass(frozen=True, slots=True)
class ConversationsRoot:
    """The directory of all conversations."""

    path: Path

    def directory(self, conversation_id: UUID) -> ConversationDirectory:
        return _directory(self.path, conversation_id.hex)

    @property
    def dead_letters(self) -> Path:
        return self.path / ".dead_letters"

    def exists(self, conversation_id: UUID) -> bool:
        """Whether there is such a conversation, wherever it is running."""
        return self.directory(conversation_id).base_state.exists()

    def ids(self) -> list[UUID]:
        """Every directory that is named like a conversation, in no order; blocking, one `scandir`."""
        if not self.path.is_dir():
            return []
        return [UUID(hex=entry.name) for entry in self.path.iterdir() if _HEX_ID.fullmatch(entry.name)]


@lru_cache(maxsize=4096)
def _directory(root: Path, name: str) -> ConversationDirectory:
    return ConversationDirectory(root / name)
