"""Arguments out of requests: what is taken, and how a 422 says what is wrong."""

from __future__ import annotations

from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, ValidationError
from sanic import Request
from sanic.compat import Header

from service.blueprints.http.arguments import body, idempotency, json_body, json_bytes, query, text_path, uuid_path
from service.errors import BadRequest, InvalidRequest, JsonObject

ID = "01234567-89ab-cdef-0123-456789abcdef"


class Order(Enum):
    UP = "UP"
    DOWN = "DOWN"


class Search(BaseModel):
    limit: int = Field(100, gt=0, le=100)
    order: Order = Order.UP
    since: str | None = Field(None, alias="timestamp__gte")
    ids: list[UUID]


class Optional(BaseModel):
    ids: list[str] | None = None
    deep: bool = False


class Thing(BaseModel):
    name: str
    size: int = 0


def request(url: str = "/", content: bytes = b"", content_type: str | None = "application/json") -> Request:
    """A request as handlers see it, without a connection."""
    headers = Header({} if content_type is None else {"content-type": content_type})
    made: Request = Request(url.encode(), headers, "1.1", "GET", None, None)  # type: ignore[arg-type]
    made.body = content
    return made


def problems(error: InvalidRequest) -> list[JsonObject]:
    assert isinstance(error.problems, list)
    return error.problems


def refused_query(url: str, model: type[BaseModel] = Search) -> list[JsonObject]:
    with pytest.raises(InvalidRequest) as refused:
        query(request(url), model)
    return problems(refused.value)


def refused_body(content: bytes, content_type: str | None = "application/json") -> JsonObject:
    with pytest.raises(InvalidRequest) as refused:
        body(request(content=content, content_type=content_type), Thing)
    (only,) = problems(refused.value)
    return only


# --- query ----------------------------------------------------------------------------------------------------------


def test_query_is_read_by_name_and_alias_with_the_last_scalar_and_every_list_item() -> None:
    found = query(request(f"/?limit=1&limit=2&timestamp__gte=t%20u&ids={ID}&ids={'0' * 32}&more=1"), Search)
    assert (found.limit, found.since, found.ids) == (2, "t u", [UUID(ID), UUID(int=0)])


def test_optional_list_takes_every_value() -> None:
    assert query(request("/?ids=a&ids=&deep=true"), Optional) == Optional(ids=["a", ""], deep=True)
    assert query(request("/"), Optional) == Optional()


def test_missing_query_value_shows_no_input() -> None:
    assert refused_query("/") == [
        {"type": "missing", "loc": ["query", "ids"], "msg": "Field required", "input": None},
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            f"/?ids={ID}&limit=101",
            {
                "type": "less_than_equal",
                "loc": ["query", "limit"],
                "msg": "Input should be less than or equal to 100",
                "input": "101",
                "ctx": {"le": 100},
            },
        ),
        (
            f"/?ids={ID}&limit=",
            {
                "type": "int_parsing",
                "loc": ["query", "limit"],
                "msg": "Input should be a valid integer, unable to parse string as an integer",
                "input": "",
            },
        ),
        (
            f"/?ids={ID}&order=q",
            {
                "type": "enum",
                "loc": ["query", "order"],
                "msg": "Input should be 'UP' or 'DOWN'",
                "input": "q",
                "ctx": {"expected": "'UP' or 'DOWN'"},
            },
        ),
        (
            "/?ids=",
            {
                "type": "uuid_parsing",
                "loc": ["query", "ids", 0],
                "msg": "Input should be a valid UUID, invalid length: found 0",
                "input": "",
                "ctx": {"error": "invalid length: found 0"},
            },
        ),
    ],
)
def test_query_problem_has_the_contract_shape(url: str, expected: JsonObject) -> None:
    assert refused_query(url) == [expected]


def test_blank_flag_is_a_problem_and_not_false() -> None:
    assert refused_query("/?deep=", Optional)[0]["type"] == "bool_parsing"


# --- path -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["abc", "x1", "", "1\n"])
def test_text_that_does_not_match_has_the_problem_that_a_model_would_find(text: str) -> None:
    class Model(BaseModel):
        digits: str = Field(pattern="^[0-9]+$")

    assert text_path("12", "digits", "^[0-9]+$") == "12"
    with pytest.raises(InvalidRequest) as refused:
        text_path(text, "digits", "^[0-9]+$")
    with pytest.raises(ValidationError) as expected:
        Model(digits=text)
    assert problems(refused.value) == [
        {**found, "loc": ["path", *found["loc"]]} for found in expected.value.errors(include_url=False)
    ]


@pytest.mark.parametrize(
    "text",
    [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"],
)
def test_uuid_is_read_in_every_form(text: str) -> None:
    assert uuid_path(text) == UUID(ID)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("notauuid", "invalid character: found `n` at 0"),
        ("0123", "invalid length: found 4"),
        ("é", "invalid character: found `é` at 0"),
        (" ", "invalid character: found ` ` at 0"),
    ],
)
def test_bad_uuid_names_the_parameter(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        uuid_path(text, "runtime_conversation_id")
    assert problems(refused.value) == [
        {
            "type": "uuid_parsing",
            "loc": ["path", "runtime_conversation_id"],
            "msg": f"Input should be a valid UUID, {reason}",
            "input": text,
            "ctx": {"error": reason},
        }
    ]


# --- body -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "APPLICATION/JSON ; charset=utf-8",
        "application/vnd.x+json",
        "application/problem+json; charset=utf-8",
    ],
)
def test_body_is_read_under_every_json_content_type(content_type: str | None) -> None:
    assert body(request(content=b'{"name":"a","more":1}', content_type=content_type), Thing) == Thing(name="a")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "text/x+json", "multipart/form-data"],
)
def test_body_under_another_content_type_is_refused_and_not_repeated(content_type: str) -> None:
    found = refused_body(b'{"name":"sk-1"}', content_type)
    assert (found["type"], found["loc"], found["input"]) == ("dict_type", ["body"], f"<{content_type}>")
    assert "application/json" in found["msg"]


def test_empty_body_is_missing() -> None:
    assert refused_body(b"") == {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}
    assert refused_body(b"", "text/plain")["type"] == "missing"


@pytest.mark.parametrize(
    ("content", "position", "reason"),
    [
        (b"{", 1, "Expecting property name enclosed in double quotes"),
        (b"[[1", 3, "Expecting ',' delimiter"),
        (b"{} x", 3, "Extra data"),
        (b" ", 1, "Expecting value"),
    ],
)
def test_broken_json_says_where_and_why(content: bytes, position: int, reason: str) -> None:
    assert refused_body(content) == {
        "type": "json_invalid",
        "loc": ["body", position],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }


@pytest.mark.parametrize(("content", "value"), [(b"[1]", [1]), (b"null", None), (b'"x"', "x"), (b"5", 5)])
def test_body_that_is_no_object_is_named(content: bytes, value: Any) -> None:
    assert refused_body(content) == {
        "type": "model_attributes_type",
        "loc": ["body"],
        "msg": "Input should be a valid dictionary or object to extract fields from",
        "input": value,
    }


def test_body_problem_is_located_below_body() -> None:
    assert refused_body(b'{"size":1}') == {
        "type": "missing",
        "loc": ["body", "name"],
        "msg": "Field required",
        "input": {"size": 1},
    }


@pytest.mark.parametrize("content", [b'{"name":"\xff"}', b"[" * 100_000 + b"]" * 100_000, b"[" * 100_000])
def test_body_no_parser_survives_is_a_bad_request(content: bytes) -> None:
    with pytest.raises(BadRequest):
        json_body(request(content=content))


@pytest.mark.parametrize("content", [b'{"name":"\\ud800"}', b"[" * 300 + b"]" * 300, '{"a":1}'.encode("utf-16")])
def test_body_only_a_lenient_parser_takes_is_refused(content: bytes) -> None:
    assert refused_body(content)["type"] == "json_invalid"


def test_byte_order_mark_is_not_part_of_the_body() -> None:
    assert json_bytes(request(content=b"\xef\xbb\xbf[]")) == b"[]"
    assert json_body(request(content=b"\xef\xbb\xbf[]")) == []


def test_body_that_is_not_required_may_be_absent_but_not_wrong() -> None:
    assert json_body(request(), required=False) is None
    with pytest.raises(InvalidRequest):
        json_body(request(content=b"{"), required=False)


# --- Idempotency-Key ------------------------------------------------------------------------------------------------


def with_key(key: str) -> Request:
    made = request()
    made.headers["Idempotency-Key"] = key
    return made


@pytest.mark.parametrize("key", ["k" * 256, "\udcff"], ids=["too long", "no text"])
def test_key_that_is_none_is_refused(key: str) -> None:
    """Before anything happens; what is no UTF-8 on the wire is a lone surrogate here."""
    with pytest.raises(InvalidRequest):
        idempotency(with_key(key))


def test_key_is_an_argument() -> None:
    assert idempotency(with_key("ä-1")) == {"idempotency_key": "ä-1"}
    assert idempotency(request()) == {}
