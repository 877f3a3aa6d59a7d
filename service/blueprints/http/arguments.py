"""Typed arguments out of a request; what does not validate is a 422 in the contract's shape.

A `loc` starts with `query`, `path` or `body`, as the published server's does, and secrets in `input` are redacted.

Sanic reads no body for GET and DELETE unless the route says `ignore_body=False`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json
from sanic import Request

from service.errors import BadRequest, InvalidRequest, JsonObject
from service.redaction import redact_problems

_UUID: TypeAdapter[UUID] = TypeAdapter(UUID)
_EVENT_IDS: TypeAdapter[list[str]] = TypeAdapter(list[str])
_IDEMPOTENCY_HEADER = "idempotency-key"
_MAX_KEY_LENGTH = 255
_EXPOSE_HEADER = "X-Expose-Secrets"
_EXPOSURES = {"encrypted": "encrypted", "true": "encrypted", "plaintext": "plaintext"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class IncludeSkills(BaseModel):
    """Query of what answers with a conversation: whether with the skills of its agent."""

    include_skills: bool = False


def query[Model: BaseModel](request: Request, model: type[Model]) -> Model:
    """The query string as `model`. Unknown names are ignored; of a repeated scalar the last value counts.

    Raises:
        InvalidRequest: a value is missing or wrong.
    """
    given = request.get_args(keep_blank_values=True)
    values: JsonObject = {}
    for name, is_list in _query_names(model).items():
        texts = given.getlist(name)
        if texts:
            values[name] = texts if is_list else texts[-1]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error, "query") from None


def body[Model: BaseModel](request: Request, model: type[Model]) -> Model:
    """The JSON body as `model`.

    Raises:
        InvalidRequest: no body, no JSON, or not of this shape.
        BadRequest: the body is not UTF-8, or is nested too deeply to be parsed.
    """
    value = json_body(request)
    try:
        # from_attributes only changes the wording for a body that is no object, to the published server's.
        return model.model_validate(value, from_attributes=True)
    except ValidationError as error:
        raise invalid(error, "body") from None


def uuid_path(text: str, name: str = "conversation_id") -> UUID:
    """A UUID out of the path: dashed, undashed, upper case, `{braced}` or `urn:uuid:`.

    Routes take it as `<name:str>`: Sanic's own `uuid` type answers 404 where the contract wants 422.

    Raises:
        InvalidRequest: `text` is none of these.
    """
    try:
        return _UUID.validate_python(text)
    except ValidationError as error:
        raise invalid(error, "path", name) from None


def text_path(text: str, name: str, pattern: str) -> str:
    """A text out of the path, as it is.

    Raises:
        InvalidRequest: not all of it matches `pattern`.
    """
    if not re.fullmatch(pattern, text):
        message = f"String should match pattern '{pattern}'"
        raise invalid_value("string_pattern_mismatch", ["path", name], message, text, pattern=pattern)
    return text


def json_body(request: Request, *, required: bool = True) -> Any:
    """The parsed JSON body; None when it is empty and not `required`.

    Raises:
        InvalidRequest: it is required and empty, of another content type, or not JSON.
        BadRequest: it is not UTF-8, or is nested too deeply to be parsed.
    """
    if not request.body and not required:
        return None
    content = json_bytes(request)
    try:
        return from_json(content)
    except ValueError as error:
        raise _unparsable(content, str(error)) from None


def checked_json(request: Request, *, required: bool = True) -> bytes:
    """The JSON body as it came, once it was found to parse; empty when it is empty and not `required`.

    Raises:
        As `json_body` does.
    """
    json_body(request, required=required)
    return bytes(request.body).removeprefix(_BYTE_ORDER_MARK)


def json_bytes(request: Request) -> bytes:
    """The body, unparsed, once its content type has been found to promise JSON.

    Raises:
        InvalidRequest: it is empty or of another content type.
    """
    if not request.body:
        raise invalid_value("missing", ["body"], "Field required", None)
    content_type = request.headers.getone("content-type", "")
    if not _is_json(content_type):
        # The body is not repeated: in a text nothing tells a secret from the rest.
        wanted = "a JSON document sent as application/json"
        raise invalid_value("dict_type", ["body"], f"Input should be {wanted}", f"<{content_type}>")
    return bytes(request.body).removeprefix(_BYTE_ORDER_MARK)


def event_ids(request: Request) -> list[str]:
    """A batch of ids, in the order asked: a JSON array in the body of a GET, or, where none can be sent, in the query.

    Raises:
        InvalidRequest: neither is there, or the body is no array of texts.
    """
    in_query: list[str] = request.args.getlist("event_ids", [])
    if in_query and not request.body:
        return in_query
    try:
        return _EVENT_IDS.validate_python(json_body(request))
    except ValidationError as error:
        raise invalid(error, "body") from None


def idempotency(request: Request) -> JsonObject:
    """The `Idempotency-Key` header as a request's argument; a repetition with the same key has no second effect.

    Raises:
        InvalidRequest: longer than a key may be, or no text.
    """
    key = request.headers.getone(_IDEMPOTENCY_HEADER, None)
    if key is None:
        return {}
    if len(key) > _MAX_KEY_LENGTH:
        raise invalid_value(
            "string_too_long", ["header", _IDEMPOTENCY_HEADER], f"At most {_MAX_KEY_LENGTH} characters", "<key>"
        )
    try:
        key.encode()
    except UnicodeEncodeError:
        raise invalid_value("string_unicode", ["header", _IDEMPOTENCY_HEADER], "Not UTF-8", "<key>") from None
    return {"idempotency_key": key}


def exposure(request: Request) -> JsonObject:
    """The header that asks for secrets as a request's argument; nothing when it is absent.

    Raises:
        BadRequest: the header says something else.
    """
    given = request.headers.get(_EXPOSE_HEADER, "").strip()
    if not given:
        return {}
    mode = _EXPOSURES.get(given.lower())
    if mode is None:
        raise BadRequest(f"Invalid {_EXPOSE_HEADER} header value: it is 'encrypted' or 'plaintext'")
    return {"expose": mode}


def invalid(error: ValidationError, *loc: str) -> InvalidRequest:
    """The 422 for `error`, with `loc` put before each problem's own location."""
    problems: list[Mapping[str, Any]] = []
    for found in error.errors(include_url=False):
        shown: JsonObject = {**found, "loc": (*loc, *found["loc"])}
        if found["type"] == "missing" and loc[0] == "query":
            shown["input"] = None
        problems.append(shown)
    return InvalidRequest(redact_problems(problems))


def invalid_value(kind: str, loc: Sequence[str | int], message: str, value: Any, **context: Any) -> InvalidRequest:
    """A 422 with one problem of our own making."""
    found: JsonObject = {"type": kind, "loc": loc, "msg": message, "input": value}
    if context:
        found["ctx"] = context
    return InvalidRequest(redact_problems([found]))


def _unparsable(content: bytes, reason: str) -> InvalidRequest | BadRequest:
    """Why `content` is no JSON, in the standard library's words, which clients of the published server know."""
    try:
        json.loads(content)
    except json.JSONDecodeError as error:
        return invalid_value("json_invalid", ["body", error.pos], "JSON decode error", {}, error=error.msg)
    except UnicodeDecodeError:
        return BadRequest("The body is not valid UTF-8")
    except RecursionError:
        return BadRequest("The body is nested too deeply")
    except ValueError:
        pass  # a number of more digits than the interpreter converts
    # The stricter parser is right: lone surrogates, UTF-16, or nesting that the validators would not survive.
    return invalid_value("json_invalid", ["body", 0], "JSON decode error", {}, error=reason)


def _is_json(content_type: str) -> bool:
    essence = content_type.partition(";")[0].strip().lower()
    return essence in ("", "application/json") or (essence.startswith("application/") and essence.endswith("+json"))


@cache
def _query_names(model: type[BaseModel]) -> dict[str, bool]:
    """Each query name the model knows, and whether it takes every value given."""
    return {field.alias or name: _takes_many(field.annotation) for name, field in model.model_fields.items()}


def _takes_many(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(_takes_many(option) for option in get_args(annotation))
    return origin in (list, set, frozenset, tuple)
