"""`/api/llm`: which models there are, and keys that several profiles share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_core import to_json
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.arguments import body, query
from service.blueprints.http.asking import ask_any
from service.blueprints.http.openapi import array_of, documented
from service.errors import InvalidRequest
from service.redaction import REDACTED_SECRET

blueprint = Blueprint("llm", url_prefix="/api/llm")


class ConnectionChange(BaseModel):
    """What is absent stays; only `base_url` may be null."""

    model_config = ConfigDict(extra="forbid")

    # An absent one is not looked at; as a plain default it would be in the description, against its own rules.
    display_name: str = Field(default_factory=str, min_length=1, max_length=128)
    api_key: SecretStr = Field(default_factory=lambda: SecretStr(""))
    provider: str = Field("custom", min_length=1, max_length=128)
    base_url: str | None = Field(None, max_length=2048)

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr) -> SecretStr:
        if key.get_secret_value().strip() in ("", REDACTED_SECRET):
            raise ValueError("a key is neither blank nor redacted")
        return key


class NewConnection(ConnectionChange):
    display_name: str = Field(min_length=1, max_length=128)
    api_key: SecretStr


class Connection(BaseModel):
    """Its key is never shown. Times are in Unix seconds."""

    id: str
    display_name: str
    provider: str
    base_url: str | None
    created_at: int
    updated_at: int
    api_key_set: bool


class Providers(BaseModel):
    providers: list[str]


class Models(BaseModel):
    models: list[str]


class VerifiedModels(BaseModel):
    models: dict[str, list[str]]


class ModelsQuestion(BaseModel):
    provider: str | None = None


@blueprint.get("/providers")
@documented(summary="The providers of LLMs", response=Providers)
async def providers(request: Request) -> HTTPResponse:
    return await ask_any(request, "llm.providers")


@blueprint.get("/models")
@documented(summary="The models, of one provider or of all", query=ModelsQuestion, response=Models)
async def models(request: Request) -> HTTPResponse:
    return await ask_any(request, "llm.models", arguments=query(request, ModelsQuestion).model_dump(exclude_none=True))


@blueprint.get("/models/verified")
@documented(summary="The models that are known to work well", response=VerifiedModels)
async def verified_models(request: Request) -> HTTPResponse:
    return await ask_any(request, "llm.verified")


@blueprint.get("/provider-connections")
@documented(summary="The provider connections", response=array_of(Connection), errors=(400, 422, 503))
async def list_connections(request: Request) -> HTTPResponse:
    return await ask_any(request, "connections.list")


@blueprint.post("/provider-connections")
@documented(
    summary="Add a provider connection", body=NewConnection, response=Connection, status=201, errors=(409, 422, 503)
)
async def add_connection(request: Request) -> HTTPResponse:
    return await ask_any(request, "connections.add", _content(body(request, NewConnection)))


@blueprint.patch("/provider-connections/<connection_id:str>")
@documented(summary="Change a provider connection", body=ConnectionChange, response=Connection, errors=(404, 422, 503))
async def change_connection(request: Request, connection_id: str) -> HTTPResponse:
    wanted = body(request, ConnectionChange)
    if not wanted.model_fields_set:
        raise InvalidRequest("Nothing to change was given")
    return await ask_any(request, "connections.change", _content(wanted), arguments={"id": connection_id})


@blueprint.delete("/provider-connections/<connection_id:str>")
@documented(summary="Delete a provider connection", response=Connection, errors=(404, 409, 503))
async def delete_connection(request: Request, connection_id: str) -> HTTPResponse:
    return await ask_any(request, "connections.delete", arguments={"id": connection_id})


def _content(wanted: ConnectionChange) -> bytes:
    content = wanted.model_dump(exclude_unset=True)
    if "api_key" in content:
        content["api_key"] = wanted.api_key.get_secret_value()
    return to_json(content)
