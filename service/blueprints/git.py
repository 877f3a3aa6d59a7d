"""`/api/git`: what agents have changed, on the machine and below `/api/conversations/{id}` in one workspace.

The current server's routes take the path in the query, the older one's in the path.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.answers import json_answer
from service.blueprints.arguments import problem, query
from service.blueprints.context import web_of
from service.blueprints.files import absolute
from service.blueprints.openapi import documented
from service.blueprints.places import place
from service.blueprints.scopes import SCOPED_PREFIX, Routes, workspace_of
from service.errors import BadRequest
from service.git.changes import Change, changes, changes_of
from service.git.commits import commits
from service.git.diff import NoDiff, diff, diff_of
from service.git.program import GitFailed

blueprint = Blueprint("git", url_prefix="/api/git")
scoped = Blueprint("conversation_git", url_prefix=f"{SCOPED_PREFIX}/git")
_route = Routes(blueprint, scoped)

_SHA = r"^[0-9a-fA-F]{4,64}$"
Sha = Annotated[str, StringConstraints(pattern=_SHA)]


class ChangesQuery(BaseModel):
    """Query of `changes`."""

    path: str = Field(description="A directory.")
    ref: str | None = Field(None, description="Commit to compare with; by default where the branch came from.")


class DiffQuery(ChangesQuery):
    """Query of `diff`."""

    path: str = Field(description="A file.")
    commit: Sha | None = Field(None, description="Commit to compare with its first parent.")


class CommitsQuery(BaseModel):
    """Query of `commits`."""

    path: str = Field(description="A directory.")
    limit: int = Field(50, ge=1, le=200)


class CommitChangesQuery(BaseModel):
    """Query of a commit's changes."""

    path: str = Field(description="A directory.")


class GitChange(BaseModel):
    """One file that differs."""

    status: Literal["ADDED", "UPDATED", "DELETED", "MOVED"]
    path: str


_CHANGES = {"type": "array", "items": GitChange.model_json_schema()}


class GitDiff(BaseModel):
    """A file after and before."""

    modified: str | None
    original: str | None


class GitCommit(BaseModel):
    """One commit."""

    sha: str
    short_sha: str
    subject: str
    author: str
    timestamp: str


class GitCommitPage(BaseModel):
    """The newest commits."""

    commits: list[GitCommit]
    has_more: bool


@_route("GET", "/changes")
@documented(
    summary="Files that differ from where the branch came from",
    query=ChangesQuery,
    response=_CHANGES,
    errors=(400, 404, 422),
)
async def list_changes(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    wanted = query(request, ChangesQuery)
    directory = await _path(request, wanted.path, runtime_conversation_id)
    return await _changes(request, lambda: changes(directory, wanted.ref))


@blueprint.get("/changes/<directory_path:path>")
@documented(
    summary="Files that differ; the older server's form",
    response=_CHANGES,
    deprecated=True,
    errors=(400,),
)
async def list_changes_of_path(request: Request, directory_path: str) -> HTTPResponse:
    directory = Path(absolute(directory_path))
    return await _changes(request, lambda: changes(directory, None))


@_route("GET", "/diff")
@documented(summary="One file before and after", query=DiffQuery, response=GitDiff, errors=(400, 404, 422))
async def get_diff(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    wanted = query(request, DiffQuery)
    if wanted.ref is not None and wanted.commit is not None:
        raise BadRequest("'ref' and 'commit' are mutually exclusive")
    file = await _path(request, wanted.path, runtime_conversation_id)
    return await _diff(request, file, wanted.ref, wanted.commit)


@blueprint.get("/diff/<file_path:path>")
@documented(
    summary="One file before and after; the older server's form", response=GitDiff, deprecated=True, errors=(400,)
)
async def get_diff_of_path(request: Request, file_path: str) -> HTTPResponse:
    return await _diff(request, Path(absolute(file_path)), None, None)


@_route("GET", "/commits")
@documented(summary="The newest commits", query=CommitsQuery, response=GitCommitPage, errors=(400, 404, 422))
async def list_commits(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    wanted = query(request, CommitsQuery)
    directory = await _path(request, wanted.path, runtime_conversation_id)
    found, has_more = await _ask(request, lambda: commits(directory, wanted.limit))
    page = GitCommitPage(commits=[GitCommit(**commit._asdict()) for commit in found], has_more=has_more)
    return json_answer(page.model_dump_json().encode())


@_route("GET", "/commits/<sha:str>/changes")
@documented(
    summary="Files that a commit changed",
    query=CommitChangesQuery,
    response=_CHANGES,
    errors=(400, 404, 422),
)
async def list_changes_of_commit(
    request: Request, sha: str, runtime_conversation_id: str | None = None
) -> HTTPResponse:
    wanted = query(request, CommitChangesQuery)
    if not 4 <= len(sha) <= 64 or not all(digit in "0123456789abcdefABCDEF" for digit in sha):
        raise problem("string_pattern_mismatch", ["path", "sha"], f"String should match pattern '{_SHA}'", sha)
    directory = await _path(request, wanted.path, runtime_conversation_id)
    return await _changes(request, lambda: changes_of(directory, sha))


async def _changes(request: Request, find: Callable[[], list[Change]]) -> HTTPResponse:
    found = await _ask(request, find)
    listed = [GitChange(status=each.status, path=each.path) for each in found]
    return json_answer(b"[" + b",".join(each.model_dump_json().encode() for each in listed) + b"]")


async def _diff(request: Request, file: Path, ref: str | None, commit: str | None) -> HTTPResponse:
    found = await _ask(request, lambda: diff(file, ref) if commit is None else diff_of(file, commit))
    return json_answer(GitDiff(**found._asdict()).model_dump_json().encode())


async def _ask[Found](request: Request, find: Callable[[], Found]) -> Found:
    """What git says; its refusals are the client's. Raises BadRequest."""
    await web_of(request).note_activity()
    try:
        return await asyncio.to_thread(find)
    except (GitFailed, NoDiff) as error:
        raise BadRequest(str(error)) from None


async def _path(request: Request, path: str, runtime_conversation_id: str | None) -> Path:
    """On the machine a relative one is below the server's directory; in a workspace it is refused."""
    if runtime_conversation_id is None:
        return Path(await asyncio.to_thread(os.path.abspath, path))
    _, inside = await workspace_of(request, runtime_conversation_id)
    return (await asyncio.to_thread(place, path, "path", inside)).path
