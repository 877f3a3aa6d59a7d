"""Questions that any runner can answer, and the answer as it comes."""

from __future__ import annotations

from collections.abc import Mapping

from sanic import HTTPResponse, Request

from service.blueprints.answers import json_answer
from service.blueprints.context import web_of


async def ask_any(
    request: Request,
    operation: str,
    content: bytes = b"",
    *,
    arguments: Mapping[str, str] | None = None,
    status: int = 200,
    timeout_seconds: float | None = None,
) -> HTTPResponse:
    """Have a runner do `operation` with the JSON `content`.

    Args:
        arguments: beside the content.
        status: of the answer.
        timeout_seconds: by default that of ordinary requests.

    Raises:
        FanoutError: what the runner raised, or that there is none.
    """
    answer = await web_of(request).requester.ask(
        operation, body=content, arguments=dict(arguments or {}), timeout_seconds=timeout_seconds
    )
    return json_answer(answer.body, status)
