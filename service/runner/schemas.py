"""JSON schemas of the SDK's models and of what is built from them, for the OpenAPI document of the web workers."""

from __future__ import annotations

from functools import cache

import pydantic_core
from openhands.sdk.conversation.request import SendMessageRequest, StartConversationRequest
from openhands.sdk.event import Event
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.runner.request_models import (
    AskAgentRequest,
    ConfirmationResponseRequest,
    GenerateTitleRequest,
    SetConfirmationPolicyRequest,
    SetSecurityAnalyzerRequest,
    UpdateConversationRequest,
    UpdateSecretsRequest,
)
from service.runner.wire_models import (
    AgentResponse,
    AskAgentResponse,
    ConversationInfo,
    ConversationPage,
    EventPage,
    GenerateTitleResponse,
)

REF_TEMPLATE = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (
    StartConversationRequest,
    SendMessageRequest,
    ConfirmationResponseRequest,
    SetConfirmationPolicyRequest,
    SetSecurityAnalyzerRequest,
    UpdateSecretsRequest,
    UpdateConversationRequest,
    AskAgentRequest,
    GenerateTitleRequest,
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
