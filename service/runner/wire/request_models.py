"""Bodies of requests that are validated with the SDK's models; the names are the contract's, but none twice."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from openhands.sdk.conversation import request
from openhands.sdk.conversation.types import ConversationTags
from openhands.sdk.llm import LLM
from openhands.sdk.marketplace import MarketplaceRegistration
from openhands.sdk.mcp.config import MCPServer
from openhands.sdk.secret import SecretSource, StaticSecret
from openhands.sdk.security.analyzer import SecurityAnalyzerBase
from openhands.sdk.security.confirmation_policy import ConfirmationPolicyBase
from openhands.sdk.settings.api_models import SettingsUpdateRequest
from openhands.sdk.settings.model import ACPAgentSettings
from pydantic import BaseModel, ConfigDict, Field, field_validator


class PostMessageRequest(request.SendMessageRequest):
    """Body of `POST .../events`; `sender` says which of several clients it is from.

    The SDK's own model is in the OpenAPI document as well, in the body of a create: two of one name would be neither.
    """

    sender: str | None = Field(None, min_length=1, max_length=64)
    multitask_strategy: Literal["enqueue", "interrupt", "reject"] = Field(
        "enqueue",
        description="What becomes of a message that comes while the agent is at work: it is taken in by the run "
        "(enqueue), ends it and starts another (interrupt), or is refused with 409 (reject).",
    )


class UpdateSecretsRequest(BaseModel):
    """Body of `POST .../secrets`; a value is a string, `{"value": ...}` or a full secret source."""

    secrets: dict[str, SecretSource]

    @field_validator("secrets", mode="before")
    @classmethod
    def _from_short_forms(cls, value: object) -> object:
        return _secret_sources(value)


class SetConfirmationPolicyRequest(BaseModel):
    """Body of `POST .../confirmation_policy`."""

    policy: ConfirmationPolicyBase


class SetSecurityAnalyzerRequest(BaseModel):
    """Body of `POST .../security_analyzer`; the key is required, null removes the analyzer."""

    security_analyzer: SecurityAnalyzerBase | None


class CredentialBindingRequest(BaseModel):
    """Body of `PUT .../credential-bindings/{secret_name}`: where the credential is, and how to ask for it there."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=4096)
    headers: dict[str, str] = {}

    @field_validator("headers")
    @classmethod
    def _require_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        if len(headers) > 16 or not all(0 < len(value) <= 8192 for value in headers.values()):
            raise ValueError("Invalid credential binding headers")
        return headers


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


class AcpModelsRequest(BaseModel):
    """Body of `POST /api/acp/models`."""

    agent_settings: ACPAgentSettings
    secrets: dict[str, SecretSource] = Field(default_factory=dict)
    refresh: bool = False

    @field_validator("secrets", mode="before")
    @classmethod
    def _from_short_forms(cls, value: object) -> object:
        return _secret_sources(value)


class MarketplacesRequest(BaseModel):
    """Of the body of `POST /api/skills`."""

    registered_marketplaces: list[MarketplaceRegistration]


class AskAgentRequest(BaseModel):
    """Body of `POST .../ask_agent`."""

    question: str


class GenerateTitleRequest(BaseModel):
    """Body of `POST .../generate_title`."""

    max_length: int = Field(default=50, ge=1, le=200)
    llm: LLM | None = None


class SettingsPatch(SettingsUpdateRequest):
    """Body of `PATCH /api/settings`; what the SDK's model would drop without a word is refused."""

    model_config = ConfigDict(extra="forbid")


class NewMCPServer(MCPServer):
    """Body of `POST /api/settings/mcp/{key}`; the SDK's model under a name that no other schema has."""


class NewProfile(BaseModel):
    """Body of `POST /api/profiles/{name}`."""

    llm: LLM
    include_secrets: bool = True


class LlmDraft(BaseModel):
    """Body of `POST /api/profiles/{name}/validate`."""

    llm: LLM


def _secret_sources(given: object) -> object:
    return {name: _secret_source(each) for name, each in given.items()} if isinstance(given, dict) else given


class ForkConversationRequest(BaseModel):
    """Body of `POST .../fork`, which need not have one."""

    id: UUID | None = None
    title: str | None = Field(default=None, max_length=200)
    tags: ConversationTags | None = None
    reset_metrics: bool = True
    from_event_id: str | None = None


class StartGoalRequest(BaseModel):
    """Body of `POST .../goal`."""

    objective: str
    max_iterations: int = Field(default=10, ge=1)


class SwitchLlmRequest(BaseModel):
    """Body of `POST .../switch_llm`."""

    llm: LLM


class SwitchProfileRequest(BaseModel):
    """Body of `POST .../switch_profile`: the name of an LLM profile."""

    profile_name: str


class SwitchAcpModelRequest(BaseModel):
    """Body of `POST .../switch_acp_model`: the model as the ACP server calls it."""

    model: str


class LoadPluginRequest(BaseModel):
    """Body of `POST .../load_plugin`: `name`, or `name@marketplace`."""

    plugin_ref: str


class NavigateRequest(BaseModel):
    """Body of `POST .../navigate`: the event to go on from; null, or none, for the beginning."""

    event_id: str | None = None


def _secret_source(given: object) -> object:
    if isinstance(given, str):
        return {"kind": StaticSecret.__name__, "value": given}
    if isinstance(given, dict) and "kind" not in given and "value" in given:
        return {"kind": StaticSecret.__name__, **given}
    return given
