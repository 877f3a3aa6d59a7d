"""The parts of a conversation's state that are large and seldom change, as JSON that is made once.

An agent has every setting of its LLMs, and its context all its skills, often hundreds of KB; the statistics have an
entry for each LLM call. All are in every description of the conversation, and one is made for every message.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

import pydantic_core
from openhands.sdk import LLM, AgentContext
from openhands.sdk.agent.base import AgentBase
from openhands.sdk.conversation.state import ConversationState
from openhands.sdk.llm.utils.metrics import Metrics

from service.runner.conversation.null_secrets import null_secrets

CONTEXT_STAND_IN = secrets.token_hex(16)
"""For the context in an agent's JSON."""


class PartJson(NamedTuple):
    """As answers and as frames have it."""

    info: bytes
    state: bytes


class ContextJson(NamedTuple):
    """An agent's context, as answers and as frames have it."""

    has_skills: bool
    info: bytes
    info_without_skills: bytes
    state: bytes
    state_without_skills: bytes


class LargeParts:
    """Of one conversation."""

    def __init__(self, state: ConversationState) -> None:
        self._state = state
        self._agent: AgentBase | None = None
        self._llms: list[LLM] = []
        self._llm_fields: list[dict[str, Any]] = []
        self._agent_json = PartJson(b"", b"")
        self._context: AgentContext | None = None
        self._context_json = _context_json(None)
        self._calls: list[_Calls] | None = None
        self._stats_json = PartJson(b"", b"")

    def agent(self) -> PartJson:
        """With a stand-in for its context.

        The SDK replaces an agent and never changes one; to set a field of one of its LLMs nothing forbids.
        """
        agent = self._state.agent
        if agent is not self._agent or [vars(llm) for llm in self._llms] != self._llm_fields:
            llms = list(agent.get_all_llms())
            fields = [dict(vars(llm)) for llm in llms]
            self._agent_json = _agent_json(agent)
            self._agent, self._llms, self._llm_fields = agent, llms, fields
        return self._agent_json

    def context(self) -> ContextJson:
        """The SDK replaces a context, and never changes one."""
        context = self._state.agent.agent_context
        if context is not self._context:
            self._context, self._context_json = context, _context_json(context)
        return self._context_json

    def stats(self) -> PartJson:
        """Raises RuntimeError where another thread adds a metric meanwhile."""
        stats = self._state.stats
        calls = [_Calls.of(*each) for each in stats.usage_to_metrics.items()]
        if calls != self._calls:
            dumped = PartJson(
                stats.model_dump_json().encode(),
                stats.model_dump_json(exclude_none=True).encode(),
            )
            self._calls, self._stats_json = calls, dumped
        return self._stats_json

    def stats_without_calls(self) -> bytes:
        """The sums only."""
        return self._state.stats.model_dump_json(context={"use_snapshot": True}).encode()


class _Calls(NamedTuple):
    """What tells whether a metric has changed: each call adds to its lists."""

    usage_id: str
    model_name: str
    costs: int
    token_usages: int
    latencies: int
    cost: float
    budget: float | None

    @classmethod
    def of(cls, usage_id: str, metrics: Metrics) -> _Calls:
        return cls(
            usage_id,
            metrics.model_name,
            len(metrics.costs),
            len(metrics.token_usages),
            len(metrics.response_latencies),
            metrics.accumulated_cost,
            metrics.max_budget_per_task,
        )


def _agent_json(agent: AgentBase) -> PartJson:
    info = null_secrets(agent.model_dump(mode="json", exclude={"agent_context"}))
    state = agent.model_dump(mode="json", exclude_none=True, exclude={"agent_context"})
    info["agent_context"] = CONTEXT_STAND_IN
    if agent.agent_context is not None:
        state["agent_context"] = CONTEXT_STAND_IN
    return PartJson(pydantic_core.to_json(info), pydantic_core.to_json(state))


def _context_json(context: AgentContext | None) -> ContextJson:
    if context is None:
        return ContextJson(False, b"null", b"null", b"null", b"null")
    info = null_secrets(context.model_dump(mode="json"))
    state = context.model_dump(mode="json", exclude_none=True)
    forms = (info, info | {"skills": []}, state, state | {"skills": []})
    return ContextJson(bool(context.skills), *map(pydantic_core.to_json, forms))
