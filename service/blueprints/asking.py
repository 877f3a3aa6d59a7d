"""What any runner can do for a client: it is asked to, and the client gets its answer as it comes."""

from __future__ import annotations

from pydantic import BaseModel
from sanic import HTTPResponse, Request

from service.blueprints.answers import json_answer
from service.blueprints.context import web_of
from service.errors import JsonObject


async def ask_any(
    request: Request,
    operation: str,
    content: bytes | BaseModel = b"",
    *,
    arguments: JsonObject | None = None,
    timeout_seconds: float | None = None,
) -> HTTPResponse:
    """Have a runner do `operation`.

    Args:
        content: JSON, or what is sent as JSON.
        arguments: beside the content.
        timeout_seconds: by default that of ordinary requests.

    Raises:
        FanoutError: what the runner raised, or that there is none.
    """
    body = content if isinstance(content, bytes) else content.model_dump_json().encode()
    answer = await web_of(request).requester.ask(
        operation, body=body, arguments=arguments, timeout_seconds=timeout_seconds
    )
    return json_answer(answer.body, answer.status)
