"""`/api/hooks` and `/api/sub-agents`: what a project's files give its agents; and the canvas, which is empty."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import body
from service.blueprints.http.asking import NETWORK_SECONDS, ask_any
from service.blueprints.http.openapi import documented

blueprint = Blueprint("agent_extras", url_prefix="/api")


class HooksQuestion(BaseModel):
    project_dir: str | None = None


class SubAgentsQuestion(BaseModel):
    """Where to look; of equal names the project's comes before the user's before a built-in one."""

    load_user: bool = True
    load_project: bool = True
    load_builtin: bool = True
    project_dir: str | None = None


class CanvasExtensions(BaseModel):
    """None: front ends ask all the same."""

    canvas_extensions: list[dict[str, Any]] = Field(default=[], max_length=0)


@blueprint.get("/canvas-extensions/installed")
@documented(summary="Extensions of the canvas; always empty", response=CanvasExtensions)
async def canvas_extensions(request: Request) -> HTTPResponse:
    return json_answer(CanvasExtensions())


@blueprint.post("/hooks")
@documented(summary="The hooks of a project", body=HooksQuestion, response={"type": "object"}, errors=(422,))
async def hooks(request: Request) -> HTTPResponse:
    return await ask_any(request, "hooks.load", body(request, HooksQuestion), timeout_seconds=NETWORK_SECONDS)


@blueprint.post("/sub-agents")
@documented(
    summary="The agents that an agent can delegate to",
    body=SubAgentsQuestion,
    response={"type": "object"},
    errors=(422,),
)
async def sub_agents(request: Request) -> HTTPResponse:
    return await ask_any(request, "sub_agents.list", body(request, SubAgentsQuestion), timeout_seconds=NETWORK_SECONDS)
