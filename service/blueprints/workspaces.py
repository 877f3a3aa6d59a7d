"""`/api/workspaces`: folders that front ends offer to work in, and folders whose folders they offer."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic_core import to_json
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import Deleted
from service.blueprints.http.arguments import body, query
from service.blueprints.http.asking import ask_any
from service.blueprints.http.openapi import documented

blueprint = Blueprint("workspaces", url_prefix="/api/workspaces")


class WorkspaceParent(BaseModel):
    """The path need not exist."""

    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(min_length=1, max_length=4096)
    name: str = Field(min_length=1, max_length=256)
    path: str = Field(min_length=1, max_length=4096)


class ListedWorkspace(WorkspaceParent):
    parentPath: str | None = Field(None, max_length=4096, validation_alias=AliasChoices("parentPath", "parent_path"))


class WorkspacesToAdd(BaseModel):
    workspaces: list[ListedWorkspace]


class ParentsToAdd(BaseModel):
    parents: list[WorkspaceParent]


class Workspaces(BaseModel):
    workspaces: list[ListedWorkspace]
    workspaceParents: list[WorkspaceParent]


class PathToDelete(BaseModel):
    path: str


@blueprint.get("")
@documented(summary="The workspaces", response=Workspaces, errors=(409, 503))
async def list_workspaces(request: Request) -> HTTPResponse:
    return await ask_any(request, "workspaces.list")


@blueprint.post("")
@documented(summary="Add workspaces", body=WorkspacesToAdd, response=Workspaces, errors=(409, 503))
async def add_workspaces(request: Request) -> HTTPResponse:
    return await _add(request, "workspaces", body(request, WorkspacesToAdd).workspaces)


@blueprint.delete("")
@documented(summary="Take a workspace off the list", query=PathToDelete, response=Deleted, errors=(404, 409, 503))
async def delete_workspace(request: Request) -> HTTPResponse:
    return await _delete(request, "workspaces")


@blueprint.post("/parents")
@documented(summary="Add folders of workspaces", body=ParentsToAdd, response=Workspaces, errors=(409, 503))
async def add_parents(request: Request) -> HTTPResponse:
    return await _add(request, "workspaceParents", body(request, ParentsToAdd).parents)


@blueprint.delete("/parents")
@documented(
    summary="Take a folder of workspaces off the list", query=PathToDelete, response=Deleted, errors=(404, 409, 503)
)
async def delete_parent(request: Request) -> HTTPResponse:
    return await _delete(request, "workspaceParents")


async def _add(request: Request, name: str, entries: list[Any]) -> HTTPResponse:
    content = [entry.model_dump(exclude_none=True) for entry in entries]
    return await ask_any(request, "workspaces.add", to_json(content), arguments={"list": name})


async def _delete(request: Request, name: str) -> HTTPResponse:
    return await ask_any(
        request, "workspaces.delete", arguments={"list": name, "path": query(request, PathToDelete).path}
    )
