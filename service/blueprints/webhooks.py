"""`/api/webhooks`: the posts that were given up, and another try of them."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import body, query
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented
from service.errors import BadRequest
from service.store.dead_letters import DeadLetter, DeadLetters

blueprint = Blueprint("webhooks", url_prefix="/api/webhooks")

_MAX_LETTERS = 100
_REDELIVER_SECONDS = 600
"""Each letter may take its receiver's time."""


class DeadLetterItem(BaseModel):
    """One post that was given up."""

    delivery_id: UUID
    receiver_id: str
    """The same for all letters to one configured receiver."""
    conversation_id: UUID
    path: str
    """Below the receiver's address."""
    first_seq: int | None
    last_seq: int | None
    """The events in it; null for a conversation's status."""
    reason: str
    """Why the last attempt failed."""
    given_up_at: float
    """Unix time."""


class DeadLetterPage(BaseModel):
    """Some of them, oldest first."""

    items: list[DeadLetterItem]
    next_page_id: UUID | None


class LetterQuery(BaseModel):
    page_id: UUID | None = None
    limit: int = Field(default=_MAX_LETTERS, gt=0, le=_MAX_LETTERS)


class RedeliverRequest(BaseModel):
    """Which letters to try again."""

    delivery_ids: Annotated[list[UUID], Field(max_length=_MAX_LETTERS)]


class Outcomes(BaseModel):
    """What became of the letters that exist."""

    delivered: list[UUID]
    failed: dict[str, str]
    """Why, by delivery id; after a failure no more is tried at the same receiver."""


@blueprint.get("/dead_letters")
@documented(summary="Webhook posts that were given up", query=LetterQuery, response=DeadLetterPage, errors=(400, 422))
async def list_letters(request: Request) -> HTTPResponse:
    wanted = query(request, LetterQuery)
    web = web_of(request)
    letters = DeadLetters(web.root.dead_letters, fsync=web.settings.fsync)
    after_id = None if wanted.page_id is None else str(wanted.page_id)
    found = await asyncio.to_thread(letters.page, after_id, wanted.limit + 1)
    if found is None:
        raise BadRequest(f"Unknown page_id: {after_id}")
    items = [_item(dead) for dead in found[: wanted.limit]]
    next_page_id = items[-1].delivery_id if len(found) > wanted.limit else None
    return json_answer(DeadLetterPage(items=items, next_page_id=next_page_id))


@blueprint.post("/dead_letters/redeliver")
@documented(summary="Try some of them again", body=RedeliverRequest, response=Outcomes, errors=(422, 503))
async def redeliver(request: Request) -> HTTPResponse:
    wanted = body(request, RedeliverRequest)
    answer = await web_of(request).requester.ask(
        "webhooks.redeliver",
        body=wanted.model_dump_json().encode(),
        timeout_seconds=_REDELIVER_SECONDS,
    )
    reasons: dict[str, str | None] = json.loads(answer.body)
    outcomes = Outcomes(
        delivered=[UUID(delivery_id) for delivery_id, reason in reasons.items() if reason is None],
        failed={delivery_id: reason for delivery_id, reason in reasons.items() if reason is not None},
    )
    return json_answer(outcomes)


def _item(dead: DeadLetter) -> DeadLetterItem:
    shown = dead.letter._asdict() | {"reason": dead.reason, "given_up_at": dead.given_up_at}
    return DeadLetterItem.model_validate(shown)
