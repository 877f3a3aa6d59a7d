"""`/api/conversations/{id}/goal`: what a conversation works for until its LLM finds it reached. Asked of the owner."""

from __future__ import annotations

from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import Success
from service.blueprints.http.arguments import checked_json
from service.blueprints.http.asking import ask_owner
from service.blueprints.http.openapi import documented

blueprint = Blueprint("goals", url_prefix="/api/conversations/<conversation_id:str>/goal")


@blueprint.post("")
@documented(
    summary="Run until the LLM finds an objective reached",
    body="StartGoalRequest",
    response=Success,
    errors=(400, 404, 409, 422, 429),
)
async def start_goal(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "goal.start", conversation_id, body=checked_json(request))


@blueprint.post("/stop")
@documented(summary="Work for the goal no longer; the run goes on", response=Success, errors=(404,))
async def stop_goal(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "goal.stop", conversation_id)


@blueprint.post("/resume")
@documented(summary="Go on with a goal that was interrupted", response=Success, errors=(400, 404, 409, 429))
async def resume_goal(request: Request, conversation_id: str) -> HTTPResponse:
    return await ask_owner(request, "goal.resume", conversation_id)
