"""JSON schemas of the SDK's models, for the OpenAPI document that web workers serve."""

from __future__ import annotations

from functools import cache

import pydantic_core
from openhands.sdk.conversation.request import SendMessageRequest, StartConversationRequest
from openhands.sdk.conversation.state import ConversationState
from openhands.sdk.event import Event
from pydantic.json_schema import models_json_schema

REF_TEMPLATE = "#/components/schemas/{model}"
_MODELS = (StartConversationRequest, SendMessageRequest, ConversationState, Event)


@cache
def sdk_schemas() -> bytes:
    """`{name: schema}` as JSON; blocking, a second of work the first time."""
    _, document = models_json_schema([(model, "validation") for model in _MODELS], ref_template=REF_TEMPLATE)
    return pydantic_core.to_json(document["$defs"])
