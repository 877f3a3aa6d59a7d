"""A conversation in the words of the wire contract: ConversationInfo and the full_state event."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import pydantic_core
from openhands.sdk.agent.base import AgentBase
from openhands.sdk.conversation.state import ConversationExecutionStatus, ConversationState
from openhands.sdk.event.conversation_state import FULL_STATE_KEY, ConversationStateUpdateEvent
from openhands.sdk.tool.registry import get_tool_module_qualnames

from service.errors import JsonObject
from service.runner.conversation.large_parts import CONTEXT_STAND_IN, LargeParts
from service.runner.conversation.meta import Meta
from service.runner.conversation.null_secrets import null_secrets
from service.store.snapshot import Snapshot, SnapshotHeader

_STATE_ONLY = ("activated_path_rules", "head_is_empty")
_FULL_STATE_LIMIT_BYTES = 900_000
"""The SDK's client gives up on frames of 1 MiB; a full_state beyond this is sent without skills and call lists."""
_AGENT, _STATS = (secrets.token_hex(16) for _ in range(2))
"""Stand for the large parts until a description is JSON."""


class Describer:
    """Says what a conversation's state is. Raises RuntimeError where another thread changes it meanwhile."""

    def __init__(self, state: ConversationState) -> None:
        self._state = state
        self._parts = LargeParts(state)

    def snapshot(self, meta: Meta, status: ConversationExecutionStatus) -> Snapshot:
        """Every ready-made answer; `status` is the one to tell, which may be ahead of the state's."""
        agent, context, stats = self._parts.agent(), self._parts.context(), self._parts.stats()
        info = self._info(meta, status)
        header = SnapshotHeader(status.value, info["created_at"], info["updated_at"])
        data = _filled(pydantic_core.to_json(info), (_STATS, stats.info), (_AGENT, agent.info))
        return Snapshot(
            header,
            _filled(data, (CONTEXT_STAND_IN, context.info_without_skills)),
            self.full_state_event(status),
            _filled(data, (CONTEXT_STAND_IN, context.info)) if context.has_skills else b"",
        )

    def full_state_event(self, status: ConversationExecutionStatus) -> bytes:
        """A fresh full_state event, as JSON; under 1 MiB unless the agent itself is larger."""
        agent, context, stats = self._parts.agent(), self._parts.context(), self._parts.stats()
        value = self._dump(for_event=True) | {"execution_status": status.value}
        frame = ConversationStateUpdateEvent(key=FULL_STATE_KEY, value=value)
        data = _filled(frame.model_dump_json(exclude_none=True).encode(), (_AGENT, agent.state))
        event = _filled(data, (_STATS, stats.state), (CONTEXT_STAND_IN, context.state))
        if len(event) > _FULL_STATE_LIMIT_BYTES:
            sums = self._parts.stats_without_calls()
            event = _filled(data, (_STATS, sums), (CONTEXT_STAND_IN, context.state_without_skills))
        return event

    def _dump(self, *, for_event: bool) -> JsonObject:
        """All of the state, with stand-ins for its large parts; the contract's events have no nulls and no aliases."""
        told = self._state.model_dump(
            mode="json", exclude_none=for_event, by_alias=not for_event, exclude={"agent", "stats"}
        )
        return told | {"agent": _AGENT, "stats": _STATS}

    def _info(self, meta: Meta, status: ConversationExecutionStatus) -> JsonObject:
        state = self._state
        info = self._dump(for_event=False)
        for name in _STATE_ONLY:
            del info[name]
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
            "current_model_id": state.agent_state.get("acp_current_model_id", getattr(state.agent, "acp_model", None)),
            "available_models": state.agent_state.get("acp_available_models", []),
            "supports_runtime_model_switch": state.agent_state.get("acp_supports_runtime_model_switch", False),
            "launched_agent_profile": meta.launched_agent_profile,
            "client_tools": [tool.model_dump(mode="json") for tool in meta.client_tools],
            "tool_module_qualnames": _tool_modules(state.agent, meta),
            "runtime_info": {"runtime_status": "available", "can_resume": True, "runtime_error": None},
        }
        shown: JsonObject = null_secrets(info)
        return shown


def utc_text(moment: datetime) -> str:
    """UTC, ISO-8601 with microseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _filled(data: bytes, *parts: tuple[str, bytes]) -> bytes:
    """JSON in which each stand-in is replaced by its part."""
    for stand_in, part in parts:
        data = data.replace(f'"{stand_in}"'.encode(), part, 1)
    return data


def _tool_modules(agent: AgentBase, meta: Meta) -> dict[str, str]:
    """Where other clients import the agent's tools from: what the creator said, and what this server knows."""
    used = {tool.name for tool in agent.tools} - {tool.name for tool in meta.client_tools}
    known = {name: module for name, module in get_tool_module_qualnames().items() if name in used}
    return known | meta.tool_module_qualnames
