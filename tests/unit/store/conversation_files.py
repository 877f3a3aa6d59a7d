"""Conversations on disk, made by hand: small files with the names and keys that readers look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from service.store.event_name import event_file_name
from service.store.layout import ConversationDirectory, ConversationsRoot

JsonObject = dict[str, Any]
LONG_AGO = 1_700_000_000
"""Unix time, far outside of the window in which readers distrust a file's time."""


def make_conversation(root: Path, conversation_id: UUID | None = None, **state: Any) -> ConversationDirectory:
    """A directory with a `base_state.json`; `state` are keys of it beside the status."""
    directory = ConversationsRoot(root).directory(conversation_id or uuid4())
    directory.path.mkdir(parents=True)
    directory.base_state.write_text(json.dumps({"execution_status": "idle"} | state))
    return directory


def put_event(directory: ConversationDirectory, seq: int, **event: Any) -> bytes:
    """Write an event's file; returns its bytes."""
    directory.events.mkdir(exist_ok=True)
    event.setdefault("id", str(uuid4()))
    data = json.dumps({"kind": "PauseEvent", "source": "user", "timestamp": f"2026-01-01T00:00:{seq:02}"} | event)
    (directory.events / event_file_name(seq, event["id"])).write_text(data)
    return data.encode()


def message(text: str, source: str = "user", **event: Any) -> JsonObject:
    """The keys of a MessageEvent."""
    said = {"role": source, "content": [{"type": "text", "text": text}]}
    return {"kind": "MessageEvent", "source": source, "llm_message": said, **event}
