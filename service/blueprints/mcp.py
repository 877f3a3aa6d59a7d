"""`/api/mcp` and `/api/acp`: servers that agents use or are, tried out before anything is stored."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from pydantic_core import from_json, to_json
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import body, checked_json
from service.blueprints.http.asking import ask_any
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented
from service.errors import Conflict, JsonObject, NoRunner, NotFound, OutcomeUnknown
from service.identity import RunnerId

blueprint = Blueprint("mcp", url_prefix="/api")

_START_SECONDS = 10.0
"""More than a server is given: for its process to be started and ended."""
_ACP_SECONDS = 300.0
_LOST = "The process that drove the authorization has ended. Start it again."
_HIDDEN = {"runner_id"}


class ToolCall(BaseModel):
    name: str
    arguments: dict[str, Any] = {}


class TestServer(BaseModel):
    """A server, natively or with a `type` of `stdio`, `http`, `shttp`, `streamable-http` or `sse`."""

    name: str = Field("test-server", min_length=1)
    server: dict[str, Any]
    timeout: float = Field(15, gt=0, le=120, description="Seconds.")
    tool_call: ToolCall | None = Field(None, description="To be made once the server answers.")


class Callback(BaseModel):
    callback_url: str = Field(min_length=1, description="Where the user's browser was led to in the end.")


@blueprint.post("/mcp/test")
@documented(summary="Try an MCP server out", body=TestServer, response={"type": "object"}, errors=(422,))
async def test(request: Request) -> HTTPResponse:
    wanted = body(request, TestServer)
    return await ask_any(request, "mcp.test", wanted, timeout_seconds=2 * wanted.timeout + _START_SECONDS)


@blueprint.post("/mcp/oauth/start")
@documented(
    summary="Begin an authorization at an MCP server",
    body=TestServer,
    response={"type": "object"},
    errors=(400, 422, 503),
)
async def start(request: Request) -> HTTPResponse:
    answer = await ask_any(request, "mcp.oauth_start", body(request, TestServer), timeout_seconds=60.0)
    record = _parsed(answer.body or b"")
    kept = ("ok", "job_id", "authorization_url", "error", "error_kind")
    return json_answer(to_json({name: record[name] for name in kept if name in record}))


@blueprint.get("/mcp/oauth/status/<job_id:str>")
@documented(summary="How far an authorization has come", response={"type": "object"}, errors=(404, 503))
async def status(request: Request, job_id: str) -> HTTPResponse:
    return json_answer(_shown(await _record(request, job_id)))


@blueprint.post("/mcp/oauth/callback/<job_id:str>")
@documented(
    summary="Go on with an authorization, from where the browser was led to",
    body=Callback,
    response={"type": "object"},
    errors=(400, 404, 409, 422, 503),
)
async def call_back(request: Request, job_id: str) -> HTTPResponse:
    wanted, web = body(request, Callback), web_of(request)
    record = await _record(request, job_id)
    if not record["callback_ready"]:
        raise Conflict("OAuth callback is not ready")
    try:
        answer = await web.requester.ask(
            "mcp.oauth_callback",
            body=wanted.model_dump_json().encode(),
            arguments={"job_id": job_id},
            runner_id=RunnerId(record["runner_id"]),
        )
    except (NoRunner, OutcomeUnknown):
        record |= {"ok": False, "status": "failed", "callback_ready": False, "error": _LOST}
        await web.catalog.oauth_jobs.put(job_id, record)
        return json_answer(_shown(record))
    return json_answer(_shown(_parsed(answer.body)))


@blueprint.post("/acp/models")
@documented(
    summary="The models that an ACP server offers",
    body="AcpModelsRequest",
    response={"type": "object"},
    errors=(422, 502),
)
async def acp_models(request: Request) -> HTTPResponse:
    return await ask_any(request, "acp.models", checked_json(request), timeout_seconds=_ACP_SECONDS)


async def _record(request: Request, job_id: str) -> JsonObject:
    record = await web_of(request).catalog.oauth_jobs.get(job_id)
    if record is None:
        raise NotFound("MCP OAuth job not found")
    return record


def _parsed(content: bytes) -> JsonObject:
    return dict(from_json(content))


def _shown(record: JsonObject) -> bytes:
    return to_json({name: value for name, value in record.items() if name not in _HIDDEN})
