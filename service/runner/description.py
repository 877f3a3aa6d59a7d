"""A conversation in the words of the wire contract: ConversationInfo and the full_state event."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pydantic_core
from openhands.sdk import AgentContext
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
_CONTEXT = secrets.token_hex(16)
"""Stands for the agent's context until a description is JSON."""
_CONTEXT_JSON = f'"{_CONTEXT}"'.encode()


class _Context(NamedTuple):
    """What holds an agent's skills, often hundreds of KB, as JSON. The SDK replaces it but never changes it."""

    of: AgentContext | None
    info: bytes
    info_without_skills: bytes
    state: bytes
    state_without_skills: bytes

    @property
    def has_skills(self) -> bool:
        return self.of is not None and bool(self.of.skills)


class Describer:
    """Says what a conversation's state is. Raises RuntimeError where another thread changes it meanwhile."""

    def __init__(self, state: ConversationState) -> None:
        self._state = state
        self._context = _dumped(None)

    def snapshot(self, meta: Meta, status: ConversationExecutionStatus) -> Snapshot:
        """Every ready-made answer; `status` is the one to tell, which may be ahead of the state's."""
        context = self._agents_context()
        info = self._info(meta, status)
        header = SnapshotHeader(status.value, info["created_at"], info["updated_at"])
        data = pydantic_core.to_json(info)
        return Snapshot(
            header,
            _filled(data, context.info_without_skills),
            self.full_state_event(status),
            _filled(data, context.info) if context.has_skills else b"",
        )

    def full_state_event(self, status: ConversationExecutionStatus) -> bytes:
        """A fresh full_state event, as JSON; under 1 MiB unless the agent itself is larger."""
        context = self._agents_context()
        value = self._dump(exclude_none=True) | {"execution_status": status.value}
        event = _filled(_full_state(value), context.state)
        if len(event) > _FULL_STATE_LIMIT_BYTES:
            value["stats"] = self._state.stats.model_dump(mode="json", context={"use_snapshot": True})
            event = _filled(_full_state(value), context.state_without_skills)
        return event

    def _agents_context(self) -> _Context:
        context = self._state.agent.agent_context
        if context is not self._context.of:
            self._context = _dumped(context)
        return self._context

    def _dump(self, *, exclude_none: bool) -> JsonObject:
        """All of the state, but for the place of the agent's context."""
        agent = self._state.agent
        told: JsonObject = self._state.model_dump(mode="json", exclude_none=exclude_none, exclude={"agent"})
        told["agent"] = agent.model_dump(mode="json", exclude_none=exclude_none, exclude={"agent_context"})
        if agent.agent_context is not None:
            told["agent"]["agent_context"] = _CONTEXT
        elif not exclude_none:
            told["agent"]["agent_context"] = None
        return told

    def _info(self, meta: Meta, status: ConversationExecutionStatus) -> JsonObject:
        state = self._state
        info = self._dump(exclude_none=False)
        for name in _STATE_ONLY:
            del info[name]
        agent = info["agent"]
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
            "client_tools": [tool.model_dump(mode="json") for tool in meta.client_tools],
            "tool_module_qualnames": _tool_modules(agent, meta),
            "runtime_info": {"runtime_status": "available", "can_resume": True, "runtime_error": None},
        }
        shown: JsonObject = _hide_secrets(info)
        return shown


def utc_text(moment: datetime) -> str:
    """UTC, ISO-8601 with microseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _dumped(context: AgentContext | None) -> _Context:
    if context is None:
        return _Context(None, b"null", b"null", b"null", b"null")
    info = _hide_secrets(context.model_dump(mode="json"))
    state = context.model_dump(mode="json", exclude_none=True)
    lines = (info, info | {"skills": []}, state, state | {"skills": []})
    return _Context(context, *map(pydantic_core.to_json, lines))


def _filled(data: bytes, context: bytes) -> bytes:
    return data.replace(_CONTEXT_JSON, context, 1)


def _full_state(value: JsonObject) -> bytes:
    event = ConversationStateUpdateEvent(key=FULL_STATE_KEY, value=value)
    return event.model_dump_json(exclude_none=True).encode()


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
