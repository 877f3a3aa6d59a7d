"""The routes that skills and plugins have in common: what is installed, and how it gets there and away."""

from __future__ import annotations

from pydantic import BaseModel, Field
from pydantic_core import to_json
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import body, text_path
from service.blueprints.http.asking import NETWORK_SECONDS, ask_any
from service.blueprints.http.openapi import documented

_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"


class Install(BaseModel):
    source: str = Field(min_length=1, description="`github:owner/repo`, a git URL or a local path.")
    ref: str | None = Field(None, description="Branch, tag or commit.")
    repo_path: str | None = Field(None, description="Folder inside the repository.")
    force: bool = Field(False, description="Replace what is installed under its name.")


class Enable(BaseModel):
    enabled: bool


class Installed(BaseModel):
    """One that is installed."""

    name: str
    version: str
    description: str
    enabled: bool
    source: str
    resolved_ref: str | None
    repo_path: str | None
    installed_at: str
    install_path: str


class Message(BaseModel):
    message: str


def add_routes(blueprint: Blueprint, kind: str, noun: str, model: type[Installed], listed: type[BaseModel]) -> None:
    """Give `blueprint` the routes below `/install` and `/installed`; `kind` names the operations and the list."""

    @blueprint.post("/install")
    @documented(summary=f"Install a {noun}", body=Install, response=model, errors=(400, 409, 422, 503))
    async def install(request: Request) -> HTTPResponse:
        return await _asked(request, "install", body(request, Install))

    @blueprint.get("/installed")
    @documented(summary=f"The {kind} that are installed", response=listed)
    async def list_installed(request: Request) -> HTTPResponse:
        return await _asked(request, "installed")

    @blueprint.get("/installed/<name:str>")
    @documented(summary=f"An installed {noun}", response=model, errors=(404, 422))
    async def get_installed(request: Request, name: str) -> HTTPResponse:
        return await _asked(request, "get", name=name)

    @blueprint.patch("/installed/<name:str>")
    @documented(summary=f"Turn a {noun} on or off", body=Enable, response={"type": "object"}, errors=(404, 422, 503))
    async def enable(request: Request, name: str) -> HTTPResponse:
        wanted = body(request, Enable)
        await _asked(request, "enable", wanted, name)
        return json_answer(to_json({"name": name, "enabled": wanted.enabled}))

    @blueprint.delete("/installed/<name:str>")
    @documented(summary=f"Remove a {noun}", response=Message, errors=(404, 422, 503))
    async def uninstall(request: Request, name: str) -> HTTPResponse:
        await _asked(request, "uninstall", name=name)
        return json_answer(to_json({"message": f"The {noun} '{name}' was removed"}))

    @blueprint.post("/installed/<name:str>/refresh")
    @documented(
        summary=f"Fetch a {noun} anew",
        response={"type": "object", "properties": {"message": {"type": "string"}}},
        errors=(400, 404, 422, 503),
    )
    async def refresh(request: Request, name: str) -> HTTPResponse:
        refreshed = await _asked(request, "refresh", name=name)
        message = to_json(f"The {noun} '{name}' was fetched anew")
        return json_answer(b'{"message":%s,"%s":%s}' % (message, noun.encode(), refreshed.body or b""))

    async def _asked(
        request: Request, what: str, content: bytes | BaseModel = b"", name: str | None = None
    ) -> HTTPResponse:
        arguments = {} if name is None else {"name": text_path(name, "name", _NAME)}
        return await ask_any(request, f"{kind}.{what}", content, arguments=arguments, timeout_seconds=NETWORK_SECONDS)
