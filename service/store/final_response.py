"""The agent's newest answer, read from the log."""

from __future__ import annotations

import json
from typing import Any

from service.store.event_log import EventLog

_ROOT = "__root__"
"""`parent_id` of an event that begins a new tree after others (openhands-sdk 1.58, event.types)."""


async def final_response(log: EventLog, leaf_event_id: str | None) -> str:
    """The newest finish message or agent message on the branch that ends at `leaf_event_id`; empty when there is none.

    A finish call without a valid action ends the search (as in the SDK's `get_agent_final_response`).
    """
    seq = None if leaf_event_id is None else log.seq_of(leaf_event_id)
    while seq is not None:
        event = json.loads((await log.read_many([seq]))[0])
        if event["source"] == "agent":
            if event["kind"] == "MessageEvent":
                return "".join(part.get("text", "") for part in event["llm_message"]["content"])
            if event["kind"] == "ActionEvent" and event["tool_name"] == "finish":
                action = event.get("action") or {}
                return str(action.get("message", ""))
        seq = _parent(log, event, seq)
    return ""


def _parent(log: EventLog, event: dict[str, Any], seq: int) -> int | None:
    parent_id = event.get("parent_id")
    if parent_id is None:
        return seq - 1 if seq > 0 else None  # from before the SDK knew branches
    return None if parent_id == _ROOT else log.seq_of(parent_id)
