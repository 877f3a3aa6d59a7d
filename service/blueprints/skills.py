"""`/api/skills`: what agents can be taught, from where, and what is installed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.arguments import body
from service.blueprints.http.asking import NETWORK_SECONDS, ask_any
from service.blueprints.http.openapi import documented
from service.blueprints.installed_extensions import Installed, add_routes

blueprint = Blueprint("skills", url_prefix="/api/skills")


class MarketplaceReference(BaseModel):
    name: str
    source: str
    ref: str | None = None
    repo_path: str | None = None
    auto_load: bool | list[str] = False


class Organization(BaseModel):
    repository: str
    provider: str
    org_repo_url: str = Field(description="May carry credentials, which are not kept.")
    org_name: str


class ExposedUrl(BaseModel):
    name: str
    url: str
    port: int


class Sandbox(BaseModel):
    exposed_urls: list[ExposedUrl] = []


class SkillsQuestion(BaseModel):
    """Where to look."""

    load_public: bool = True
    load_user: bool = True
    load_project: bool = True
    load_org: bool = True
    marketplace_path: str | None = "marketplaces/default.json"
    registered_marketplaces: list[MarketplaceReference] = []
    project_dir: str | None = None
    org_configs: list[Organization] | None = None
    sandbox_config: Sandbox | None = None


class Skill(BaseModel):
    name: str
    type: Literal["repo", "knowledge", "agentskills"]
    content: str
    triggers: list[str]
    source: str | None
    description: str | None
    is_agentskills_format: bool
    disable_model_invocation: bool


class CatalogSkill(Skill):
    origin: Literal["public", "user"]


class Skills(BaseModel):
    """Those that were found, and how many each source has."""

    skills: list[Skill]
    sources: dict[str, int]


class SkillCatalog(BaseModel):
    skills: list[CatalogSkill]


class SyncResult(BaseModel):
    status: Literal["success", "error"]
    message: str


class OfferedSkill(BaseModel):
    """Its `source`, `ref` and `repo_path` are what an installation takes."""

    name: str
    description: str | None
    source: str
    ref: str | None
    repo_path: str | None
    installed: bool


class SkillMarketplace(BaseModel):
    skills: list[OfferedSkill]


class InstalledSkills(BaseModel):
    skills: list[Installed]


@blueprint.post("")
@documented(summary="The skills that an agent can be given", body=SkillsQuestion, response=Skills, errors=(422,))
async def find_skills(request: Request) -> HTTPResponse:
    return await ask_any(request, "skills.list", body(request, SkillsQuestion), timeout_seconds=NETWORK_SECONDS)


@blueprint.get("/catalog")
@documented(summary="The skills that an agent profile can choose among", response=SkillCatalog)
async def catalog(request: Request) -> HTTPResponse:
    return await ask_any(request, "skills.catalog", timeout_seconds=NETWORK_SECONDS)


@blueprint.post("/sync")
@documented(summary="Fetch the public skills now", response=SyncResult)
async def sync(request: Request) -> HTTPResponse:
    return await ask_any(request, "skills.sync", timeout_seconds=NETWORK_SECONDS)


@blueprint.get("/marketplace")
@documented(summary="The skills that the public catalog offers", response=SkillMarketplace)
async def marketplace(request: Request) -> HTTPResponse:
    return await ask_any(request, "skills.marketplace", timeout_seconds=NETWORK_SECONDS)


add_routes(blueprint, "skills", "skill", Installed, InstalledSkills)
