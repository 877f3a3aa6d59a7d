"""`/api/conversations/{id}/events`: pages joined from stored bytes; new messages to the owner."""

from __future__ import annotations

from uuid import UUID

from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import Success, json_answer
from service.blueprints.http.arguments import checked_json, event_ids, idempotency, query, uuid_path
from service.blueprints.http.context import WebContext, web_of
from service.blueprints.http.event_query import EventFilter, EventSearch, EventSortOrder
from service.blueprints.http.openapi import array_of, documented
from service.errors import BadRequest, ConversationNotFound, EventNotFound
from service.store.event_log import EventLog

blueprint = Blueprint("events", url_prefix="/api/conversations/<conversation_id:str>/events")


@blueprint.get("/search")
@documented(summary="A page of events", query=EventSearch, response="EventPage", errors=(400, 404))
async def search(request: Request, conversation_id: str) -> HTTPResponse:
    wanted = query(request, EventSearch)
    log, length = await _log(web_of(request), uuid_path(conversation_id))
    start = _start(log, wanted)
    if wanted.sort_order is EventSortOrder.TIMESTAMP:
        seqs = range(start or 0, length)
    else:
        seqs = range(length - 1 if start is None else start, -1, -1)
    found = list(seqs[: wanted.limit + 1]) if wanted.is_empty else wanted.select(await log.facts(length), seqs)
    page, following = found[: wanted.limit], found[wanted.limit : wanted.limit + 1]
    next_id = b'"%s"' % log.id_of(following[0]).encode() if following else b"null"
    items = b",".join(await log.read_many(page))
    return json_answer(b'{"items":[' + items + b'],"next_page_id":' + next_id + b"}")


@blueprint.get("/count")
@documented(summary="How many events pass the filters", query=EventFilter, response={"type": "integer"}, errors=(404,))
async def count(request: Request, conversation_id: str) -> HTTPResponse:
    wanted = query(request, EventFilter)
    log, length = await _log(web_of(request), uuid_path(conversation_id))
    passing = length if wanted.is_empty else len(wanted.select(await log.facts(length), range(length)))
    return json_answer(b"%d" % passing)


@blueprint.get("/<event_id:str>")
@documented(summary="One event", response="Event", errors=(404,))
async def get(request: Request, conversation_id: str, event_id: str) -> HTTPResponse:
    log, _ = await _log(web_of(request), uuid_path(conversation_id))
    seq = log.seq_of(event_id)
    if seq is None:
        raise EventNotFound(event_id)
    return json_answer((await log.read_many([seq]))[0])


@blueprint.get("", ignore_body=False)
@documented(
    summary="Several events by id, null for an unknown one",
    description="The ids are a JSON array in the body, or, where none can be sent, `event_ids` values in the query.",
    body=array_of("EventId"),
    response=array_of("Event", with_nulls=True),
    errors=(404, 422),
)
async def batch(request: Request, conversation_id: str) -> HTTPResponse:
    wanted = uuid_path(conversation_id)
    asked = event_ids(request)
    log, _ = await _log(web_of(request), wanted)
    seqs = [log.seq_of(event_id) for event_id in asked]
    known = [seq for seq in seqs if seq is not None]
    stored = dict(zip(known, await log.read_many(known), strict=True))
    found = (b"null" if seq is None else stored[seq] for seq in seqs)
    return json_answer(b"[" + b",".join(found) + b"]")


@blueprint.post("")
@documented(
    summary="Send a message, and with `run` start a run",
    body="PostMessageRequest",
    response=Success,
    errors=(404, 422, 429),
)
async def send(request: Request, conversation_id: str) -> HTTPResponse:
    return await _ask_owner(request, "events.send", conversation_id)


@blueprint.post("/respond_to_confirmation")
@documented(
    summary="Accept or reject the pending actions",
    body="ConfirmationResponseRequest",
    response=Success,
    errors=(404, 422),
)
async def respond_to_confirmation(request: Request, conversation_id: str) -> HTTPResponse:
    return await _ask_owner(request, "events.confirm", conversation_id)


async def _ask_owner(request: Request, operation: str, conversation_id: str) -> HTTPResponse:
    """Unlike `asking.ask_owner`: that the conversation is unknown comes before what is wrong with the body."""
    web = web_of(request)
    wanted = uuid_path(conversation_id)
    web.require(wanted)
    answer = await web.requester.ask(operation, wanted, body=checked_json(request), arguments=idempotency(request))
    return json_answer(answer.body, answer.status)


async def _log(web: WebContext, conversation_id: UUID) -> tuple[EventLog, int]:
    """The log and its length now; raises ConversationNotFound."""
    log = web.logs.open(conversation_id)
    length = await log.length()
    if length is None:
        raise ConversationNotFound(str(conversation_id))
    return log, length


def _start(log: EventLog, wanted: EventSearch) -> int | None:
    """Where the page begins: `page_id` is the id of its first event, dashed or not; empty is as good as none."""
    if not wanted.page_id:
        return None
    try:
        seq = log.seq_of(str(UUID(wanted.page_id)))
    except ValueError:
        seq = log.seq_of(wanted.page_id)
    if seq is None:
        raise BadRequest(f"Unknown page_id: {wanted.page_id}")
    return seq
