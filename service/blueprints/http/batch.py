"""Ids of a batch: a JSON array in the body of a GET, or, where none can be sent, repeated in the query."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError
from sanic import Request

from service.blueprints.http.arguments import invalid, invalid_value, json_body

_EVENT_IDS: TypeAdapter[list[str]] = TypeAdapter(list[str])


def event_ids(request: Request) -> list[str]:
    """In the order asked. The route says `ignore_body=False`.

    Raises:
        InvalidRequest: neither is there, or the body is no array of texts.
    """
    in_query: list[str] = request.args.getlist("event_ids", [])
    if not request.body:
        if not in_query:
            raise invalid_value("missing", ["body"], "Field required", None)
        return in_query
    try:
        return _EVENT_IDS.validate_python(json_body(request))
    except ValidationError as error:
        raise invalid(error, "body") from None
