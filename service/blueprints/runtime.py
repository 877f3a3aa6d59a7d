"""`/api/conversations/{id}/runtime`: where a conversation runs. Here that is the deployment itself, so it is there."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import json_answer
from service.blueprints.http.openapi import documented
from service.blueprints.http.scopes import SCOPED_PREFIX, workspace_of

blueprint = Blueprint("runtime", url_prefix=f"{SCOPED_PREFIX}/runtime")


class RuntimeInfo(BaseModel):
    """Whether a conversation can go on."""

    runtime_status: Literal["available"] = "available"
    can_resume: bool = True
    runtime_error: str | None = None


@blueprint.get("")
@documented(summary="Whether the conversation can go on", response=RuntimeInfo, errors=(404,))
async def runtime(request: Request, runtime_conversation_id: str) -> HTTPResponse:
    await workspace_of(request, runtime_conversation_id)
    return json_answer(RuntimeInfo())


@blueprint.post("/reprovision")
@documented(summary="Have it made anew, which is never needed here", response=RuntimeInfo, errors=(404,))
async def reprovision(request: Request, runtime_conversation_id: str) -> HTTPResponse:
    await workspace_of(request, runtime_conversation_id)
    return json_answer(RuntimeInfo())
