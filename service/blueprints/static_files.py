"""The user interface's files under /static, open to everybody, where a folder of them is configured."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.context import web_of
from service.blueprints.http.file_response import send_file
from service.errors import NotFound

blueprint = Blueprint("static_files", url_prefix="/static")


async def file(request: Request, relative: str) -> HTTPResponse | None:
    """One file. Folders are 404, with or without an index.

    Raises:
        NotFound: there is no such file, or it lies outside the folder.
    """
    root = web_of(request).settings.static_files_path
    assert root is not None, "there is no such route without one"
    path = await asyncio.to_thread(find, root, relative)
    if path is None:
        raise NotFound
    return await send_file(request, path)


def find(root: Path, relative: str) -> Path | None:
    """The file `relative` below `root`, links resolved; None when there is none or it lies outside."""
    try:
        path = (root / relative.lstrip("/")).resolve()
        return path if path.is_relative_to(root.resolve()) and path.is_file() else None
    except (OSError, ValueError):
        return None


def front_page(root: Path) -> str:
    """Where / leads when `root` is served."""
    return "/static/index.html" if (root / "index.html").is_file() else "/static/"


blueprint.add_route(file, "/<relative:path>", methods=("GET", "HEAD"))
