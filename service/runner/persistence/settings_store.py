"""Settings and secrets below `persistence_dir`, in the published server's files. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

from openhands.sdk.llm.meta_profile_store import MetaProfile
from openhands.sdk.settings.model import (
    ACPAgentSettings,
    ConversationSettings,
    OpenHandsAgentSettings,
    apply_agent_settings_diff,
    default_agent_settings,
    validate_agent_settings,
)
from openhands.sdk.utils.cipher import Cipher
from pydantic import BaseModel, Field, SecretStr, ValidationError

from service.errors import Conflict, InvalidRequest, JsonObject, NotFound
from service.redaction import REDACTED_SECRET
from service.runner.persistence.stored_json import StoredJson

_SCHEMA_VERSION = 6
POINTERS = ("active_profile", "active_agent_profile_id", "active_meta_profile")

AgentSettings = OpenHandsAgentSettings | ACPAgentSettings


class CurrentSettings:
    """What the settings say, to be changed in the block that `SettingsStore.changing` gives."""

    def __init__(self, content: JsonObject, cipher: Cipher) -> None:
        self._cipher = cipher
        context = {"cipher": cipher}
        stored, conversation = content.get("agent_settings"), content.get("conversation_settings")
        try:
            self.agent: AgentSettings = (
                validate_agent_settings(stored, context=context, persisted=True) if stored else default_agent_settings()
            )
            self.conversation = ConversationSettings.from_persisted(conversation or {})
        except (ValidationError, TypeError, ValueError) as error:
            raise Conflict(f"Settings file is corrupted: {type(error).__name__}") from error
        self.pointers: dict[str, str | None] = {name: content.get(name) for name in POINTERS}
        self.misc: JsonObject = content.get("misc_settings") or {}

    def change_agent(self, diff: JsonObject) -> None:
        """Apply a JSON merge patch; what is redacted in it stays as it is.

        Raises:
            InvalidRequest: a key is unknown, or the result is not valid.
        """
        self.agent = _validated(
            lambda: apply_agent_settings_diff(
                self.agent.model_dump(mode="json", context={"expose_secrets": "plaintext"}),
                _without_redacted(diff),
                context={"cipher": self._cipher},
            )
        )
        _refuse_unknown(self.agent, diff, ["body", "agent_settings_diff"])
        if not isinstance(self.agent, OpenHandsAgentSettings):
            self.pointers["active_meta_profile"] = None

    def change_conversation(self, diff: JsonObject) -> None:
        """Merge; a null deletes inside of maps only.

        Raises:
            InvalidRequest: as `change_agent`.
        """
        merged = merge(self.conversation.model_dump(mode="json", context={"expose_secrets": "plaintext"}), diff)
        self.conversation = _validated(lambda: ConversationSettings.model_validate(merged))
        _refuse_unknown(self.conversation, diff, ["body", "conversation_settings_diff"])

    def route_by(self, name: str | None, profile: MetaProfile | None = None) -> bool:
        """Let the agent choose among LLMs by a meta-profile, or by none any more.

        False, and none is active: this agent cannot.
        """
        if not isinstance(self.agent, OpenHandsAgentSettings):
            self.pointers["active_meta_profile"] = None
            return False
        self.pointers["active_meta_profile"] = name
        self.agent = self.agent.model_copy(
            update={
                "active_meta_profile": name,
                "meta_profile": profile,
                "enable_classify_and_switch_llm_tool": name is not None,
            }
        )
        return True

    def shown(self, expose: str | None) -> JsonObject:
        """SettingsResponse; `expose`: None for redacted secrets, `encrypted` or `plaintext`."""
        context = {"expose_secrets": expose, "cipher": self._cipher} if expose else {}
        llm = getattr(self.agent, "llm", None)
        return {
            "agent_settings": self.agent.model_dump(mode="json", context=context),
            "conversation_settings": self.conversation.model_dump(mode="json", context=context),
            "llm_api_key_is_set": bool(llm and llm.api_key),
            **self.pointers,
            "misc_settings": self.misc,
        }

    def stored(self) -> JsonObject:
        shown = self.shown("encrypted")
        del shown["llm_api_key_is_set"]
        return {"schema_version": _SCHEMA_VERSION, **shown}


class _SettingsFile(TypedDict, total=False):
    schema_version: Annotated[int, Field(strict=True, le=_SCHEMA_VERSION)]


class SettingsStore:
    """`settings.json`."""

    def __init__(self, root: Path, cipher: Cipher) -> None:
        self._file = StoredJson(root, "settings", _SettingsFile, cipher)
        self._cipher = cipher

    def read(self) -> CurrentSettings:
        """The settings; their defaults when nothing is stored.

        Raises:
            Conflict: the file cannot be read.
        """
        return CurrentSettings(self._file.read(), self._cipher)

    def pointer(self, name: str) -> str | None:
        """What is active of a kind; also None where the settings cannot be read, for what there is can be."""
        try:
            return self.read().pointers[name]
        except Conflict:
            return None

    @contextmanager
    def changing(self) -> Iterator[CurrentSettings]:
        """The settings, stored at the end of the block unless it raises.

        Raises:
            Conflict, Unavailable: the file cannot be read, or is held by another.
        """
        with self._file.changing() as content:
            current = CurrentSettings(content, self._cipher)
            yield current
            content.update(current.stored())


class Secret(NamedTuple):
    """What is told of a secret."""

    name: str
    description: str | None

    def shown(self) -> JsonObject:
        return self._asdict()


class _StoredSecret(TypedDict, total=False):
    secret: str | None
    description: str | None


class _SecretsFile(TypedDict, total=False):
    custom_secrets: dict[str, _StoredSecret]


class SecretsStore:
    """`secrets.json`: `{"custom_secrets": {NAME: {name, secret, description}}}`."""

    def __init__(self, root: Path, cipher: Cipher) -> None:
        self._file = StoredJson(root, "secrets", _SecretsFile, cipher)
        self._cipher = cipher

    def all(self) -> list[Secret]:
        stored = self._file.read().get("custom_secrets", {})
        return [Secret(name, each.get("description")) for name, each in stored.items()]

    def value(self, name: str) -> str:
        """Raises NotFound when there is none of that name."""
        stored = self._file.read().get("custom_secrets", {})
        secret: str | None = stored.get(name, {}).get("secret")
        if secret is None:
            raise NotFound("Secret not found")
        return self._cipher.try_decrypt_str(secret) or secret

    def put(self, name: str, value: str, description: str | None) -> Secret:
        with self._file.changing() as content:
            encrypted = self._cipher.encrypt(SecretStr(value))
            stored = content.setdefault("custom_secrets", {})
            stored[name] = {"name": name, "secret": encrypted, "description": description}
        return Secret(name, description)

    def delete(self, name: str) -> None:
        """Raises NotFound when there is none of that name."""
        with self._file.changing() as content:
            if content.get("custom_secrets", {}).pop(name, None) is None:
                raise NotFound("Secret not found")


def merge(base: JsonObject, diff: JsonObject) -> JsonObject:
    """`base` with `diff` merged in: a null is a value at the top, and deletes below."""
    return {**base, **{key: _patched(base.get(key), value) for key, value in diff.items()}}


def _patched(base: Any, value: Any) -> Any:
    """RFC 7386."""
    if not isinstance(value, dict):
        return value
    kept = dict(base) if isinstance(base, dict) else {}
    for key, each in value.items():
        if each is None:
            kept.pop(key, None)
        else:
            kept[key] = _patched(kept.get(key), each)
    return kept


def _validated[Model](make: Callable[[], Model]) -> Model:
    try:
        return make()
    except (ValidationError, TypeError, ValueError, AttributeError):
        # The last is what the SDK's own checks raise for another type. What pydantic says would repeat secrets.
        raise InvalidRequest("Settings validation failed") from None


def _without_redacted(diff: JsonObject) -> JsonObject:
    """A client that sends back what it was shown does not mean to change it."""
    return {
        key: _without_redacted(value) if isinstance(value, dict) else value
        for key, value in diff.items()
        if value != REDACTED_SECRET
    }


def _refuse_unknown(model: Any, given: Any, loc: list[str]) -> None:
    """Raise InvalidRequest for a key that the SDK's models would drop without a word."""
    if not isinstance(given, Mapping):
        return
    if isinstance(model, BaseModel):
        if model.model_config.get("extra") == "forbid":
            return  # it has refused its own, and what it lets through below is meant, as what an MCP server answers
        for key, value in given.items():
            if key not in type(model).model_fields:
                message = "Extra inputs are not permitted"
                raise InvalidRequest([{"type": "extra_forbidden", "loc": [*loc, key], "msg": message, "input": None}])
            _refuse_unknown(getattr(model, key), value, [*loc, key])
    elif isinstance(model, Mapping):
        for key, value in given.items():
            _refuse_unknown(model.get(key), value, [*loc, key])
