"""`/api/file`: files of the machine, and `/api/conversations/{id}/file` for those of one conversation's workspace.

The current server's routes take the path in the query, the older one's in the path.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from pathlib import Path

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import Success, json_answer
from service.blueprints.http.arguments import query, uuid_path
from service.blueprints.http.context import web_of
from service.blueprints.http.file_response import as_attachment, send_open_file
from service.blueprints.http.openapi import documented
from service.blueprints.http.places import Place, absolute, open_file
from service.blueprints.http.scopes import SCOPED_PREFIX, Routes, place_in_scope, workspace_of
from service.blueprints.http.upload import take_upload
from service.errors import BadRequest, Forbidden, InvalidRequest, NotFound, RequestFailed
from service.store.trajectory import write_trajectory

blueprint = Blueprint("files", url_prefix="/api/file")
scoped = Blueprint("conversation_files", url_prefix=f"{SCOPED_PREFIX}/file")
_route = Routes(blueprint, scoped)

_OCTETS = "application/octet-stream"
_MOST_FAVORITES = 50


class PathQuery(BaseModel):
    """Which file or directory."""

    path: str = Field(description="Absolute.")


class Uploaded(BaseModel):
    """What was stored."""

    success: bool
    file_size: int


class HomeQuery(BaseModel):
    """Query of `home`."""

    include_hidden: bool = False


class Labelled(BaseModel):
    """A directory and what to call it."""

    label: str
    path: str


class Home(BaseModel):
    """Where a person may begin to look."""

    home: str
    favorites: list[Labelled]
    locations: list[Labelled]


class SubdirectoryQuery(PathQuery):
    """Query of `search_subdirs`."""

    limit: int = Field(100, gt=0, le=100)
    page_id: str | None = None
    include_hidden: bool = False


class Subdirectory(BaseModel):
    """One directory."""

    name: str
    path: str


class SubdirectoryPage(BaseModel):
    """Some directories in order."""

    items: list[Subdirectory]
    next_page_id: str | None


@_route("POST", "/upload", stream=True)
@documented(
    summary="Store a file",
    description="`multipart/form-data` with a part `file`. The target is replaced whole or not at all.",
    response=Uploaded,
    query=PathQuery,
    errors=(400, 404, 413, 422),
)
async def upload(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    return await _store(request, query(request, PathQuery).path, runtime_conversation_id)


@blueprint.post("/upload/<file_path:path>", stream=True)
@documented(summary="Store a file; the older server's form", response=Uploaded, deprecated=True, errors=(400, 413, 422))
async def upload_to_path(request: Request, file_path: str) -> HTTPResponse:
    return await _store(request, absolute(file_path), None)


@_route("GET", "/download")
@documented(
    summary="A file's content", query=PathQuery, media_type=_OCTETS, response={"type": "string"}, errors=(400, 404, 422)
)
async def download(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse | None:
    return await _send(request, query(request, PathQuery).path, runtime_conversation_id)


@blueprint.get("/download/<file_path:path>")
@documented(
    summary="A file's content; the older server's form",
    media_type=_OCTETS,
    response={"type": "string"},
    deprecated=True,
    errors=(400, 404),
)
async def download_from_path(request: Request, file_path: str) -> HTTPResponse | None:
    return await _send(request, absolute(file_path), None)


@_route("POST", "/create_directory")
@documented(summary="Make a directory and its parents", query=PathQuery, response=Success, errors=(400, 403, 404, 422))
async def create_directory(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    path = query(request, PathQuery).path
    target = await place_in_scope(request, path, runtime_conversation_id)
    try:
        await asyncio.to_thread(_make_directory, target)
    except (FileExistsError, NotADirectoryError):
        raise BadRequest("Path exists and is not a directory") from None
    except PermissionError as error:
        raise Forbidden(f"Permission denied: {_reason(error, path)}") from None
    except OSError as error:
        raise RequestFailed(f"Failed to create directory: {_reason(error, path)}") from None
    await web_of(request).note_activity()
    return json_answer(Success())


@_route("GET", "/download-trajectory/<conversation_id:str>")
@documented(
    summary="A conversation's files as a zip archive",
    media_type=_OCTETS,
    response={"type": "string"},
    errors=(404, 422),
)
async def download_trajectory(
    request: Request, conversation_id: str, runtime_conversation_id: str | None = None
) -> HTTPResponse | None:
    web = web_of(request)
    if runtime_conversation_id is None:
        wanted = uuid_path(conversation_id)
    else:
        own, _ = await workspace_of(request, runtime_conversation_id)
        try:
            wanted = uuid_path(conversation_id)
        except InvalidRequest:
            raise InvalidRequest("Invalid trajectory conversation id") from None
        if wanted != own:
            raise InvalidRequest("Trajectory must belong to the selected conversation")
    if not web.root.exists(wanted):
        raise NotFound("Conversation not found")
    with tempfile.TemporaryFile() as archive:
        await web.threads.call_that_takes_long(write_trajectory, web.root.directory(wanted).path, archive)
        return await send_open_file(request, archive, _OCTETS, as_attachment(f"{wanted.hex}.zip"))


@blueprint.get("/home")
@documented(summary="Where to begin to look for directories", query=HomeQuery, response=Home)
async def home(request: Request) -> HTTPResponse:
    found = await asyncio.to_thread(_home, query(request, HomeQuery).include_hidden)
    return json_answer(found)


@blueprint.get("/search_subdirs")
@documented(
    summary="A page of the directories in a directory",
    query=SubdirectoryQuery,
    response=SubdirectoryPage,
    errors=(400, 403, 404, 422),
)
async def search_subdirs(request: Request) -> HTTPResponse:
    wanted = query(request, SubdirectoryQuery)
    directory = await place_in_scope(request, wanted.path, None)
    try:
        page = await asyncio.to_thread(_subdirectories, directory.path, wanted)
    except FileNotFoundError:
        raise NotFound("Directory not found") from None
    except NotADirectoryError:
        raise BadRequest("Path is not a directory") from None
    except PermissionError as error:
        raise Forbidden(f"Permission denied: {error}") from None
    return json_answer(page)


async def _store(request: Request, path: str, runtime_conversation_id: str | None) -> HTTPResponse:
    settings = web_of(request).settings
    target = await place_in_scope(request, path, runtime_conversation_id)
    if not target.parts:
        raise BadRequest("Path is a directory")
    try:
        size_bytes = await take_upload(request, target, settings.upload_max_bytes, fsync=settings.fsync)
    except IsADirectoryError:
        raise BadRequest("Path is a directory") from None
    except (NotADirectoryError, FileExistsError):
        raise BadRequest("A parent of the path is not a directory") from None
    except OSError as error:
        raise RequestFailed(f"Failed to upload file: {_reason(error, path)}") from None
    await web_of(request).note_activity()
    return json_answer(Uploaded(success=True, file_size=size_bytes))


async def _send(request: Request, path: str, runtime_conversation_id: str | None) -> HTTPResponse | None:
    target = await place_in_scope(request, path, runtime_conversation_id)
    try:
        source = await asyncio.to_thread(open_file, target)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("File not found") from None
    except IsADirectoryError:
        raise BadRequest("Path is not a file") from None
    except OSError as error:
        raise RequestFailed(f"Failed to download file: {_reason(error, path)}") from None
    with source:
        await web_of(request).note_activity()
        return await send_open_file(request, source, _OCTETS, as_attachment(Path(path).name))


def _reason(error: OSError, path: str) -> str:
    """What went wrong, with the path that was asked for: the error itself names a step on the way to it."""
    return str(OSError(error.errno, error.strerror, path))


def _make_directory(target: Place) -> None:
    if not target.parts:
        return
    with target.parent(create=True) as directory:
        try:
            os.mkdir(target.parts[-1], dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(target.parts[-1], dir_fd=directory, follow_symlinks=False).st_mode):
                raise


def _home(include_hidden: bool) -> Home:
    directory = Path.home()
    try:
        favorites = _directories(directory, include_hidden)[:_MOST_FAVORITES]
    except OSError:
        favorites = []  # a service may be given a home that does not exist
    return Home(
        home=str(directory),
        favorites=[Labelled(label=path.name, path=str(path)) for path in favorites],
        locations=[Labelled(label="/", path="/")],
    )


def _subdirectories(directory: Path, wanted: SubdirectoryQuery) -> SubdirectoryPage:
    found = _directories(directory, wanted.include_hidden)
    names = [path.name for path in found]
    start = 0
    if wanted.page_id:
        if wanted.page_id not in names:
            raise BadRequest(f"Unknown page_id: {wanted.page_id}")
        start = names.index(wanted.page_id)
    page, following = found[start : start + wanted.limit], names[start + wanted.limit : start + wanted.limit + 1]
    # Below the path that was asked for: a link in it is the client's name for the place.
    items = [Subdirectory(name=path.name, path=str(Path(wanted.path) / path.name)) for path in page]
    return SubdirectoryPage(items=items, next_page_id=following[0] if following else None)


def _directories(directory: Path, include_hidden: bool) -> list[Path]:
    """The real directories in it, in the order people expect; not those that could neither be told nor asked for."""
    with os.scandir(directory) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False)
            and (include_hidden or not entry.name.startswith("."))
            and _is_utf_8(entry.name)
        ]
    return [directory / name for name in sorted(names, key=lambda name: (name.casefold(), name))]


def _is_utf_8(name: str) -> bool:
    return name.encode(errors="ignore").decode() == name
