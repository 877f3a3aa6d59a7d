"""Which environment variables hold secrets of the server. What agents start inherits the others."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from functools import cache
from typing import Any, get_args

from pydantic import SecretStr

from service.settings import Settings
from service.settings.environment import environment_names, shape_of
from service.settings.loading import SINGLE_KEY_VARIABLE, WHOLE_VARIABLE

_OF_THE_SDK = frozenset(
    {
        "LMNR_PROJECT_API_KEY",
        "OTEL_HEADERS",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    }
)
"""Secrets that the SDK reads for itself."""


def is_secret_variable(name: str) -> bool:
    """Whether a setting that holds a secret, or a part of one, is read from this variable."""
    return _pattern().fullmatch(name) is not None


def without_secrets() -> dict[str, str]:
    """The environment for what the server starts, with neither its own secrets nor the SDK's."""
    return {
        name: value for name, value in os.environ.items() if name not in _OF_THE_SDK and not is_secret_variable(name)
    }


def forget_secrets(environ: MutableMapping[str, str] = os.environ) -> None:
    """Take them out, once this process has its settings and if it loads none again.

    The SDK hands its own process's environment to the agents of other makers (ACP) as it is.
    """
    for name in [name for name in environ if is_secret_variable(name)]:
        del environ[name]


@cache
def _pattern() -> re.Pattern[str]:
    fields = Settings.model_fields.items()
    names = [
        name
        for field_name, field in fields
        if _holds_secret(field.annotation)
        for name in environment_names(field_name, field)
    ]
    parts = "|".join(map(re.escape, names))
    return re.compile(rf"{WHOLE_VARIABLE}|{SINGLE_KEY_VARIABLE}|(?:{parts})(?:_\d.*)?")


def _holds_secret(annotation: Any) -> bool:
    shape = shape_of(annotation)
    if shape.model is not None:
        return any(_holds_secret(field.annotation) for field in shape.model.model_fields.values())
    if shape.item is not None:
        return _holds_secret(shape.item)
    return shape.annotation is SecretStr or (shape.is_object and _holds_secret(get_args(shape.annotation)[1]))
