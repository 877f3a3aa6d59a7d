"""A JSON object of settings: the configuration file, or the whole configuration in the variable `OH`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.settings import Settings
from service.settings.errors import Location, SettingsError, json_path, kind_of

PUBLISHED_ONLY = frozenset(
    {
        "conversation_container_cpus",
        "conversation_container_memory",
        "conversation_container_pids_limit",
        "conversation_container_startup_timeout",
        "conversation_image",
        "conversation_image_has_browser",
        "conversation_runtime_selectable",
        "telemetry",
    }
)
"""Keys of the published server (1.58) for features this server does not have: containers and telemetry."""


class DocumentSource:
    """The known keys of one JSON object. `label` is how its author calls it: a file name or a variable.

    Raises:
        SettingsError: the text is not a JSON object; it names `label`.
    """

    def __init__(self, label: str, text: str) -> None:
        self._label = label
        given = _parse_object(label, text)
        self._values = {name: value for name, value in given.items() if name in Settings.model_fields}
        unknown = sorted(given.keys() - self._values.keys() - PUBLISHED_ONLY)
        self.notices = [f"{key}: unknown setting, ignored (in {label})" for key in unknown]

    def read(self) -> dict[str, Any]:
        return dict(self._values)

    def name(self, location: Location) -> tuple[str, str]:
        """The JSON path of a location, and which document it is in."""
        return json_path(location), f" (in {self._label})"


def read_document(path: Path, label: str) -> str | None:
    """The text of a configuration file, or None if there is no such file.

    Raises:
        SettingsError: it is there and cannot be read as UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(label, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(label, "expected UTF-8 text") from None


def _parse_object(label: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise SettingsError(
            label, f"expected a JSON object, got text that is not JSON ({error.msg}, {place})"
        ) from None
    if not isinstance(value, dict):
        raise SettingsError(label, f"expected a JSON object, got {kind_of(value)}")
    return value
