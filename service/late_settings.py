"""The settings that a server with a deferred start is given by `POST /api/init`."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Any, Self

from cryptography.fernet import Fernet, InvalidToken
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from service.settings import Settings
from service.settings_values import AbsolutePath, Integer, OptionalText, SecretKeys, WebhookSpec

_NOT_SETTINGS = frozenset({"env", "telemetry"})


class SealedOtherwise(ValueError):
    """The settings were encrypted under another secret key than this process was started with."""

    def __str__(self) -> str:
        return "The configuration was encrypted under another secret key; start every process with the same one"


def _refuse_empty(keys: tuple[SecretStr, ...] | None) -> tuple[SecretStr, ...] | None:
    if keys is not None and not all(key.get_secret_value().strip() for key in keys):
        raise ValueError("session_api_keys cannot contain empty keys")
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

    @classmethod
    def unseal(cls, sealed: bytes, settings: Settings) -> Self:
        """What `seal` has sealed, by a process that was started with the same secret key.

        Raises:
            SealedOtherwise: it was another one.
        """
        cipher = _cipher(settings)
        try:
            return cls.model_validate_json(sealed if cipher is None else cipher.decrypt(sealed))
        except (InvalidToken, ValueError):
            raise SealedOtherwise from None


def seal(body: bytes, settings: Settings) -> bytes:
    """A valid JSON body as other processes may be told of it: encrypted, if this one was started with a secret key."""
    cipher = _cipher(settings)
    return body if cipher is None else cipher.encrypt(body)


def _cipher(settings: Settings) -> Fernet | None:
    if settings.cipher_key is None:
        return None
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(settings.cipher_key.encode()).digest()))
