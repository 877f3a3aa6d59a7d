"""`/api/settings`: what front ends keep about agents, conversations and themselves, and secrets for agents."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field, SecretStr
from pydantic_core import from_json, to_json
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import text

from service.blueprints.http.answers import Deleted
from service.blueprints.http.arguments import body, checked_json, exposure, query
from service.blueprints.http.asking import ask_any
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented
from service.errors import InvalidRequest
from service.redaction import REDACTED_SECRET

blueprint = Blueprint("settings", url_prefix="/api/settings")

_SECRET_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class SecretToPut(BaseModel):
    name: str
    value: SecretStr
    description: str | None = None


class SecretShown(BaseModel):
    """Never its value."""

    name: str
    description: str | None


class SecretsShown(BaseModel):
    secrets: list[SecretShown]


class SecretsQuestion(BaseModel):
    agent_profile_id: str | None = Field(None, description="Only the secrets that this profile may use.")


@blueprint.get("/agent-schema")
@documented(summary="What agents can be set to", response={"type": "object"})
async def agent_schema(request: Request) -> HTTPResponse:
    return await ask_any(request, "settings.agent_schema")


@blueprint.get("/conversation-schema")
@documented(summary="What conversations can be set to", response={"type": "object"})
async def conversation_schema(request: Request) -> HTTPResponse:
    return await ask_any(request, "settings.conversation_schema")


@blueprint.get("")
@documented(summary="The settings", response="SettingsResponse", errors=(400, 409))
async def get_settings(request: Request) -> HTTPResponse:
    return await ask_any(request, "settings.get", arguments=exposure(request))


@blueprint.patch("")
@documented(
    summary="Change the settings", body="SettingsPatch", response="SettingsResponse", errors=(400, 404, 409, 422, 503)
)
async def change_settings(request: Request) -> HTTPResponse:
    return await ask_any(request, "settings.change", checked_json(request))


@blueprint.post("/mcp/<key:str>")
@documented(
    summary="Add an MCP server",
    body="NewMCPServer",
    response="SettingsResponse",
    status=201,
    errors=(409, 422, 503),
)
async def add_mcp(request: Request, key: str) -> HTTPResponse:
    return await ask_any(request, "settings.add_mcp", checked_json(request), arguments={"key": key})


@blueprint.patch("/mcp/<key:str>")
@documented(
    summary="Change an MCP server", body="MCPServerPatch", response="SettingsResponse", errors=(404, 409, 422, 503)
)
async def change_mcp(request: Request, key: str) -> HTTPResponse:
    return await ask_any(request, "settings.change_mcp", checked_json(request), arguments={"key": key})


@blueprint.delete("/mcp/<key:str>")
@documented(summary="Remove an MCP server", response="SettingsResponse", errors=(404, 409, 503))
async def delete_mcp(request: Request, key: str) -> HTTPResponse:
    return await ask_any(request, "settings.delete_mcp", arguments={"key": key})


@blueprint.get("/secrets")
@documented(summary="The names of the secrets", query=SecretsQuestion, response=SecretsShown, errors=(404, 409, 422))
async def list_secrets(request: Request) -> HTTPResponse:
    profile_id = query(request, SecretsQuestion).agent_profile_id
    arguments: dict[str, str] = {} if profile_id is None else {"agent_profile_id": profile_id}
    return await ask_any(request, "secrets.list", arguments=arguments)


@blueprint.put("/secrets")
@documented(summary="Store a secret", body=SecretToPut, response=SecretShown, errors=(409, 422, 503))
async def put_secret(request: Request) -> HTTPResponse:
    wanted = body(request, SecretToPut)
    _require_secret_name(wanted.name)
    value = wanted.value.get_secret_value()
    if value.strip() in ("", REDACTED_SECRET):
        raise InvalidRequest("Secret value must not be empty or redacted")
    return await ask_any(request, "secrets.put", to_json({**wanted.model_dump(), "value": value}))


@blueprint.get("/secrets/<name:str>")
@documented(
    summary="The value of a secret", response={"type": "string"}, media_type="text/plain", errors=(404, 409, 422)
)
async def get_secret(request: Request, name: str) -> HTTPResponse:
    _require_secret_name(name)
    answer = await web_of(request).requester.ask("secrets.get", arguments={"name": name})
    return text(from_json(answer.body))


@blueprint.delete("/secrets/<name:str>")
@documented(summary="Delete a secret", response=Deleted, errors=(404, 409, 422, 503))
async def delete_secret(request: Request, name: str) -> HTTPResponse:
    _require_secret_name(name)
    return await ask_any(request, "secrets.delete", arguments={"name": name})


def _require_secret_name(name: str) -> None:
    if not _SECRET_NAME.fullmatch(name):
        raise InvalidRequest("Invalid secret name format: a letter, then letters, digits and underscores, 64 at most")
