"""Answers as models: what the OpenAPI document says of them. Answers themselves are made as bytes, not from these."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from openhands.sdk.agent.base import AgentBase
from openhands.sdk.conversation.conversation_stats import ConversationStats
from openhands.sdk.conversation.secret_registry import SecretRegistry
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event import Event
from openhands.sdk.hooks import HookConfig
from openhands.sdk.security.analyzer import SecurityAnalyzerBase
from openhands.sdk.security.confirmation_policy import ConfirmationPolicyBase
from openhands.sdk.tool.client_tool import ClientToolSpec
from openhands.sdk.workspace import LocalWorkspace
from pydantic import BaseModel


class RuntimeInfo(BaseModel):
    runtime_status: Literal["available", "starting", "missing", "ownership_lost", "error"]
    can_resume: bool
    runtime_error: str | None


class ConversationInfo(BaseModel):
    """Made by `service.runner.conversation.description`."""

    id: UUID
    agent: AgentBase
    workspace: LocalWorkspace
    persistence_dir: str | None
    max_iterations: int
    stuck_detection: bool
    execution_status: ConversationExecutionStatus
    confirmation_policy: ConfirmationPolicyBase
    security_analyzer: SecurityAnalyzerBase | None
    activated_knowledge_skills: list[str]
    invoked_skills: list[str]
    blocked_actions: dict[str, str]
    blocked_messages: dict[str, str]
    last_user_message_id: str | None
    leaf_event_id: str | None
    stats: ConversationStats
    secret_registry: SecretRegistry
    agent_state: dict[str, Any]
    hook_config: HookConfig | None
    title: str | None
    metrics: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    forked_from_conversation_id: UUID | None
    forked_from_event_id: str | None
    parent_conversation_id: UUID | None
    sub_conversation_ids: list[UUID]
    tags: dict[str, str]
    current_model_id: str | None
    available_models: list[dict[str, Any]]
    supports_runtime_model_switch: bool
    launched_agent_profile: dict[str, Any] | None
    client_tools: list[ClientToolSpec]
    tool_module_qualnames: dict[str, str]
    runtime_info: RuntimeInfo | None


class ConversationPage(BaseModel):
    items: list[ConversationInfo]
    next_page_id: str | None


class EventPage(BaseModel):
    items: list[Event]
    next_page_id: str | None


class AskAgentResponse(BaseModel):
    response: str


class AgentResponse(BaseModel):
    response: str


class GenerateTitleResponse(BaseModel):
    title: str
