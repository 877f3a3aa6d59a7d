"""An app with the shell around a few toy routes, for tests of the shell."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request, Sanic
from sanic.exceptions import ServerError
from sanic.response import json
from sanic.server.websockets.impl import WebsocketImplProtocol

from service import errors
from service.blueprints import shell
from service.blueprints.http.arguments import body, json_body, query, uuid_path
from service.blueprints.http.auth import authenticate
from service.blueprints.http.openapi import array_of, documented
from service.catalog.runners import RunnerRecord
from service.errors import BrokerUnavailable, JsonObject
from service.identity import RunnerId
from service.settings import Settings
from tests.conftest import StartClient
from tests.live_app import AnyApp, SanicClient

FIRST_FRAME_SECONDS = 0.3

KEY = {"X-Session-API-Key": "good"}
ID = "01234567-89ab-cdef-0123-456789abcdef"
PAGE = "https://page.example"
"""An origin nobody has allowed."""


@dataclass
class StubWeb:
    """The callables the shell needs from the web role, and what they are to say."""

    settings: Settings
    started_at: float = field(default_factory=time.monotonic)
    reasons: list[str] = field(default_factory=list)
    facts: JsonObject | None = field(default_factory=dict)
    """What a runner tells; None: the broker is away."""
    schemas: dict[str, JsonObject] = field(default_factory=dict)
    idle: float = 0.0
    is_stopping: bool = False

    @property
    def catalog(self) -> StubWeb:
        return self

    @property
    def runners(self) -> StubWeb:
        return self

    def readiness(self) -> list[str]:
        return self.reasons

    async def idle_seconds(self) -> float:
        return self.idle

    async def alive(self) -> list[RunnerRecord]:
        if self.facts is None:
            raise BrokerUnavailable
        return [RunnerRecord(RunnerId("one"), 0, self.facts, is_able=True)]

    async def sdk_schemas(self) -> dict[str, JsonObject]:
        return self.schemas


class SearchQuery(BaseModel):
    limit: int = Field(100, gt=0, le=100, description="Items on one page.")
    ids: list[str] | None = None
    title: str | None = None


class Thing(BaseModel):
    name: str
    api_key: str | None = None
    env: dict[str, int] = {}


RAISED: dict[str, Callable[[], Exception]] = {
    "value_error": lambda: ValueError("no such luck"),
    "server_error": lambda: ServerError("the framework's own"),
    "surrogate": lambda: ValueError("\ud800"),
    "bad_request": lambda: errors.BadRequest("makes no sense"),
    "conversation_not_found": lambda: errors.ConversationNotFound("0" * 32),
    "already_running": errors.AlreadyRunning,
    "run_limit": lambda: errors.RunLimitReached(),
    "bash_limit": errors.BashLimitReached,
    "invalid": lambda: errors.InvalidRequest("one sentence"),
    "unavailable": errors.NoRunner,
    "unknown_outcome": lambda: errors.OutcomeUnknown("run", 3.0),
    "failed": lambda: errors.RequestFailed("the provider said no"),
}


def shell_app(settings: Settings) -> tuple[AnyApp, StubWeb]:
    """An app that is not started yet, and the stub behind it."""
    app: AnyApp = Sanic(f"shell-{uuid4().hex}", configure_logging=False)
    app.config.MOTD = False  # it imports whatever Sanic companion is installed, deprecated modules among them
    web = StubWeb(settings)
    app.ctx.web = web
    app.ctx.deferred_start = None
    shell.install(app, settings)
    app.blueprint(toys())
    return app, web


async def start(sanic_client: StartClient, settings: Settings, **changes: Any) -> SanicClient:
    """A client of a running app whose settings differ by `changes`."""
    app, _ = shell_app(settings.model_copy(update=changes))
    return await sanic_client(app)


def web_of(client: SanicClient) -> StubWeb:
    """The stub behind a running app."""
    web = client.app.ctx.web
    assert isinstance(web, StubWeb)
    return web


async def send_raw(client: SanicClient, data: bytes) -> tuple[bytes, bytes]:
    """Send bytes as they are; the response's head in lower case, and its body."""
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    try:
        async with asyncio.timeout(5):
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            return head, await reader.readexactly(int(length.group(1)) if length else 0)
    finally:
        writer.close()


def toys() -> Blueprint:
    """The toy routes, in a blueprint of their own for each app."""
    blueprint = Blueprint("toys")

    @blueprint.get("/api/things/search")
    @documented(summary="Search things", query=SearchQuery, response=array_of("Event"), errors=(404, 422))
    async def search_things(request: Request) -> HTTPResponse:
        return json(query(request, SearchQuery).model_dump())

    @blueprint.post("/api/things")
    @documented(summary="Create", body=Thing, response="ConversationInfo", status=201, errors=(422,))
    async def create_thing(request: Request) -> HTTPResponse:
        return json(body(request, Thing).model_dump(), status=201)

    @blueprint.get("/api/things", ignore_body=False)
    async def batch(request: Request) -> HTTPResponse:
        return json({"body": json_body(request, required=False)})

    @blueprint.get("/api/tools/")
    async def tools(request: Request) -> HTTPResponse:
        return json([])

    @blueprint.post("/api/written/")
    async def written(request: Request) -> HTTPResponse:
        return json([])

    @blueprint.get("/api/conversations/<conversation_id:str>")
    async def conversation(request: Request, conversation_id: str) -> HTTPResponse:
        return json(str(uuid_path(conversation_id)))

    @blueprint.get("/api/conversations/<conversation_id:str>/workspace/<path:path>", ctx_keyed_otherwise=True)
    async def workspace(request: Request, conversation_id: str, path: str) -> HTTPResponse:
        return json(path)

    @blueprint.get("/api/init", ctx_keyed_otherwise=True)
    async def init(request: Request) -> HTTPResponse:
        return json({"state": "ready"})

    @blueprint.get("/api/raise/<name:str>")
    async def fail(request: Request, name: str) -> HTTPResponse:
        raise RAISED[name]()

    blueprint.add_websocket_route(toy_socket, "/sockets/toy/<conversation_id:str>", ctx_admit=_admit)
    return blueprint


def _admit(request: Request) -> Any:
    query(request, SearchQuery)
    return uuid_path(request.match_info["conversation_id"])


async def toy_socket(request: Request, websocket: WebsocketImplProtocol, conversation_id: str) -> None:
    """Say hello once authenticated, then close."""
    if await authenticate(request, websocket, FIRST_FRAME_SECONDS):
        await websocket.send(f"hello {request.ctx.admitted}")
        await websocket.close(4004, "Conversation not found")
