"""What a 422 body may repeat of the request that caused it.

Pure. A validation error carries the offending input, and the input of a wrong agent description carries its API
keys. Values are hidden by the name of the key they stand under, at any depth, and by the problem's own location.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from service.errors import JsonObject

REDACTED = "<redacted>"
REDACTED_SECRET = "**********"
"""What the SDK's models show of a secret; who sends it back does not mean it."""

_SECRET_WORDS = ("AUTHORIZATION", "COOKIE", "CREDENTIAL", "KEY", "PASSWORD", "SECRET", "SESSION", "TOKEN")
_SECRET_MAPPINGS = frozenset({"ENVIRONMENT", "ENV", "HEADERS"})
"""Their keys are harmless and say what was sent; each value may be a secret."""

_MAX_DEPTH = 200
"""Nesting a JSON parser lets through (pydantic-core 2.50 refuses more); keeps the recursion below Python's limit."""


def redact_problems(problems: Iterable[Mapping[str, Any]]) -> list[JsonObject]:
    """The problems as a client may see them: JSON values only, no secrets, no `url`.

    `problems` is what `pydantic.ValidationError.errors()` returns. A problem without `input` stays without it.
    """
    return [_redact_problem(problem) for problem in problems]


def redact(value: Any, depth: int = 0) -> Any:
    """`value` as JSON, with everything hidden that stands under a secret's name."""
    if depth > _MAX_DEPTH:
        return "<nested too deeply>"
    if isinstance(value, Mapping):
        return {str(name): _redact_entry(str(name), item, depth) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth + 1) for item in value]
    return _plain(value)


def _redact_problem(problem: Mapping[str, Any]) -> JsonObject:
    loc = [part if isinstance(part, int) else _text(str(part)) for part in problem["loc"]]
    clean: JsonObject = {"type": problem["type"], "loc": loc, "msg": _text(str(problem["msg"]))}
    if "input" in problem:
        clean["input"] = _redact_input(loc, problem["input"])
    if "ctx" in problem:
        clean["ctx"] = {name: redact(value) for name, value in problem["ctx"].items()}
    return clean


def _redact_input(loc: list[int | str], value: Any) -> Any:
    names = [part for part in loc if isinstance(part, str)]
    if any(_names_secret(name) for name in names):
        return REDACTED
    if any(_names_secret_mapping(name) for name in names):
        return _redact_leaves(value)
    return redact(value)


def _redact_entry(name: str, value: Any, depth: int) -> Any:
    if _names_secret(name):
        return REDACTED
    if _names_secret_mapping(name):
        return _redact_leaves(value, depth + 1)
    return redact(value, depth + 1)


def _redact_leaves(value: Any, depth: int = 0) -> Any:
    """The shape of `value` with every leaf hidden."""
    if depth <= _MAX_DEPTH and isinstance(value, Mapping):
        return {str(name): _redact_leaves(item, depth + 1) for name, item in value.items()}
    if depth <= _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_redact_leaves(item, depth + 1) for item in value]
    return REDACTED


def _names_secret(name: str) -> bool:
    upper = name.upper()
    return any(word in upper for word in _SECRET_WORDS)


def _names_secret_mapping(name: str) -> bool:
    return name.upper() in _SECRET_MAPPINGS


def _plain(value: Any) -> Any:
    """One leaf as a JSON value; what has no JSON form is named by its type, since its text could hold secrets."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Exception | UUID | date | time | Decimal | PurePath):
        return _text(str(value))
    if isinstance(value, Enum):
        return _plain(value.value)
    return f"<{type(value).__name__}>"


def _text(value: str) -> str:
    """`value` without lone surrogates, which have no UTF-8 form."""
    return value.encode("utf-8", "replace").decode("utf-8")
