"""The types of single settings: what text and JSON each accepts, and the values that settings are lists of.

Every validator here raises ValueErrors whose text is safe to print: it never quotes a value that may be a secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from service.settings.errors import shown

DEFAULT_LEASE_TTL_SECONDS = 10.0

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
_SIGNING_PREFIX = "whsec_"
_LOG_LEVEL_ALIASES = {"WARN": "WARNING", "FATAL": "CRITICAL", "TRACE": "DEBUG"}


@dataclass(frozen=True)
class Named:
    """Marks a setting that is read from these environment variables (first one set wins) instead of `OH_<FIELD>`."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Anchored:
    """Marks a path that is relative to the server's working directory."""


def parse_flag(value: Any) -> bool:
    """A yes or no in any of its spellings, in any case.

    Raises:
        ValueError: it is none of them. (The published server takes any unknown text for false.)
    """
    word = value.strip().lower() if isinstance(value, str) else str(int(value)) if value in (0, 1) else None
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"expected true or false (1, true, yes, on, 0, false, no, off or empty), got {shown(value)}")


def _parse_debug(value: Any) -> bool:
    """`DEBUG` belongs to every program in the container, so a text meant for another is no, not an error."""
    return value is True or (isinstance(value, str) and value.strip().lower() in _TRUE)


def _refuse_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, got true or false")
    return value


def _blank_as_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _blank_or_zero_as_none(value: Any) -> Any:
    return None if is_zero(value) else _blank_as_none(value)


def is_zero(value: Any) -> bool:
    """Whether a value, still as it was given, means the number 0."""
    try:
        return not isinstance(value, bool) and float(value) == 0
    except (TypeError, ValueError):
        return False


def _lease_ttl(value: Any) -> Any:
    """Without leases two runners could write one conversation, so 0 means our default."""
    return DEFAULT_LEASE_TTL_SECONDS if is_zero(value) else value


def _refuse_blank_path(value: Any) -> Any:
    if value == "":
        raise ValueError("expected a path, got empty text")
    return value


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _refuse_spaces(secret: SecretStr) -> SecretStr:
    """A key of spaces is never accepted, since header values arrive trimmed; it is a slip, not a key."""
    text = secret.get_secret_value()
    if text and not text.strip():
        raise ValueError("expected a key, got only spaces")
    return secret


def _drop_empty(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    return tuple(secret for secret in secrets if secret.get_secret_value())


def _refuse_docker(value: Any) -> Any:
    if value == "docker":
        raise ValueError("expected 'local', got 'docker': this server does not run conversations in containers")
    return value


def _log_level(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return _LOG_LEVEL_ALIASES.get(value.strip().upper(), value.strip().upper())


def _regex(pattern: str | None) -> str | None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    return pattern


def _redis_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None and not re.match(r"(rediss?|unix)://.", url.get_secret_value()):
        raise ValueError("expected a redis://, rediss:// or unix:// URL")
    return url


def _http_url(url: str) -> str:
    if not re.match(r"https?://[^/]", url):
        raise ValueError("expected an http:// or https:// URL")
    return url


def signing_key(secret: str) -> bytes:
    """The key in a secret of a webhook: standardwebhooks.com's form, else the text itself.

    Raises:
        ValueError: it has the prefix, and no base64 follows.
    """
    if not secret.startswith(_SIGNING_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_SIGNING_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"expected base64 after {_SIGNING_PREFIX}") from None


def _signing_secret(secret: SecretStr | None) -> SecretStr | None:
    if secret is None or not secret.get_secret_value():
        return None
    signing_key(secret.get_secret_value())
    return secret


def _auto_load(value: Any) -> bool | tuple[str, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError("expected true, false or a JSON list of names, got text that is not JSON") from None
    if not isinstance(value, list | tuple):
        return parse_flag(value)
    if not all(isinstance(name, str) for name in value):
        raise ValueError("expected a list of names")
    return tuple(value)


Flag = Annotated[bool, BeforeValidator(parse_flag)]
DebugFlag = Annotated[bool, BeforeValidator(_parse_debug)]
Integer = Annotated[int, BeforeValidator(_refuse_flag)]
Number = Annotated[float, BeforeValidator(_refuse_flag), Field(allow_inf_nan=False)]
LeaseSeconds = Annotated[Number, BeforeValidator(_lease_ttl)]
OptionalSeconds = Annotated[Number | None, BeforeValidator(_blank_or_zero_as_none)]
OptionalText = Annotated[str | None, BeforeValidator(_blank_as_none)]
Regex = Annotated[OptionalText, AfterValidator(_regex)]
AbsolutePath = Annotated[Path, BeforeValidator(_refuse_blank_path), AfterValidator(_absolute), Anchored()]
OptionalPath = Annotated[Path | None, BeforeValidator(_blank_as_none), AfterValidator(_absolute), Anchored()]
SecretKeys = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_refuse_spaces)], ...],
    AfterValidator(_drop_empty),
]
RedisUrl = Annotated[SecretStr | None, BeforeValidator(_blank_as_none), AfterValidator(_redis_url)]
SigningSecret = Annotated[SecretStr | None, AfterValidator(_signing_secret)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_log_level)]
LocalRuntime = Annotated[Literal["local"], BeforeValidator(_refuse_docker)]


class WebhookSpec(BaseModel):
    """One receiver of events and conversation changes."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True)

    base_url: HttpUrl = Field(
        description="Where to post; `/events/<id>` and `/conversations` are appended.", repr=False
    )
    headers: dict[str, SecretStr] = Field({}, description="Headers sent with every post. Values are secret.")
    event_buffer_size: Integer = Field(5, ge=1, description="Events that are sent at once when so many wait.")
    flush_delay: Number = Field(30.0, gt=0, description="Seconds after which fewer are sent all the same.")
    num_retries: Integer = Field(3, ge=0, description="Attempts after the first one failed.")
    retry_delay: Number = Field(5.0, ge=0, description="Seconds between two attempts.")
    max_queue_size: Integer = Field(
        1000, ge=1, description="Events of a deleted conversation that are still told; the oldest are dropped first."
    )
    max_batch_bytes: Integer = Field(5 * 1024**2, ge=1, description="Bytes of events in one post.")
    max_queue_bytes: Integer = Field(
        50 * 1024**2, ge=1, description="Bytes of events of a deleted conversation that are still told."
    )
    signing_secret: SigningSecret = Field(
        None,
        description="Signs every post as standardwebhooks.com describes; `whsec_<base64>`, or the key as text.",
    )
    dead_letter_seconds: Number = Field(
        86400.0, ge=0, description="Age of events from which on they are given up when all attempts failed."
    )


class Marketplace(BaseModel):
    """One place that plugins and skills are resolved from."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True)

    name: str = Field(description="How the marketplace is called.")
    source: str = Field(description="`github:owner/repo`, a git URL or a local path.", repr=False)
    ref: OptionalText = Field(None, description="Branch, tag or commit of a git source.")
    repo_path: OptionalText = Field(None, description="Folder of the marketplace inside the repository.")
    auto_load: Annotated[bool | tuple[str, ...], BeforeValidator(_auto_load)] = Field(
        False, description="Load everything (true), nothing (false) or the named plugins and skills at the start."
    )
