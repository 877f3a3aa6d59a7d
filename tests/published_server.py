"""Conversations as the published server has left them on disk, and what it told of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from tests.server_process import REPOSITORY

JsonObject = dict[str, Any]

DATA = REPOSITORY / "tests" / "data" / "published_server"
SECRET_KEY = "test-secret-key"
"""What the published server encrypted with (`OH_SECRET_KEY`)."""
SECRET = "s3cr3t-value"
"""The value of `TOK` in conversation `c`."""
API_KEY = "sk-test"
"""The LLM's key in all of them."""
_TELLS: JsonObject = json.loads((DATA / "expected.json").read_text())

NAMES: tuple[str, ...] = tuple(_TELLS["ids"])


class Foreign(NamedTuple):
    """One of the conversations, on disk."""

    name: str
    id: UUID
    path: Path
    info: JsonObject
    """What the published server answered to `GET /api/conversations/{id}`."""
    events_count: int

    @property
    def event_paths(self) -> list[Path]:
        return sorted(self.path.glob("events/event-*.json"))


def install(name: str, conversations: Path, *, workspaces: Path, llm_url: str, as_twin: bool = False) -> Foreign:
    """Put a conversation into a data directory.

    Args:
        workspaces: directory of the agents' working directories; the one of this conversation is made.
        as_twin: under another id, so that the same one can be there twice.
    """
    original = UUID(_TELLS["ids"][name])
    conversation_id = uuid4() if as_twin else original
    texts = {
        "@WORKSPACES@": str(workspaces),
        "@LLM@": llm_url,
        "@HOST@": "host",
        "@USER@": "user",
        "@PYTHON@": "/usr/bin/python3",
        original.hex: conversation_id.hex,
        str(original): str(conversation_id),
    }
    (workspaces / name).mkdir(parents=True)
    source, path = DATA / "conversations" / original.hex, conversations / conversation_id.hex
    for file in source.rglob("*"):
        if file.is_file():
            target = path / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_put_back(file.read_text(), texts))
    info = json.loads(_put_back(json.dumps(_TELLS["info"][name]), texts))
    return Foreign(name, conversation_id, path, info, _TELLS["events_count"][name])


def _put_back(text: str, texts: Mapping[str, str]) -> str:
    for placeholder, value in texts.items():
        text = text.replace(placeholder, value)
    return text
