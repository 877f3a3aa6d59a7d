"""`/api/conversations`: reads from snapshots and the index, everything else from a runner."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from enum import Enum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field
from pydantic_core import to_json
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import Success, json_answer
from service.blueprints.http.arguments import (
    IncludeSkills,
    checked_json,
    idempotency,
    json_body,
    json_bytes,
    query,
    uuid_path,
)
from service.blueprints.http.asking import LLM_SECONDS, ask_owner
from service.blueprints.http.context import WebContext, web_of
from service.blueprints.http.observability import with_observability
from service.blueprints.http.openapi import array_of, documented
from service.catalog.index import SortOrder
from service.errors import BadRequest, ConversationNotFound, NotFound, RequestFailed
from service.identity import keyed_id
from service.store.children import with_children
from service.store.final_response import final_response
from service.store.snapshot import leaf_of

blueprint = Blueprint("conversations", url_prefix="/api/conversations")

_MAX_IDS = 99


class ExecutionStatus(Enum):
    """The contract's names, which are the SDK's."""

    IDLE = "idle"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING_FOR_CONFIRMATION = "waiting_for_confirmation"
    FINISHED = "finished"
    ERROR = "error"
    STUCK = "stuck"
    DELETING = "deleting"


class OneQuery(IncludeSkills):
    include_presence: bool = False


class BatchQuery(IncludeSkills):
    ids: Annotated[list[UUID], Field(max_length=_MAX_IDS)]


class StatusQuery(BaseModel):
    status: ExecutionStatus | None = None


class SearchQuery(StatusQuery, IncludeSkills):
    page_id: str | None = None
    limit: int = Field(default=100, gt=0, le=100)
    sort_order: SortOrder = SortOrder.CREATED_AT_DESC


@blueprint.post("")
@documented(
    summary="Create a conversation, or return the one that has the id",
    body="StartConversationRequest",
    query=IncludeSkills,
    response="ConversationInfo",
    status=201,
    errors=(422, 429, 503),
)
async def create(request: Request) -> HTTPResponse:
    given = json_body(request)
    content = with_observability(request, given)
    wanted = query(request, IncludeSkills)
    given_id = content.get("conversation_id") if isinstance(content, dict) else None
    keyed = idempotency(request)
    answer = await web_of(request).requester.ask(
        "conversation.create",
        _id_to_be(given_id, keyed.get("idempotency_key")),
        body=json_bytes(request) if content is given else to_json(content),
        arguments={"include_skills": wanted.include_skills, **keyed},
    )
    return json_answer(answer.body, answer.status)


@blueprint.get("")
@documented(
    summary="Several conversations by id, null for an unknown one",
    query=BatchQuery,
    response=array_of("ConversationInfo", with_nulls=True),
)
async def batch(request: Request) -> HTTPResponse:
    wanted = query(request, BatchQuery)
    web = web_of(request)
    return json_answer(b"[" + b",".join(await _infos(web, wanted.ids, wanted.include_skills)) + b"]")


@blueprint.get("/search")
@documented(summary="A page of conversations", query=SearchQuery, response="ConversationPage", errors=(400, 503))
async def search(request: Request) -> HTTPResponse:
    wanted = query(request, SearchQuery)
    web = web_of(request)
    status = wanted.status and wanted.status.value
    page = await web.catalog.index.page(wanted.sort_order, status, _page_id(wanted.page_id), wanted.limit)
    if page is None:
        raise BadRequest(f"Unknown page_id: {wanted.page_id}")
    found = await _infos(web, page.ids, wanted.include_skills)
    # One deleted between the index and its snapshot is left out.
    items = b",".join(info for info in found if info != _NULL)
    next_id = b"null" if page.next_id is None else b'"%s"' % page.next_id.hex.encode()
    return json_answer(b'{"items":[' + items + b'],"next_page_id":' + next_id + b"}")


@blueprint.get("/count")
@documented(summary="How many conversations there are", query=StatusQuery, response={"type": "integer"}, errors=(503,))
async def count(request: Request) -> HTTPResponse:
    wanted = query(request, StatusQuery)
    web = web_of(request)
    return json_answer(b"%d" % await web.catalog.index.count(wanted.status and wanted.status.value))


@blueprint.get("/<conversation_id:str>")
@documented(summary="One conversation", query=OneQuery, response="ConversationInfo", errors=(404,))
async def get(request: Request, conversation_id: str) -> HTTPResponse:
    wanted, web = query(request, OneQuery), web_of(request)
    found = uuid_path(conversation_id)
    try:
        info = await _info(web, found, wanted.include_skills)
    except ConversationNotFound:
        raise NotFound from None
    if wanted.include_presence:
        info = info[:-1] + b',"presence":' + await web.catalog.watchers.of(found) + b"}"
    return json_answer(info)


@blueprint.patch("/<conversation_id:str>")
@documented(summary="Change title and tags", body="UpdateConversationRequest", response=Success, errors=(404, 422))
async def patch(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "conversation.patch", conversation_id, body=checked_json(request))


@blueprint.delete("/<conversation_id:str>")
@documented(summary="Delete a conversation; its workspace stays", response=Success, errors=(404,))
async def delete(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "conversation.delete", conversation_id)


@blueprint.post("/<conversation_id:str>/run")
@documented(summary="Start a run in the background", response=Success, errors=(404, 409, 429))
async def run(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "conversation.run", conversation_id)


@blueprint.post("/<conversation_id:str>/pause")
@documented(summary="Pause at the end of the current step", response=Success, errors=(404,))
async def pause(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "conversation.pause", conversation_id)


@blueprint.post("/<conversation_id:str>/interrupt")
@documented(summary="Cancel the LLM call or tool in flight, and pause", response=Success, errors=(404,))
async def interrupt(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "conversation.interrupt", conversation_id)


@blueprint.post("/<conversation_id:str>/secrets")
@documented(summary="Add or replace secrets", body="UpdateSecretsRequest", response=Success, errors=(404, 422))
async def secrets(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "conversation.secrets", conversation_id, body=checked_json(request))


@blueprint.post("/<conversation_id:str>/confirmation_policy")
@documented(
    summary="Set when to ask before an action", body="SetConfirmationPolicyRequest", response=Success, errors=(404, 422)
)
async def confirmation_policy(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "conversation.confirmation_policy", conversation_id, body=checked_json(request))


@blueprint.post("/<conversation_id:str>/security_analyzer")
@documented(
    summary="Set or remove the security analyzer",
    body="SetSecurityAnalyzerRequest",
    response=Success,
    errors=(404, 422),
)
async def security_analyzer(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "conversation.security_analyzer", conversation_id, body=checked_json(request))


@blueprint.post("/<conversation_id:str>/ask_agent")
@documented(
    summary="Ask the LLM about the conversation, outside of it",
    body="AskAgentRequest",
    response="AskAgentResponse",
    errors=(404, 422, 500),
)
async def ask_agent(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(
        request,
        "conversation.ask_agent",
        conversation_id,
        body=checked_json(request),
        timeout_seconds=LLM_SECONDS,
        missing="Conversation not found",
    )


@blueprint.post("/<conversation_id:str>/generate_title")
@documented(
    summary="A title for the conversation, which is not stored",
    body="GenerateTitleRequest",
    response="GenerateTitleResponse",
    errors=(404, 422, 500),
)
async def generate_title(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(
        request,
        "conversation.generate_title",
        conversation_id,
        body=checked_json(request),
        timeout_seconds=LLM_SECONDS,
    )


@blueprint.get("/<conversation_id:str>/agent_final_response")
@documented(summary="The agent's newest answer on the active branch", response="AgentResponse", errors=(404,))
async def agent_final_response(request: Request, conversation_id: str) -> HTTPResponse:
    web = web_of(request)
    wanted = uuid_path(conversation_id)
    try:
        web.require(wanted)
        log = web.logs.open(wanted)
        head = leaf_of(await web.info(wanted))
        await log.length()  # in this order, so that the log has the head
        return json_answer(to_json({"response": await final_response(log, head)}))
    except ConversationNotFound:
        raise NotFound from None


_NULL = b"null"


async def _info(web: WebContext, conversation_id: UUID, with_skills: bool) -> bytes:
    return with_children(await web.info(conversation_id, with_skills), web.root.directory(conversation_id))


async def _infos(web: WebContext, ids: Collection[UUID], with_skills: bool) -> list[bytes]:
    """In the order of the ids. Those without a snapshot are asked for together, the others cost no task."""
    found: dict[UUID, bytes] = {}
    for each in ids:
        directory = web.root.directory(each)
        info = web.snapshots.info(directory, with_skills)
        if info is not None:
            found[each] = with_children(info, directory)
    missing = [each for each in ids if each not in found]
    asked = await asyncio.gather(*(_info_or_null(web, each, with_skills) for each in missing))
    found.update(zip(missing, asked, strict=True))
    return [found[each] for each in ids]


async def _info_or_null(web: WebContext, conversation_id: UUID, with_skills: bool) -> bytes:
    try:
        return await _info(web, conversation_id, with_skills)
    except (ConversationNotFound, RequestFailed):
        return _NULL


def _id_to_be(given: object, idempotency_key: str | None) -> UUID | None:
    """The id that a client chose or that its key gives, if that is known: where the request goes.

    What is wrong with a chosen one the runner says.
    """
    if given is None and idempotency_key is not None:
        return keyed_id(idempotency_key)
    try:
        return UUID(given) if isinstance(given, str) else None
    except ValueError:
        return None


def _page_id(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise BadRequest(f"Unknown page_id: {text}") from None
