"""Forks of a conversation, children, moves within it and summaries. All of it is asked of the conversation's owner."""

from __future__ import annotations

from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import Success
from service.blueprints.http.arguments import IncludeSkills, checked_json, idempotency, query
from service.blueprints.http.asking import LLM_SECONDS, ask_owner
from service.blueprints.http.openapi import documented

blueprint = Blueprint("branches", url_prefix="/api/conversations/<conversation_id:str>")

_COPY_SECONDS = 120.0
"""For the files of a conversation with very many events, on a slow disk."""


@blueprint.post("/fork")
@documented(
    summary="A new conversation with the events of this one",
    body="ForkConversationRequest",
    query=IncludeSkills,
    response="ConversationInfo",
    status=201,
    errors=(404, 409, 422),
)
async def fork(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(
        request,
        "conversation.fork",
        conversation_id,
        body=checked_json(request, required=False),
        arguments={**query(request, IncludeSkills).model_dump(), **idempotency(request)},
        timeout_seconds=_COPY_SECONDS,
        missing="Source conversation not found",
    )


@blueprint.post("/children")
@documented(
    summary="Start a conversation for a part of this one's work",
    body="StartChildConversationRequest",
    response="StartChildConversationResponse",
    status=201,
    errors=(404, 429),
)
async def start_child(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(
        request,
        "conversation.start_child",
        conversation_id,
        body=checked_json(request),
        timeout_seconds=_COPY_SECONDS,
        missing="Parent conversation not found",
    )


@blueprint.post("/navigate")
@documented(
    summary="Go on from another event",
    body="NavigateRequest",
    query=IncludeSkills,
    response="ConversationInfo",
    errors=(404, 409, 422),
)
async def navigate(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(
        request,
        "conversation.navigate",
        conversation_id,
        body=checked_json(request),
        arguments=query(request, IncludeSkills).model_dump(),
        missing="Conversation not found",
    )


@blueprint.post("/condense")
@documented(summary="Have the LLM summarise what was said so far", response=Success, errors=(404, 409, 500))
async def condense(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(
        request,
        "conversation.condense",
        conversation_id,
        timeout_seconds=LLM_SECONDS,
        missing="Conversation not found",
    )
