"""`/api/profiles` and `/api/meta-profiles`: LLMs under names, and rules that choose among them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.arguments import body, checked_json, exposure, invalid
from service.blueprints.http.asking import ask_any
from service.blueprints.http.openapi import documented
from service.errors import JsonObject

blueprint = Blueprint("profiles", url_prefix="/api/profiles")
meta = Blueprint("meta_profiles", url_prefix="/api/meta-profiles")


ProfileName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_NAME: TypeAdapter[str] = TypeAdapter(ProfileName)


class NewName(BaseModel):
    new_name: ProfileName


class ProfileSummary(BaseModel):
    name: str
    model: str | None
    base_url: str | None
    provider_connection_id: str | None
    provider_connection_broken: bool
    api_key_set: bool


class ProfileList(BaseModel):
    profiles: list[ProfileSummary]
    active_profile: str | None


class ProfileDetail(BaseModel):
    """`config` is an LLM of the SDK."""

    name: str
    config: dict[str, Any]
    api_key_set: bool


class ProfileMessage(BaseModel):
    name: str
    message: str


class ActivatedProfile(ProfileMessage):
    llm_applied: bool


class LlmProblem(BaseModel):
    type: str
    message: str


class LlmVerdict(BaseModel):
    valid: bool
    error: LlmProblem | None


class MetaProfileSummary(BaseModel):
    name: str
    classifier_model: str | None
    num_classes: int


class MetaProfileList(BaseModel):
    meta_profiles: list[MetaProfileSummary]
    active_meta_profile: str | None


class MetaProfileDetail(BaseModel):
    name: str
    config: dict[str, Any]


class ActivatedMetaProfile(ProfileMessage):
    applied: bool


def named(name: str) -> JsonObject:
    """The argument that a path's name is. Raises InvalidRequest when no profile can have it."""
    try:
        return {"name": _NAME.validate_python(name)}
    except ValidationError as error:
        raise invalid(error, "path", "name") from None


@blueprint.get("")
@documented(summary="The LLM profiles", response=ProfileList, errors=(409, 503))
async def list_profiles(request: Request) -> HTTPResponse:
    return await ask_any(request, "profiles.list")


@blueprint.get("/<name:str>")
@documented(summary="An LLM profile", response=ProfileDetail, errors=(400, 404, 422, 503))
async def get_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "profiles.get", arguments={**named(name), **exposure(request)})


@blueprint.post("/<name:str>")
@documented(
    summary="Save an LLM profile", body="NewProfile", response=ProfileMessage, status=201, errors=(409, 422, 503)
)
async def save_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "profiles.save", checked_json(request), arguments=named(name))


@blueprint.delete("/<name:str>")
@documented(summary="Delete an LLM profile", response=ProfileMessage, errors=(409, 422, 503))
async def delete_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "profiles.delete", arguments=named(name))


@blueprint.post("/<name:str>/rename")
@documented(summary="Rename an LLM profile", body=NewName, response=ProfileMessage, errors=(404, 409, 422, 503))
async def rename_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "profiles.rename", body(request, NewName), arguments=named(name))


@blueprint.post("/<name:str>/activate")
@documented(summary="Use an LLM profile for new agents", response=ActivatedProfile, errors=(400, 404, 409, 422, 503))
async def activate_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "profiles.activate", arguments=named(name))


@blueprint.post("/<name:str>/validate")
@documented(summary="Try an LLM out, with one short call", body="LlmDraft", response=LlmVerdict, errors=(422,))
async def validate_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "profiles.validate", checked_json(request), arguments=named(name))


@meta.get("")
@documented(summary="The meta-profiles", response=MetaProfileList, errors=(409, 503))
async def list_meta_profiles(request: Request) -> HTTPResponse:
    return await ask_any(request, "meta_profiles.list")


@meta.get("/<name:str>")
@documented(summary="A meta-profile", response=MetaProfileDetail, errors=(400, 404, 422, 503))
async def get_meta_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "meta_profiles.get", arguments=named(name))


@meta.post("/<name:str>")
@documented(
    summary="Save a meta-profile", body={"type": "object"}, response=ProfileMessage, status=201, errors=(409, 422, 503)
)
async def save_meta_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "meta_profiles.save", checked_json(request), arguments=named(name))


@meta.delete("/<name:str>")
@documented(summary="Delete a meta-profile", response=ProfileMessage, errors=(409, 422, 503))
async def delete_meta_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "meta_profiles.delete", arguments=named(name))


@meta.post("/<name:str>/activate")
@documented(
    summary="Let new agents choose by a meta-profile",
    response=ActivatedMetaProfile,
    errors=(400, 404, 409, 422, 503),
)
async def activate_meta_profile(request: Request, name: str) -> HTTPResponse:
    return await ask_any(request, "meta_profiles.activate", arguments=named(name))
