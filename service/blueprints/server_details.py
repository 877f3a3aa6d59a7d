"""What the server says of itself: liveness, readiness, versions, idle time."""

from __future__ import annotations

import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pydantic import BaseModel
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import json

from service.blueprints.http.answers import json_answer
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented
from service.blueprints.static_files import front_page
from service.catalog.runners import Runners
from service.errors import JsonObject, Unavailable

if TYPE_CHECKING:
    from service.blueprints.deferred_start import DeferredStart

TITLE = "OpenHands Agent Server"
"""The published server's name: it says which contract is spoken here."""

INTERFACE_VERSION = "1.58.2"
"""The version of the published server whose interface this is: clients do not use what came after it."""

DISTRIBUTION = "fanout-agent-server"

_UNKNOWN = "unknown"

CAPABILITIES = (
    "conversation_runtime_routes_v1",
    "profile_secret_scope_v1",
    "profile_persona_v1",
    "credential_binding_v1",
    "credential_binding_readiness_probe_v1",
    "credential_binding_activation_guard_v1",
    "idempotent_conversation_create_v1",
    "tool_catalog_v1",
    "agent_profile_draft_materialize_v1",
    "agent_launch_pipeline_v1",
    "profile_public_skills_v1",
    "skill_catalog_v1",
)
"""Of the published server's, what this one keeps: front ends offer only what they find here."""

_FOREGROUND_SHARE = 0.9
"""Share of the host's idle timeout that a foreground command may take (contract)."""

_OK = b'{"status":"ok"}'

blueprint = Blueprint("server_details")


class HealthStatus(BaseModel):
    status: str


class ServerInfo(BaseModel):
    uptime: float
    idle_time: float
    title: str
    version: str
    docs: str
    redoc: str
    fanout_version: str
    sdk_version: str
    tools_version: str
    workspace_version: str
    build_git_sha: str
    build_git_ref: str
    python_version: str
    usable_tools: list[str]
    runtime_idle_timeout_seconds: float | None
    max_foreground_terminal_timeout_seconds: float | None
    conversation_runtime: str
    available_conversation_runtimes: list[str]
    capabilities: list[str]
    app_backend_ingress_url: str | None


@blueprint.get("/alive")
@documented(summary="Whether the process answers", response=HealthStatus)
async def alive(request: Request) -> HTTPResponse:
    return json_answer(_OK)


@blueprint.get("/health")
@documented(summary="Whether the process answers", response=HealthStatus)
async def health(request: Request) -> HTTPResponse:
    return json_answer(_OK)


@blueprint.get("/ready")
@documented(summary="Whether requests can be served", response=HealthStatus, errors=(503,))
async def ready(request: Request) -> HTTPResponse:
    """503 with the reasons while something is missing that requests need; `POST /api/init` needs no more than this."""
    reasons = web_of(request).readiness()
    if reasons and not _is_dormant(request):
        return json({"status": "initializing", "message": "; ".join(reasons)}, status=503)
    return json({"status": "ready"})


@blueprint.get("/server_info")
@documented(summary="Versions, capabilities and idle time", response=ServerInfo)
async def server_info(request: Request) -> HTTPResponse:
    return json(await _server_info(request))


@blueprint.get("/")
@documented(summary="The user interface where one is served, else the same as /server_info", response=ServerInfo)
async def root(request: Request) -> HTTPResponse:
    settings = web_of(request).settings
    folder = settings.static_files_path
    if folder is None or not folder.is_dir():
        return json(await _server_info(request))
    location = f"{settings.root_path}{front_page(folder)}"
    return HTTPResponse(status=302, headers={"location": location}, content_type="text/plain; charset=utf-8")


@cache
def package_version() -> str:
    """The version of this server; `0.0.0` where it runs from a folder that was never installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0.0.0"


def _is_dormant(request: Request) -> bool:
    deferred_start: DeferredStart | None = request.app.ctx.deferred_start
    return deferred_start is not None and not deferred_start.is_ready


async def _server_info(request: Request) -> JsonObject:
    web = web_of(request)
    settings = web.settings
    idle_timeout = settings.runtime_idle_timeout_seconds
    return {
        "uptime": _whole(time.monotonic() - web.started_at),
        "idle_time": _whole(await web.idle_seconds()),
        "title": TITLE,
        "version": INTERFACE_VERSION,
        "fanout_version": package_version(),
        "docs": "/docs",
        "redoc": "/redoc",
        **await _runner_facts(web.catalog.runners),
        "build_git_sha": settings.build_git_sha,
        "build_git_ref": settings.build_git_ref,
        "python_version": sys.version,
        "runtime_idle_timeout_seconds": idle_timeout,
        "max_foreground_terminal_timeout_seconds": idle_timeout and _FOREGROUND_SHARE * idle_timeout,
        "conversation_runtime": settings.conversation_runtime,
        "available_conversation_runtimes": [],
        "capabilities": list(CAPABILITIES),
        "app_backend_ingress_url": settings.app_backend_public_url,
    }


async def _runner_facts(runners: Runners) -> JsonObject:
    """What only a runner knows; unknown and empty while none is up or the broker is away."""
    try:
        alive = await runners.alive()
    except Unavailable:
        alive = []
    facts = alive[0].facts if alive else {}
    return {
        "sdk_version": facts.get("sdk_version") or _UNKNOWN,
        "tools_version": facts.get("tools_version") or _UNKNOWN,
        "workspace_version": _UNKNOWN,  # of a package that servers do without
        "usable_tools": facts.get("usable_tools") or [],
    }


def _whole(seconds: float) -> float:
    """Whole seconds, as a float: the contract's form."""
    return float(int(seconds))
