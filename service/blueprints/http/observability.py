"""The headers `X-OpenHands-Observability-*`: what a create may say in them instead of in its body."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json
from sanic import Request

from service.errors import InvalidRequest

_PREFIX = "x-openhands-observability-"
_METADATA = f"{_PREFIX}metadata"


def with_observability(request: Request, content: Any) -> Any:
    """The body of a create, with what only the headers say. What the body says counts; metadata is merged.

    Raises:
        InvalidRequest: the metadata is no JSON object.
    """
    if not isinstance(content, dict) or not any(name.lower().startswith(_PREFIX) for name in request.headers):
        return content
    said: dict[str, Any] = {
        "observability_span_name": request.headers.get(f"{_PREFIX}span-name"),
        "observability_parent_span_context": request.headers.get(f"{_PREFIX}parent-span-context"),
    }
    tags = request.headers.get(f"{_PREFIX}tags")
    if tags is not None:
        said["observability_tags"] = [tag.strip() for tag in tags.split(",") if tag.strip()]
    merged = {name: value for name, value in said.items() if value is not None} | content
    if _METADATA in request.headers:
        given = content.get("observability_metadata")
        merged["observability_metadata"] = _metadata(request) | (given if isinstance(given, dict) else {})
    return merged


def _metadata(request: Request) -> dict[str, Any]:
    try:
        found = from_json(request.headers[_METADATA])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("X-OpenHands-Observability-Metadata must be a JSON object")
    return found
