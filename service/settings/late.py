"""The settings that a server with a deferred start is given by `POST /api/init`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from service.errors import InvalidRequest
from service.settings import Settings
from service.settings.values import AbsolutePath, Integer, OptionalText, SecretKeys, WebhookSpec

_NOT_SETTINGS = frozenset({"env", "telemetry"})


def _refuse_empty(keys: tuple[SecretStr, ...] | None) -> tuple[SecretStr, ...] | None:
    """Raises InvalidRequest, which pydantic lets pass: clients expect one sentence."""
    if keys is not None and not all(key.get_secret_value().strip() for key in keys):
        raise InvalidRequest("session_api_keys cannot contain empty keys")
    return keys


class LateSettings(BaseModel):
    """Whatever is not given, or null, stays as the process was started with it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    session_api_keys: Annotated[tuple[SecretStr, ...] | None, AfterValidator(_refuse_empty)] = None
    secret_key: SecretStr | None = None
    previous_secret_keys: SecretKeys | None = None
    conversations_path: AbsolutePath | None = None
    bash_events_dir: AbsolutePath | None = None
    conversation_worktree_root: AbsolutePath | None = None
    webhooks: tuple[WebhookSpec, ...] | None = None
    web_url: OptionalText = None
    allow_cors_origins: tuple[str, ...] | None = None
    max_concurrent_runs: Annotated[Integer, Field(ge=1)] | None = None
    env: dict[str, str] = Field({}, description="Variables of the runners and of all that agents start.")
    telemetry: dict[str, Any] | None = Field(None, description="Accepted, and without effect: nothing is reported.")

    def over(self, settings: Settings) -> Settings:
        """`settings` with what is given here in its place."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name not in _NOT_SETTINGS}
        return settings.model_copy(update={name: value for name, value in given.items() if value is not None})
