"""What runners do for a client: any of them, or a conversation's owner. The client gets the answer as it comes."""

from __future__ import annotations

from pydantic import BaseModel
from sanic import HTTPResponse, Request

from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import uuid_path
from service.blueprints.http.context import web_of
from service.errors import ConversationNotFound, JsonObject, NotFound

LLM_SECONDS = 600.0
"""For an answer that an LLM must give first; the SDK's client waits as long."""
NETWORK_SECONDS = 300.0
"""For what may have to be fetched first."""


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


async def ask_owner(
    request: Request,
    operation: str,
    conversation_id: str,
    *,
    body: bytes = b"",
    arguments: JsonObject | None = None,
    timeout_seconds: float | None = None,
    missing: str = "Not Found",
) -> HTTPResponse:
    """Have the conversation's owner do `operation`.

    Args:
        body: JSON.
        arguments: beside the body.
        timeout_seconds: by default that of ordinary requests.
        missing: the contract's text for an unknown conversation on this route.

    Raises:
        NotFound: there is no such conversation.
        FanoutError: what the owner raised, or that it cannot be asked now.
    """
    web = web_of(request)
    wanted = uuid_path(conversation_id)
    try:
        web.require(wanted)
        answer = await web.requester.ask(
            operation, wanted, body=body, arguments=arguments, timeout_seconds=timeout_seconds
        )
    except ConversationNotFound:
        raise NotFound(missing) from None
    return json_answer(answer.body, answer.status)
