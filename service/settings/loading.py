"""How the server comes to its settings, and the only place that reads the environment.

Lowest to highest: defaults, the JSON file, the JSON object in `OH`, single `OH_<FIELD>` variables. A list that is
given replaces the whole list of a lower source.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.settings import Settings
from service.settings.document import DocumentSource, read_document
from service.settings.environment import EnvironmentSource
from service.settings.errors import Location, SettingsError, settings_error
from service.settings.values import DEFAULT_LEASE_TTL_SECONDS, Anchored, is_zero

FILE_VARIABLE = "OPENHANDS_AGENT_SERVER_CONFIG_PATH"
DEFAULT_FILE = "workspace/openhands_agent_server_config.json"
WHOLE_VARIABLE = "OH"
SINGLE_KEY_VARIABLE = "SESSION_API_KEY"

Source = EnvironmentSource | DocumentSource


def load_settings(environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Settings:
    """The settings from `environ` and the JSON file it names; relative paths are below `cwd` (the process's if None).

    Raises:
        SettingsError: something was given that cannot be obeyed; one line that names it.
    """
    directory = cwd if cwd is not None else Path.cwd()
    environment = EnvironmentSource(environ)
    documents, notices = _documents(environ, directory)
    values: dict[str, Any] = {}
    origins: dict[str, Source] = {}
    sources: list[Source] = [*documents, environment]
    for source in sources:
        given = source.read()
        if _lists_only_empty_keys(given.get("session_api_keys")):
            key, remark = source.name(("session_api_keys",))
            notices.append(f"{key}: only empty keys, ignored{remark}")
            del given["session_api_keys"]
        values |= given
        origins |= dict.fromkeys(given, source)
    notices += [f"{name}: ignored, the list ends after {count} items" for name, count in environment.unreachable]
    _apply_single_key(values, environ)
    if not values.get("session_api_keys"):
        _refuse_unreachable_keys(environment, environ)
    if is_zero(values.get("lease_ttl_seconds")):
        notices.append(f"lease_ttl_seconds: 0 is taken for the default, {DEFAULT_LEASE_TTL_SECONDS:g}; leases stay on")
    settings = _validated(_anchored(values, directory), origins)
    settings._notices = tuple(notices)
    return settings


def hand_down(settings: Settings, **values: str | int) -> Settings:
    """`settings` with these values, which processes started from here on find in their environment.

    Raises:
        SettingsError: a value cannot be obeyed.
    """
    try:
        changed = Settings(**{name: getattr(settings, name) for name in Settings.model_fields} | values)
    except ValidationError as error:
        raise settings_error(dict(error.errors(include_url=False)[0]), lambda loc: (f"--{loc[0]}", "")) from None
    for name, value in values.items():
        os.environ[f"OH_{name.upper()}"] = str(value)
        os.environ.pop(f"OH_{name.upper()}_IS_NONE", None)  # which would be obeyed first
    return changed


def _documents(environ: Mapping[str, str], directory: Path) -> tuple[list[DocumentSource], list[str]]:
    """The JSON documents that exist, lowest first, and what is to be said about them."""
    label = environ.get(FILE_VARIABLE, "").strip() or DEFAULT_FILE
    documents, notices = [], []
    text = read_document(directory / label, label)
    if text is not None:
        documents.append(DocumentSource(label, text))
    elif label != DEFAULT_FILE:
        notices.append(f"{FILE_VARIABLE}: there is no file {label}")
    if whole := environ.get(WHOLE_VARIABLE, "").strip():
        documents.append(DocumentSource(WHOLE_VARIABLE, whole))
    return documents, [*notices, *(notice for document in documents for notice in document.notices)]


def _lists_only_empty_keys(keys: Any) -> bool:
    """Whether this is `[""]` and the like: an unset variable in somebody's template, not a wish for no keys."""
    return isinstance(keys, list) and bool(keys) and all(key == "" for key in keys)


def _apply_single_key(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Let `SESSION_API_KEY` stand in for a missing key list and a missing or blank secret key.

    The order of the secret key's stand-ins is the published server's: data on disk is encrypted under it.
    """
    key = environ.get(SINGLE_KEY_VARIABLE, "")
    if not key:
        return
    if not key.strip():
        raise SettingsError(SINGLE_KEY_VARIABLE, "expected a key, got only spaces")
    if not values.get("session_api_keys"):
        values["session_api_keys"] = [key]
    secret_key = values.get("secret_key")
    if secret_key is None or (isinstance(secret_key, str) and not secret_key.strip()):
        values["secret_key"] = key


def _refuse_unreachable_keys(environment: EnvironmentSource, environ: Mapping[str, str]) -> None:
    """Rather stop than open every route because the keys were numbered from 1."""
    for name, _ in environment.unreachable:
        if name.startswith("OH_SESSION_API_KEYS_") and environ[name]:
            raise SettingsError(name, "is never read, since keys are numbered from 0 without a gap")


def _anchored(values: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The values with every relative path, defaults included, put below `directory`."""
    anchored = dict(values)
    for name, field in Settings.model_fields.items():
        if any(isinstance(mark, Anchored) for mark in field.metadata):
            path = values.get(name, field.default)
            if isinstance(path, Path) or (isinstance(path, str) and path.strip()):
                anchored[name] = directory / path
    return anchored


def _validated(values: dict[str, Any], origins: Mapping[str, Source]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        problem = dict(error.errors(include_url=False)[0])

    def name_of(location: Location) -> tuple[str, str]:
        origin = origins.get(str(location[0]))
        return origin.name(location) if origin is not None else (SINGLE_KEY_VARIABLE, "")

    raise settings_error(problem, name_of)
