"""JSON schemas of the SDK's models and of what is built from them, for the OpenAPI document of the web workers."""

from __future__ import annotations

from functools import cache

import pydantic_core
from openhands.sdk.conversation.request import (
    StartChildConversationRequest,
    StartChildConversationResponse,
    StartConversationRequest,
)
from openhands.sdk.event import Event
from openhands.sdk.settings.api_models import MCPServerPatch, SettingsResponse
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.runner.wire.answer_models import (
    AgentResponse,
    AskAgentResponse,
    ConversationInfo,
    ConversationPage,
    EventPage,
    GenerateTitleResponse,
)
from service.runner.wire.request_models import (
    AcpModelsRequest,
    AskAgentRequest,
    ConfirmationResponseRequest,
    ForkConversationRequest,
    GenerateTitleRequest,
    LlmDraft,
    LoadPluginRequest,
    NavigateRequest,
    NewMCPServer,
    NewProfile,
    PostMessageRequest,
    SetConfirmationPolicyRequest,
    SetSecurityAnalyzerRequest,
    SettingsPatch,
    StartGoalRequest,
    SwitchAcpModelRequest,
    SwitchLlmRequest,
    SwitchProfileRequest,
    UpdateConversationRequest,
    UpdateSecretsRequest,
)

REF_TEMPLATE = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (
    StartConversationRequest,
    StartChildConversationRequest,
    StartChildConversationResponse,
    PostMessageRequest,
    ConfirmationResponseRequest,
    SetConfirmationPolicyRequest,
    SetSecurityAnalyzerRequest,
    UpdateSecretsRequest,
    UpdateConversationRequest,
    AcpModelsRequest,
    AskAgentRequest,
    GenerateTitleRequest,
    ForkConversationRequest,
    NavigateRequest,
    SwitchLlmRequest,
    SwitchProfileRequest,
    SwitchAcpModelRequest,
    LoadPluginRequest,
    SettingsPatch,
    NewMCPServer,
    NewProfile,
    LlmDraft,
    MCPServerPatch,
    SettingsResponse,
    StartGoalRequest,
    ConversationInfo,
    ConversationPage,
    EventPage,
    AskAgentResponse,
    AgentResponse,
    GenerateTitleResponse,
    Event,
)
_MODE: JsonSchemaMode = "validation"


@cache
def sdk_schemas() -> bytes:
    """`{name: schema}` as JSON; blocking, a second of work the first time."""
    _, document = models_json_schema([(model, _MODE) for model in _MODELS], ref_template=REF_TEMPLATE)
    schemas = document["$defs"] | {"EventId": {"title": "EventId", "type": "string"}}
    return pydantic_core.to_json(schemas)
