"""What a 422 body repeats of a request."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError, field_validator

from service.redaction import REDACTED, redact, redact_problems

SECRET_NAMES = [
    "Authorization",
    "set-cookie",
    "aws_credentials",
    "api_key",
    "Bad-Key",
    "PASSWORD",
    "client_secret",
    "session",
    "max_tokens",
]


def problem(*loc: str | int, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "string_type", "loc": loc, "msg": "Input should be a valid string", "input": value, **more}


def redacted(*loc: str | int, value: Any) -> Any:
    """The `input` that is left of `value`."""
    return redact_problems([problem(*loc, value=value)])[0]["input"]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_value_under_a_secret_name_is_hidden_at_any_depth(name: str) -> None:
    value = {"plain": 1, "list": [{"deep": {name: {"whatever": "sk-1"}}}]}
    assert redacted("body", "agent", value=value) == {"plain": 1, "list": [{"deep": {name: REDACTED}}]}


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize("rest", [(), (0,), ("function-plain[check()]",), ("NAME", "value")])
def test_input_is_hidden_when_the_problem_lies_at_or_below_a_secret_name(name: str, rest: tuple[Any, ...]) -> None:
    assert redacted("body", "llm", name, *rest, value=["sk-1"]) == REDACTED


@pytest.mark.parametrize("name", ["environment", "env", "headers", "Env"])
def test_values_of_an_environment_are_hidden_and_its_names_are_shown(name: str) -> None:
    value = {name: {"A": "1", "B": {"c": [1, {"d": None}]}}}
    hidden = {"A": REDACTED, "B": {"c": [REDACTED, {"d": REDACTED}]}}
    assert redacted("body", value=value) == {name: hidden}
    assert redacted("body", name, value=value[name]) == hidden
    assert redacted("body", name, "A", value=5) == REDACTED


@pytest.mark.parametrize("name", ["environmental", "header", "envelope", "name", "content"])
def test_other_names_are_repeated(name: str) -> None:
    assert redacted("body", name, value={name: ["a", 1, None, True]}) == {name: ["a", 1, None, True]}


def test_url_is_dropped_and_the_rest_kept() -> None:
    (clean,) = redact_problems([problem("body", "name", value=5, url="https://errors.example", ctx={"le": 100})])
    assert clean == {
        "type": "string_type",
        "loc": ["body", "name"],
        "msg": "Input should be a valid string",
        "input": 5,
        "ctx": {"le": 100},
    }


def test_problem_without_input_stays_without() -> None:
    (clean,) = redact_problems([{"type": "missing", "loc": ("body",), "msg": "Field required"}])
    assert "input" not in clean


def test_error_of_a_validator_becomes_its_message() -> None:
    class Model(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def refuse(cls, name: str) -> str:
            raise ValueError(f"{len(name)} characters")

    with pytest.raises(ValidationError) as refused:
        Model(name="abc")
    (clean,) = redact_problems(refused.value.errors(include_url=False))
    assert clean["ctx"] == {"error": "3 characters"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a/b"), "a/b"),
        (Decimal("1.5"), "1.5"),
        (math.inf, "inf"),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({1: "a"}, {"1": "a"}),
        ("\ud800", "?"),
        (b"sk-1", "<bytes>"),
        (SecretStr("sk-1"), "<SecretStr>"),
        (object(), "<object>"),
    ],
)
def test_what_is_no_json_is_shown_without_its_content(value: Any, shown: Any) -> None:
    assert redacted("body", value=value) == shown


def test_deep_nesting_ends_before_the_interpreter_does() -> None:
    value: Any = "bottom"
    for _ in range(5000):
        value = [value]
    text = json.dumps(redacted("body", value=value))
    assert "nested too deeply" in text
    assert REDACTED in json.dumps(redacted("body", "env", value=value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)) | st.integers(), inner),
    max_leaves=20,
)


@given(JSON)
def test_result_is_always_json_in_utf_8(value: Any) -> None:
    json.dumps(redact(value), allow_nan=False).encode()


@given(st.recursive(st.just("sk-1"), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_nothing_below_a_secret_name_survives(value: Any) -> None:
    assert "sk-1" not in json.dumps(redact({"a": [{"My-Secret": value, "env": {"x": value}}]}))
