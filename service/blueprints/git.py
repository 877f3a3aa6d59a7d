"""`/api/git`: what agents have changed, on the machine and below `/api/conversations/{id}` in one workspace.

The current server's routes take the path in the query, the older one's in the path.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import BaseModel, Field, StringConstraints
from pydantic_core import to_json
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import query, text_path
from service.blueprints.http.asking import ask_any
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented
from service.blueprints.http.places import Place, absolute, open_file
from service.blueprints.http.scopes import SCOPED_PREFIX, Routes, place_in_scope
from service.errors import BadRequest
from service.git.changes import Change, changes, changes_of
from service.git.commits import commits
from service.git.diff import Diff, File, NoDiff, diff, diff_of
from service.git.program import GitFailed

blueprint = Blueprint("git", url_prefix="/api/git")
scoped = Blueprint("conversation_git", url_prefix=f"{SCOPED_PREFIX}/git")
_route = Routes(blueprint, scoped)

_SHA = r"^[0-9a-fA-F]{4,64}$"
Sha = Annotated[str, StringConstraints(pattern=_SHA)]


class CommitChangesQuery(BaseModel):
    """Query of a commit's changes."""

    path: str = Field(description="A directory.")


class ChangesQuery(CommitChangesQuery):
    """Query of `changes`."""

    ref: str | None = Field(None, description="Commit to compare with; by default where the branch came from.")


class DiffQuery(ChangesQuery):
    """Query of `diff`."""

    path: str = Field(description="A file.")
    commit: Sha | None = Field(None, description="Commit to compare with its first parent.")


class CommitsQuery(CommitChangesQuery):
    """Query of `commits`."""

    limit: int = Field(50, ge=1, le=200)


class GitChange(BaseModel):
    """One file that differs."""

    status: Literal["ADDED", "UPDATED", "DELETED", "MOVED"]
    path: str


class RepositoryQuery(BaseModel):
    """Query of the repositories of a host."""

    provider: Literal["github", "gitlab", "bitbucket", "azure_devops"]
    query: str | None = Field(None, description="Part of the full name.")
    limit: int = Field(100, ge=1, le=100)
    page_id: str | None = None


class Repository(BaseModel):
    """One that the stored token's owner works with."""

    id: str
    full_name: str
    git_provider: str
    is_public: bool
    stargazers_count: int | None
    pushed_at: str | None
    main_branch: str | None


class RepositoryPage(BaseModel):
    """A page, the last pushed to first."""

    items: list[Repository]
    next_page_id: str | None
    missing_token: bool


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
    where = await _place(request, wanted.path, runtime_conversation_id)
    return await _changes(request, where, lambda directory: changes(directory, wanted.ref))


@blueprint.get("/changes/<directory_path:path>")
@documented(
    summary="Files that differ; the older server's form",
    response=_CHANGES,
    deprecated=True,
    errors=(400,),
)
async def list_changes_of_path(request: Request, directory_path: str) -> HTTPResponse:
    where = await _place(request, absolute(directory_path))
    return await _changes(request, where, lambda directory: changes(directory, None))


@_route("GET", "/diff")
@documented(summary="One file before and after", query=DiffQuery, response=GitDiff, errors=(400, 404, 422))
async def get_diff(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    wanted = query(request, DiffQuery)
    if wanted.ref is not None and wanted.commit is not None:
        raise BadRequest("'ref' and 'commit' are mutually exclusive")
    where = await _place_of_file(request, wanted.path, runtime_conversation_id)
    return await _diff(request, where, wanted.ref, wanted.commit)


@blueprint.get("/diff/<file_path:path>")
@documented(
    summary="One file before and after; the older server's form", response=GitDiff, deprecated=True, errors=(400,)
)
async def get_diff_of_path(request: Request, file_path: str) -> HTTPResponse:
    return await _diff(request, await _place_of_file(request, absolute(file_path)), None, None)


@_route("GET", "/commits")
@documented(summary="The newest commits", query=CommitsQuery, response=GitCommitPage, errors=(400, 404, 422))
async def list_commits(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    wanted = query(request, CommitsQuery)
    where = await _place(request, wanted.path, runtime_conversation_id)
    found, has_more = await _ask_in(request, where, lambda directory: commits(directory, wanted.limit)) or ([], False)
    return json_answer(to_json({"commits": [commit._asdict() for commit in found], "has_more": has_more}))


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
    commit = text_path(sha, "sha", _SHA)
    where = await _place(request, wanted.path, runtime_conversation_id)
    return await _changes(request, where, lambda directory: changes_of(directory, commit))


@blueprint.get("/repositories/search")
@documented(
    summary="Repositories that the stored token gives access to",
    query=RepositoryQuery,
    response=RepositoryPage,
    errors=(400, 409, 422, 502, 504),
)
async def search_repositories(request: Request) -> HTTPResponse:
    wanted = query(request, RepositoryQuery)
    if wanted.provider != "github":
        raise BadRequest(f"Repository discovery is not supported for provider '{wanted.provider}'")
    arguments = wanted.model_dump(include={"query", "limit", "page_id"})
    return await ask_any(request, "repositories.search", arguments=arguments, timeout_seconds=60)


async def _changes(request: Request, where: Place, find: Callable[[Path], list[Change]]) -> HTTPResponse:
    found = await _ask_in(request, where, find) or []
    return json_answer(to_json([{"status": each.status, "path": each.path} for each in found]))


async def _diff(request: Request, where: Place, ref: str | None, commit: str | None) -> HTTPResponse:
    def find() -> Diff:
        if not where.parts:
            raise NoDiff(f"Path is not a file: {where.path}")
        # The directory above it, because it may be a directory itself where it was a file.
        with Place(where.root, where.parts[:-1]).held() as (directory, rest):
            file = File(where.path, directory, "/".join((*rest, where.parts[-1])), lambda: _open(where))
            return diff(file, ref) if commit is None else diff_of(file, commit)

    return json_answer(to_json((await _ask(request, find))._asdict()))


async def _place_of_file(request: Request, path: str, runtime_conversation_id: str | None = None) -> Place:
    """Where `path` leads; a link that leads to no file is taken for itself, as git takes all of them."""
    target = await _place(request, path, runtime_conversation_id)
    if await asyncio.to_thread(lambda: os.path.isfile(target.path) or not os.path.islink(path)):
        return target
    above, name = os.path.split(path)
    return (await _place(request, above, runtime_conversation_id)).below((name,))


def _open(where: Place) -> BinaryIO:
    """The file at a place, or the text of a link, which is what git keeps of one. Raises as `open_file`."""
    with where.parent() as directory:
        status = os.stat(where.parts[-1], dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return BytesIO(os.fsencode(os.readlink(where.parts[-1], dir_fd=directory)))
    return open_file(where)


async def _ask_in[Found](request: Request, where: Place, find: Callable[[Path], Found]) -> Found | None:
    """What git says in a directory; None where there is none. Raises BadRequest."""

    def ask() -> Found | None:
        with where.held() as (directory, rest):
            return None if rest else find(directory)

    return await _ask(request, ask)


async def _ask[Found](request: Request, find: Callable[[], Found]) -> Found:
    """What git says; its refusals are the client's. Raises BadRequest."""
    web = web_of(request)
    await web.note_activity()
    try:
        return await web.threads.call_that_takes_long(find)
    except (GitFailed, NoDiff, OSError) as error:
        raise BadRequest(str(error)) from None


async def _place(request: Request, path: str, runtime_conversation_id: str | None = None) -> Place:
    """On the machine a relative path is below the server's directory; in a workspace it is refused."""
    if runtime_conversation_id is None:
        path = await asyncio.to_thread(os.path.abspath, path)
    return await place_in_scope(request, path, runtime_conversation_id)
