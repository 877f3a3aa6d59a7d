"""What a start is stopped with when a setting is wrong, and its wording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Location = tuple[int | str, ...]
"""Where a value stands in the settings, as pydantic reports it: `("webhooks", 0, "flush_delay")`."""

_EXPECTED = {
    "int_parsing": "expected an integer",
    "int_parsing_size": "expected a smaller integer",
    "int_type": "expected an integer",
    "int_from_float": "expected an integer",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "greater_than": "expected more than {gt:g}",
    "greater_than_equal": "expected {ge:g} or more",
    "less_than": "expected less than {lt:g}",
    "less_than_equal": "expected {le:g} or less",
    "literal_error": "expected {expected}",
}
"""Errors whose input is a number or one of a few words, so that showing it can give no secret away."""

_EXPECTED_KIND = {
    "string_type": "expected text",
    "path_type": "expected a path",
    "tuple_type": "expected a list",
    "dict_type": "expected an object",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
}

_SHOWN_CHARACTERS = 60


class SettingsError(ValueError):
    """One setting is wrong and the server must not start.

    `key`: the variable, file key or file as its author wrote it. `reason`: one line without any secret value.
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return " ".join(f"{self.key}: {self.reason}".split())


def kind_of(value: Any) -> str:
    """The JSON kind of a value, for texts that must not show the value itself."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", dict: "an object", list: "a list"}
    return names.get(type(value), "something else")


def shown(value: Any) -> str:
    """A harmless value as it may stand in a message: short, quoted, on one line."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…")
    return repr(value) if type(value) in (int, float) else kind_of(value)


def reason_of(problem: dict[str, Any]) -> str:
    """One entry of pydantic's `ValidationError.errors()` in words.

    The input is shown for numbers and fixed words only; of anything else, which may be or hold a secret, its kind.
    """
    code, context = problem["type"], problem.get("ctx", {})
    if code == "missing":
        return "is missing"
    if code == "value_error":
        return str(context["error"])
    if code in _EXPECTED:
        return f"{_EXPECTED[code].format_map(context)}, got {shown(problem['input'])}"
    if code in _EXPECTED_KIND:
        return f"{_EXPECTED_KIND[code]}, got {kind_of(problem['input'])}"
    return str(problem["msg"])


def json_path(location: Location) -> str:
    """`webhooks[0].flush_delay` for `("webhooks", 0, "flush_delay")`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def settings_error(problem: dict[str, Any], name: Callable[[Location], tuple[str, str]]) -> SettingsError:
    """The error for one pydantic problem; `name` gives the key as written and a remark on where, or ''."""
    key, remark = name(problem["loc"])
    return SettingsError(key, reason_of(problem) + remark)
