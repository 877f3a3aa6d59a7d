"""`/api/plugins`: bundles of skills, commands, hooks and servers; what is there, and what is installed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.arguments import body
from service.blueprints.http.asking import NETWORK_SECONDS, ask_any
from service.blueprints.http.openapi import documented
from service.blueprints.installed_extensions import Installed, add_routes

blueprint = Blueprint("plugins", url_prefix="/api/plugins")


class PluginsQuestion(BaseModel):
    """Where to look."""

    load_user: bool = True
    load_project: bool = True
    project_dir: str | None = None


class FetchPlugin(BaseModel):
    """A source with placeholders such as `${TOKEN}`, and what they stand for."""

    source: str = Field(min_length=1)
    ref: str | None = None
    repo_path: str | None = None
    secrets: dict[str, str | dict[str, Any]] = {}
    timeout: int = Field(60, ge=1, le=600, description="Seconds for each step of git.")


class SkillOfPlugin(BaseModel):
    name: str
    description: str | None


class PluginContents(BaseModel):
    skills: list[SkillOfPlugin]
    files: list[str]


class Plugin(PluginContents):
    name: str
    version: str
    description: str
    path: str


class Plugins(BaseModel):
    plugins: list[Plugin]


class FetchedPlugin(BaseModel):
    path: str
    resolved_ref: str | None
    source: str
    repo_path: str | None
    manifest: dict[str, Any]
    skills: list[str]
    commands: list[str]


class InstalledPlugin(Installed, PluginContents):
    """One that is installed, and what is in it."""


class InstalledPlugins(BaseModel):
    plugins: list[InstalledPlugin]


class OfferedPlugin(PluginContents):
    """Its `source`, `ref` and `repo_path` are what an installation takes."""

    name: str
    description: str | None
    source: str
    ref: str | None
    repo_path: str | None
    installed: bool
    path: str | None


class PluginMarketplace(BaseModel):
    plugins: list[OfferedPlugin]


@blueprint.post("")
@documented(
    summary="The plugins that conversations have by themselves", body=PluginsQuestion, response=Plugins, errors=(422,)
)
async def find_plugins(request: Request) -> HTTPResponse:
    return await ask_any(request, "plugins.list", body(request, PluginsQuestion), timeout_seconds=NETWORK_SECONDS)


@blueprint.post("/fetch")
@documented(
    summary="Fetch a plugin without installing it, and say what is in it",
    body=FetchPlugin,
    response=FetchedPlugin,
    errors=(422, 502, 504),
)
async def fetch(request: Request) -> HTTPResponse:
    wanted = body(request, FetchPlugin)
    seconds = 5.0 * wanted.timeout + NETWORK_SECONDS
    return await ask_any(request, "plugins.fetch", wanted, timeout_seconds=seconds)


@blueprint.get("/marketplace")
@documented(summary="The plugins that the public catalog offers", response=PluginMarketplace)
async def marketplace(request: Request) -> HTTPResponse:
    return await ask_any(request, "plugins.marketplace", timeout_seconds=NETWORK_SECONDS)


add_routes(blueprint, "plugins", "plugin", InstalledPlugin, InstalledPlugins)
