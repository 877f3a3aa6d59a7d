"""JSON Schemas gathered from several sources into the one `components.schemas` of an OpenAPI document. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.errors import JsonObject

REF_TEMPLATE = "#/components/schemas/{model}"

_REF_PREFIX = REF_TEMPLATE.format(model="")
_LOCAL_PREFIX = "#/$defs/"

ERROR_SCHEMAS: Mapping[str, JsonObject] = {
    "ErrorDetail": {
        "title": "ErrorDetail",
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {"description": "What is wrong: a sentence, or an object with more."},
            "exception": {"type": "string", "description": "With 5xx: the reason once more, or the exception's text."},
            "error_id": {"type": "string", "description": "With an unexpected 500: finds the traceback in the log."},
        },
    },
    "HTTPValidationError": {
        "title": "HTTPValidationError",
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {
                "anyOf": [
                    {"type": "array", "items": {"$ref": f"{_REF_PREFIX}ValidationError"}},
                    {"type": "string"},
                    {"type": "object", "description": "A code and a message, where a route says so."},
                ]
            }
        },
    },
    "ValidationError": {
        "title": "ValidationError",
        "type": "object",
        "required": ["type", "loc", "msg"],
        "properties": {
            "type": {"type": "string"},
            "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            "msg": {"type": "string"},
            "input": {},
            "ctx": {"type": "object"},
        },
    },
}


def hoisted(schemas: Mapping[str, JsonObject]) -> dict[str, JsonObject]:
    """The schemas with their `$defs` moved up beside them and every reference pointing there."""
    flat: dict[str, JsonObject] = {}
    for name, schema in schemas.items():
        for inner_name, inner in schema.get("$defs", {}).items():
            flat.setdefault(inner_name, _repointed(inner))
        flat[name] = _repointed({key: value for key, value in schema.items() if key != "$defs"})
    return flat


def complete(schemas: Mapping[str, JsonObject], paths: JsonObject) -> dict[str, JsonObject]:
    """The schemas, and an open object for each name that is referred to and not among them.

    Before the first runner is up none of the SDK's schemas is known; the document is valid all the same.
    """
    wanted = set(_referenced(paths)) | set(_referenced(schemas))
    missing = sorted(wanted - schemas.keys())
    return {**schemas, **{name: {"title": name, "type": "object"} for name in missing}}


def _repointed(node: Any) -> Any:
    if isinstance(node, dict):
        # The SDK's unions map names of pydantic's own; without a mapping the schemas' names count, which are the kinds.
        # What it calls write-only is in answers too, masked.
        dropped = {"mapping"} if "propertyName" in node else {"writeOnly"}
        return {key: _repointed(value) for key, value in node.items() if key not in dropped}
    if isinstance(node, list):
        return [_repointed(item) for item in node]
    if isinstance(node, str) and node.startswith(_LOCAL_PREFIX):
        return f"{_REF_PREFIX}{node.removeprefix(_LOCAL_PREFIX)}"
    return node


def _referenced(node: Any) -> Iterator[str]:
    """The names that `$ref` and discriminator mappings anywhere in `node` point to."""
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _referenced(value)
    elif isinstance(node, list):
        for item in node:
            yield from _referenced(item)
    elif isinstance(node, str) and node.startswith(_REF_PREFIX):
        yield node.removeprefix(_REF_PREFIX)
