"""Bodies of requests that are validated with the SDK's models; the names are the contract's."""

from __future__ import annotations

from openhands.sdk.conversation.types import ConversationTags
from openhands.sdk.llm import LLM
from openhands.sdk.secret import SecretSource, StaticSecret
from openhands.sdk.security.analyzer import SecurityAnalyzerBase
from openhands.sdk.security.confirmation_policy import ConfirmationPolicyBase
from pydantic import BaseModel, Field, field_validator


class UpdateSecretsRequest(BaseModel):
    """Body of `POST .../secrets`; a value is a string, `{"value": ...}` or a full secret source."""

    secrets: dict[str, SecretSource]

    @field_validator("secrets", mode="before")
    @classmethod
    def _from_short_forms(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: _secret_source(given) for name, given in value.items()}


class SetConfirmationPolicyRequest(BaseModel):
    """Body of `POST .../confirmation_policy`."""

    policy: ConfirmationPolicyBase


class SetSecurityAnalyzerRequest(BaseModel):
    """Body of `POST .../security_analyzer`; the key is required, null removes the analyzer."""

    security_analyzer: SecurityAnalyzerBase | None


class ConfirmationResponseRequest(BaseModel):
    """Body of `POST .../events/respond_to_confirmation`."""

    accept: bool
    reason: str = Field(default="User rejected the action.")


class TagsRequest(BaseModel):
    """The tags that replace all others."""

    tags: ConversationTags


class UpdateConversationRequest(BaseModel):
    """Body of `PATCH /api/conversations/{id}`: what is null or absent stays."""

    title: str | None = Field(default=None, min_length=1, max_length=200)
    tags: ConversationTags | None = None

    @field_validator("title")
    @classmethod
    def _not_blank(cls, title: str | None) -> str | None:
        if title is not None and not title.strip():
            raise ValueError("title must not be blank")
        return title.strip() if title is not None else None


class AskAgentRequest(BaseModel):
    """Body of `POST .../ask_agent`."""

    question: str


class GenerateTitleRequest(BaseModel):
    """Body of `POST .../generate_title`."""

    max_length: int = Field(default=50, ge=1, le=200)
    llm: LLM | None = None


def _secret_source(given: object) -> object:
    if isinstance(given, str):
        return {"kind": StaticSecret.__name__, "value": given}
    if isinstance(given, dict) and "kind" not in given and "value" in given:
        return {"kind": StaticSecret.__name__, **given}
    return given
