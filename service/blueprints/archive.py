"""`GET /api/file/archive`: a directory as one file, as a patch or with everything in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.arguments import query
from service.blueprints.http.context import web_of
from service.blueprints.http.file_response import as_attachment, send_open_file
from service.blueprints.http.openapi import documented
from service.blueprints.http.places import Place
from service.blueprints.http.scopes import SCOPED_PREFIX, Routes, place_in_scope
from service.errors import BadRequest, NotFound, RequestFailed
from service.git.archive import (
    DEFAULT_EXCLUDES,
    NotArchived,
    archive_root,
    base_of_patch,
    described,
    write_patch,
    write_tar,
)
from service.git.program import GitFailed

blueprint = Blueprint("archive", url_prefix="/api/file")
scoped = Blueprint("conversation_archive", url_prefix=f"{SCOPED_PREFIX}/file")
_route = Routes(blueprint, scoped)

_TYPES = {"git-delta": ("text/x-patch; charset=utf-8", "patch"), "tar.gz": ("application/gzip", "tar.gz")}


class ArchiveQuery(BaseModel):
    """Query of `archive`."""

    path: str = Field(description="An absolute directory. If the only repository is up to three levels below, that.")
    format: Literal["git-delta", "tar.gz"] = Field(
        "git-delta", description="A patch of the work tree against where it came from, or all files."
    )
    base_ref: str | None = Field(None, description="Commit that a patch starts from; by default where it came from.")
    use_default_excludes: bool = Field(True, description=f"Leave out {' '.join(DEFAULT_EXCLUDES)}")
    exclude: list[str] = Field(
        [],
        description="A pattern to leave out: a name anywhere, or with a slash a path; with one at the end directories.",
    )


@_route("GET", "/archive")
@documented(
    summary="A directory as a patch or as a tar archive",
    query=ArchiveQuery,
    media_type="application/gzip",
    response={"type": "string"},
    errors=(400, 404, 422),
)
async def download_archive(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse | None:
    web, wanted = web_of(request), query(request, ArchiveQuery)
    where = await place_in_scope(request, wanted.path, runtime_conversation_id)
    media_type, suffix = _TYPES[wanted.format]
    with tempfile.TemporaryFile() as file:
        name, headers = await web.threads.call_that_takes_long(write_archive, where, wanted, file)
        await web.note_activity()
        return await send_open_file(request, file, media_type, headers | as_attachment(f"{name}.{suffix}"))


def write_archive(where: Place, wanted: ArchiveQuery, file: IO[bytes]) -> tuple[str, dict[str, str]]:
    """The name of what was archived, and what is told of it. Blocking."""
    try:
        root = _root(where)
        with root.held() as (directory, _):
            told = _write_root(directory, root.path.name, wanted, file)
    except NotArchived as error:
        raise BadRequest(str(error)) from None
    except NotADirectoryError:
        raise BadRequest("Path is not a directory") from None
    except (GitFailed, OSError) as error:
        raise RequestFailed(f"Failed to make the archive: {error}") from None
    file.flush()
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return root.path.name, {f"x-archive-{name.lower()}": quote(value, safe="") for name, value in told.items()}


def _root(where: Place) -> Place:
    """The directory, or the only repository in it."""
    with where.held() as (directory, rest):
        if not rest:
            return where.below(archive_root(directory).parts)
    if where.path.exists():
        raise BadRequest("Path is not a directory")
    raise NotFound("Directory not found")


def _write_root(directory: Path, name: str, wanted: ArchiveQuery, file: IO[bytes]) -> dict[str, str]:
    excludes = (*(DEFAULT_EXCLUDES if wanted.use_default_excludes else ()), *wanted.exclude)
    told = described(directory)
    if wanted.format == "tar.gz":
        write_tar(directory, name, excludes, file)
        return told
    base = base_of_patch(directory, wanted.base_ref)
    write_patch(directory, base, excludes, file)
    return told if base.commit is None else told | {"Base-Commit": base.commit, "Base-Ref": wanted.base_ref or "auto"}
