"""`/api/tools`: what agents may be given, as the runners have it."""

from __future__ import annotations

from pydantic import BaseModel
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.asking import ask_any
from service.blueprints.http.openapi import documented

blueprint = Blueprint("tools", url_prefix="/api/tools")


class Tool(BaseModel):
    """One tool."""

    name: str
    user_selectable: bool
    usable: bool
    """Whether it can work on the runner's machine."""
    description: str
    in_default_set: bool


class ToolCatalog(BaseModel):
    """All of them."""

    tools: list[Tool]


@blueprint.get("/")
@documented(summary="Names of the tools that are registered", response={"type": "array", "items": {"type": "string"}})
async def list_tools(request: Request) -> HTTPResponse:
    return await ask_any(request, "sdk.tools")


@blueprint.get("/catalog")
@documented(summary="The tools, with what a person needs to choose", response=ToolCatalog)
async def list_catalog(request: Request) -> HTTPResponse:
    return await ask_any(request, "sdk.tool_catalog")
