"""`/api/agent-profiles`: agents under names, to start conversations with."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, RootModel
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.arguments import body, text_path
from service.blueprints.http.asking import ask_any
from service.blueprints.http.openapi import documented
from service.blueprints.profiles import NewName, ProfileMessage, named

blueprint = Blueprint("agent_profiles", url_prefix="/api/agent-profiles")


class AgentProfileSummary(BaseModel):
    id: UUID | None
    name: str
    agent_kind: str
    revision: int | None
    llm_profile_ref: str | None
    mcp_server_refs: list[str] | None


class AgentProfileList(BaseModel):
    profiles: list[AgentProfileSummary]
    active_agent_profile_id: str | None


class AgentProfileDetail(BaseModel):
    """`profile` is one of the SDK's two kinds."""

    name: str
    profile: dict[str, Any]


class NewAgentProfile(RootModel[dict[str, Any]]):
    """One of the SDK's two kinds."""


class MaterializeRequest(BaseModel):
    """A draft instead of what is saved; the body may be left out."""

    model_config = ConfigDict(extra="forbid")

    profile: dict[str, Any] | None = None


class ActivatedAgentProfile(BaseModel):
    id: UUID
    message: str
    agent_settings_applied: bool


@blueprint.get("")
@documented(summary="The agent profiles", response=AgentProfileList, errors=(409, 503))
async def list_agent_profiles(request: Request) -> HTTPResponse:
    return await ask_any(request, "agent_profiles.list")


@blueprint.get("/<name:str>")
@documented(summary="An agent profile", response=AgentProfileDetail, errors=(400, 404, 422, 503))
async def get_agent_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "agent_profiles.get", arguments=named(name))


@blueprint.post("/<name:str>")
@documented(
    summary="Save an agent profile", body=NewAgentProfile, response=ProfileMessage, status=201, errors=(409, 503)
)
async def save_agent_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "agent_profiles.save", body(request, NewAgentProfile), arguments=named(name))


@blueprint.delete("/<name:str>")
@documented(summary="Delete an agent profile", response=ProfileMessage, errors=(409, 422, 503))
async def delete_agent_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "agent_profiles.delete", arguments=named(name))


@blueprint.post("/<name:str>/rename")
@documented(summary="Rename an agent profile", body=NewName, response=ProfileMessage, errors=(404, 409, 503))
async def rename_agent_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "agent_profiles.rename", body(request, NewName), arguments=named(name))


@blueprint.post("/<profile_id:str>/activate")
@documented(summary="Start agents of this profile", response=ActivatedAgentProfile, errors=(404, 409, 422, 503))
async def activate_agent_profile(request: Request, profile_id: str) -> HTTPResponse:
    return await ask_any(
        request, "agent_profiles.activate", arguments={"id": text_path(profile_id, "profile_id", ".{1,128}")}
    )


@blueprint.post("/<name:str>/materialize")
@documented(
    summary="What starting an agent of this profile would come to",
    description='With `{"profile": ...}` of a draft under that name.',
    body=MaterializeRequest,
    response={"type": "object"},
    errors=(404, 409, 503),
)
async def materialize_agent_profile(request: Request, name: str) -> HTTPResponse:
    draft = body(request, MaterializeRequest) if request.body else MaterializeRequest()
    return await ask_any(request, "agent_profiles.materialize", draft, arguments=named(name))
