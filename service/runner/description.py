"""A conversation in the words of the wire contract: ConversationInfo and the full_state event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pydantic_core
from openhands.sdk.conversation.state import ConversationExecutionStatus, ConversationState
from openhands.sdk.event.conversation_state import FULL_STATE_KEY, ConversationStateUpdateEvent
from openhands.sdk.tool.registry import get_tool_module_qualnames

from service.redaction import REDACTED_SECRET
from service.runner.meta import Meta
from service.store.snapshot import Snapshot, SnapshotHeader

JsonObject = dict[str, Any]

_STATE_ONLY = ("activated_path_rules", "head_is_empty")
_FULL_STATE_LIMIT_BYTES = 900_000
"""The SDK's client gives up on frames of 1 MiB; a full_state beyond this is sent without skills and call lists."""


def describe(state: ConversationState, meta: Meta, status: ConversationExecutionStatus) -> Snapshot:
    """Every ready-made answer about a conversation; `status` is the one to tell, which may be ahead of the state's."""
    info = _info(state, meta, status)
    header = SnapshotHeader(status.value, info["created_at"], info["updated_at"])
    with_skills = _to_json(info)
    skills_removed = _without_skills(info["agent"])
    return Snapshot(
        header,
        _to_json(info) if skills_removed else with_skills,
        full_state_event(state, status),
        with_skills if skills_removed else b"",
    )


def full_state_event(state: ConversationState, status: ConversationExecutionStatus) -> bytes:
    """A fresh full_state event, as JSON; under 1 MiB unless the agent itself is larger."""
    value = state.model_dump(mode="json", exclude_none=True) | {"execution_status": status.value}
    event = _full_state(value)
    if len(event) > _FULL_STATE_LIMIT_BYTES:
        value["stats"] = state.stats.model_dump(mode="json", context={"use_snapshot": True})
        _without_skills(value["agent"])
        event = _full_state(value)
    return event


def utc_text(moment: datetime) -> str:
    """UTC, ISO-8601 with microseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _full_state(value: JsonObject) -> bytes:
    event = ConversationStateUpdateEvent(key=FULL_STATE_KEY, value=value)
    return event.model_dump_json(exclude_none=True).encode()


def _info(state: ConversationState, meta: Meta, status: ConversationExecutionStatus) -> JsonObject:
    info = state.model_dump(mode="json")
    for name in _STATE_ONLY:
        del info[name]
    agent = info.pop("agent")
    info |= {
        "execution_status": status.value,
        "title": meta.title,
        "metrics": meta.metrics,
        "created_at": utc_text(meta.created_at),
        "updated_at": utc_text(meta.updated_at),
        "forked_from_conversation_id": meta.forked_from_conversation_id,
        "forked_from_event_id": meta.forked_from_event_id,
        "parent_conversation_id": meta.parent_conversation_id,
        "sub_conversation_ids": [],
        "tags": meta.tags,
        # Where the SDK keeps them; only agents of ACP servers have them.
        "current_model_id": state.agent_state.get("acp_current_model_id"),
        "available_models": state.agent_state.get("acp_available_models", []),
        "supports_runtime_model_switch": state.agent_state.get("acp_supports_runtime_model_switch", False),
        "launched_agent_profile": meta.launched_agent_profile,
        "agent": agent,
        "client_tools": [tool.model_dump(mode="json") for tool in meta.client_tools],
        "tool_module_qualnames": _tool_modules(agent, meta),
        "runtime_info": {"runtime_status": "available", "can_resume": True, "runtime_error": None},
    }
    shown: JsonObject = _hide_secrets(info)
    return shown


def _tool_modules(agent: JsonObject, meta: Meta) -> dict[str, str]:
    """Where other clients import the agent's tools from: what the creator said, and what this server knows."""
    used = {tool["name"] for tool in agent.get("tools", ())}
    known = {name: module for name, module in get_tool_module_qualnames().items() if name in used}
    return known | meta.tool_module_qualnames


def _hide_secrets(value: Any) -> Any:
    """Redacted values become null, as clients expect in REST answers; redacted headers are left out."""
    if isinstance(value, dict):
        return {
            key: {name: text for name, text in item.items() if text != REDACTED_SECRET}
            if key == "headers" and isinstance(item, dict)
            else _hide_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_hide_secrets(item) for item in value]
    return None if value == REDACTED_SECRET else value


def _without_skills(agent: JsonObject) -> bool:
    """Empty the skills in place; False when there were none."""
    context = agent.get("agent_context")
    if not context or not context.get("skills"):
        return False
    context["skills"] = []
    return True


def _to_json(value: JsonObject) -> bytes:
    return pydantic_core.to_json(value)
