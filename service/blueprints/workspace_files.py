"""`/api/conversations/{id}/workspace`: what an agent has made, as a browser shows it.

Served pages run in a sandbox without an origin: they can neither call the API with the viewer's rights nor read what it
answers. What holds credentials is not served.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import BinaryIO

from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.arguments import uuid_path
from service.blueprints.http.context import web_of
from service.blueprints.http.file_response import content_type, send_open_file
from service.blueprints.http.openapi import documented
from service.blueprints.http.places import Place, open_file, place
from service.blueprints.http.scopes import working_dir_of
from service.blueprints.workspace_session import require_key_or_session
from service.errors import BadRequest, InvalidRequest, NotFound

blueprint = Blueprint("workspace_files", url_prefix="/api/conversations/<conversation_id:str>/workspace")

_HEADERS = {
    "content-security-policy": "sandbox allow-scripts allow-popups allow-forms",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_CREDENTIALS = frozenset(
    {
        ".git",
        ".git-credentials",
        ".netrc",
        ".npmrc",
        ".pypirc",
        ".env",
        ".ssh",
        ".aws",
        ".azure",
        ".docker",
        ".kube",
        ".gnupg",
    }
)


@blueprint.get("/", name="workspace_root", ctx_keyed_otherwise=True)
@blueprint.get("", name="workspace", ctx_keyed_otherwise=True)
@documented(
    summary="The workspace's index.html", media_type="text/html", response={"type": "string"}, errors=(404, 422)
)
async def root(request: Request, conversation_id: str) -> HTTPResponse | None:
    return await _serve(request, conversation_id, "")


@blueprint.get("/<file_path:path>", ctx_keyed_otherwise=True)
@documented(
    summary="A file of the workspace, or a directory's index.html",
    media_type="application/octet-stream",
    response={"type": "string"},
    errors=(400, 404, 422),
)
async def file(request: Request, conversation_id: str, file_path: str) -> HTTPResponse | None:
    return await _serve(request, conversation_id, file_path)


async def _serve(request: Request, conversation_id: str, relative: str) -> HTTPResponse | None:
    require_key_or_session(request)
    web = web_of(request)
    working_dir = await working_dir_of(web, uuid_path(conversation_id))
    if relative.startswith("/"):
        raise BadRequest("Path is outside the workspace")
    try:
        found = await asyncio.to_thread(place, f"{os.path.join(working_dir, '')}{relative}", "path", working_dir)
    except InvalidRequest:
        raise BadRequest("Path is outside the workspace") from None
    # Some disks take a name in any case.
    names = [part.casefold() for part in found.parts]
    if _CREDENTIALS.intersection(names) or any(name.startswith(".env.") for name in names):
        raise NotFound("File not found")
    served, source = await asyncio.to_thread(_open, found)
    with source:
        return await send_open_file(request, source, content_type(served.path), _HEADERS)


def _open(found: Place) -> tuple[Place, BinaryIO]:
    """The file, or the index of a directory. Raises NotFound."""
    if not found.root.is_dir():
        raise NotFound("Workspace directory does not exist")
    try:
        if stat.S_ISDIR(os.stat(found.path, follow_symlinks=False).st_mode):
            index = found.below(("index.html",))
            try:
                return index, open_file(index)
            except OSError:
                raise NotFound("No index.html in directory") from None
        return found, open_file(found)
    except OSError:
        raise NotFound("File not found") from None
