"""`meta.json`: what was asked at creation, and what clients set since. The published server's format (1.58)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from openhands.sdk.conversation.request import ConversationConfig
from pydantic import ConfigDict, Field, field_serializer

from service.store.atomic import write_atomically
from service.store.layout import ConversationDirectory


class Meta(ConversationConfig):
    """The record beside the SDK's state; it never holds the agent. Keys of newer servers are kept as they are."""

    model_config = ConfigDict(extra="allow")

    id: UUID
    title: str | None = None
    metrics: dict[str, Any] | None = None
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    forked_from_conversation_id: UUID | None = None
    forked_from_event_id: str | None = None
    launched_agent_profile: dict[str, Any] | None = None
    creation_key: str | None = None
    """Idempotency key of the create that made it (`store.inbox.key_name`)."""

    def allows_secret(self, name: str) -> bool:
        """Whether the agent may have a secret of this name: the profile that launched it may list those it may."""
        refs = (self.launched_agent_profile or {}).get("secret_refs")
        return refs is None or name in refs

    @field_serializer("id", "forked_from_conversation_id")
    def _undashed(self, value: UUID | None) -> str | None:
        return None if value is None else value.hex


def successor(meta: Meta, conversation_id: UUID, **changes: Any) -> Meta:
    """The record of a new conversation made out of another: as `meta`, but for `changes` and what is each one's own."""
    now = datetime.now(UTC)
    own: dict[str, Any] = {
        "id": conversation_id,
        "metrics": None,
        "created_at": now,
        "updated_at": now,
        "forked_from_conversation_id": None,
        "forked_from_event_id": None,
        "parent_conversation_id": None,
        "sub_conversation_ids": [],
        "creation_key": None,
    }
    return meta.model_copy(update=own | changes)


def read_meta(directory: ConversationDirectory) -> Meta:
    """The record; one made up from `base_state.json` for a directory that only the SDK wrote.

    Raises:
        ValueError: the file is not what it should be (pydantic's ValidationError and JSON errors are ValueErrors).
    """
    try:
        return Meta.model_validate_json(directory.meta.read_bytes())
    except FileNotFoundError:
        return _from_base_state(directory)


def write_meta(directory: ConversationDirectory, meta: Meta, *, fsync: bool) -> None:
    """Replace the file. Secrets given at creation are left out: the SDK's state holds them, encrypted."""
    content = meta.model_copy(update={"secrets": {}}).model_dump_json()
    write_atomically(directory.meta, content.encode(), fsync=fsync)


def _from_base_state(directory: ConversationDirectory) -> Meta:
    state = json.loads(directory.base_state.read_bytes())
    modified_at = datetime.fromtimestamp(directory.base_state.stat().st_mtime, UTC)
    return Meta(
        id=directory.conversation_id,
        workspace=state["workspace"],
        max_iterations=state["max_iterations"],
        stuck_detection=state["stuck_detection"],
        tags=state.get("tags", {}),
        created_at=modified_at,
        updated_at=modified_at,
    )
