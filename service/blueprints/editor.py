"""`/api/vscode` and `/api/desktop`: where the editor and the desktop of the agents' machine are.

Each host of runners has one of each. A conversation's routes tell of its owner's host; the others of any.
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import query
from service.blueprints.http.context import WebContext, web_of
from service.blueprints.http.openapi import documented
from service.blueprints.http.places import place
from service.blueprints.http.scopes import SCOPED_PREFIX, Routes, workspace_of
from service.requests.message import Answer

blueprint = Blueprint("vscode", url_prefix="/api/vscode")
scoped = Blueprint("conversation_vscode", url_prefix=f"{SCOPED_PREFIX}/vscode")
desktop = Blueprint("desktop", url_prefix="/api/desktop")
_route = Routes(blueprint, scoped)


class EditorStatus(BaseModel):
    """Whether there is an editor."""

    running: bool
    enabled: bool
    message: str | None = None


class Address(BaseModel):
    """Where something is to be opened; null while it does not run."""

    url: str | None


class EditorQuery(BaseModel):
    """How a browser reaches the editor, and what it is to show."""

    base_url: str | None = Field(None, description="By default this host's name for itself, with the editor's port.")
    workspace_dir: str | None = Field(None, description="By default `workspace`, or the conversation's directory.")


class DesktopQuery(BaseModel):
    """How a browser reaches the desktop."""

    base_url: str | None = Field(None, description="By default this host's name for itself, with the desktop's port.")


@_route("GET", "/status")
@documented(summary="Whether the editor runs", response=EditorStatus, errors=(404, 422))
async def editor_status(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    conversation_id, _ = await workspace_of(request, runtime_conversation_id)
    return json_answer((await _ask(web_of(request), "host.editor_status", conversation_id)).body)


@_route("GET", "/url")
@documented(
    summary="Where the editor is, with the token that opens it",
    query=EditorQuery,
    response=Address,
    errors=(404, 422, 503),
)
async def editor_url(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    web, wanted = web_of(request), query(request, EditorQuery)
    conversation_id, working_dir = await workspace_of(request, runtime_conversation_id)
    folder = wanted.workspace_dir or working_dir or "workspace"
    if working_dir is not None:
        await asyncio.to_thread(place, folder, "workspace_dir", working_dir)
    token = json.loads((await _ask(web, "host.editor_token", conversation_id)).body)
    base = (wanted.base_url or f"http://localhost:{web.settings.vscode_port}").rstrip("/")
    path = f"/{web.settings.vscode_base_path.strip('/')}" if web.settings.vscode_base_path else ""
    return json_answer(Address(url=token and f"{base}{path}/?tkn={quote(token)}&folder={quote(folder)}"))


@desktop.get("/url")
@documented(
    summary="Where the desktop is, with the password that opens it",
    query=DesktopQuery,
    response=Address,
    errors=(422, 503),
)
async def desktop_url(request: Request) -> HTTPResponse:
    web, wanted = web_of(request), query(request, DesktopQuery)
    password = json.loads((await _ask(web, "host.desktop_password", None)).body)
    base = (wanted.base_url or f"http://localhost:{web.settings.novnc_port}").rstrip("/")
    # After the `#`, so that it is in no log of a proxy.
    url = password and f"{base}/vnc.html?autoconnect=1&resize=remote#password={quote(password)}"
    return json_answer(Address(url=url))


async def _ask(web: WebContext, operation: str, conversation_id: UUID | None) -> Answer:
    """On the host of the conversation's owner; nobody is made its owner by being looked at."""
    owner = None if conversation_id is None else await web.catalog.owners.find(conversation_id)
    return await web.requester.ask(operation, runner_id=owner)
