"""Sending a file: validators, one range, a guessed type, and memory that does not grow with the file."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import IO, NamedTuple, cast
from urllib.parse import quote

from sanic import HTTPResponse, Request

from service.blueprints.http.request_body import STALL_SECONDS

_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=\s*(\d{0,20})-(\d{0,20})", re.ASCII | re.IGNORECASE)
"""More digits than any size has are no range: the interpreter converts only so many."""


class Span(NamedTuple):
    """The bytes to send, both ends included."""

    first: int
    last: int


async def send_file(request: Request, path: Path, headers: dict[str, str] | None = None) -> HTTPResponse | None:
    """Answer `request` with the file at `path`; see `send_open_file`.

    Raises:
        FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError: as `open` does.
    """
    with await asyncio.to_thread(path.open, "rb") as source:
        return await send_open_file(request, source, content_type(path), headers)


async def send_open_file(
    request: Request, source: IO[bytes], media_type: str, headers: dict[str, str] | None = None
) -> HTTPResponse | None:
    """Answer `request` with the file, all of it or the range asked for; None: the response is already on its way.

    304 when the client's copy is current, 416 when its range lies outside. Several ranges at once are answered with
    the whole file (RFC 9110 section 14.2 allows it).
    """
    status = os.fstat(source.fileno())
    described = {**(headers or {}), **_validators(status), "accept-ranges": "bytes"}
    if _is_current(request, described):
        return HTTPResponse(status=304, headers=described)
    size, whole = status.st_size, Span(0, status.st_size - 1)
    asked = _asked_range(request, described)
    span = whole if asked is None else _satisfied(asked, size)
    if span is None:
        described["content-range"] = f"bytes */{size}"
        return HTTPResponse(status=416, headers=described, content_type="text/plain; charset=utf-8")
    if asked is not None and size:  # nothing of an empty file can be told as a range
        described["content-range"] = f"bytes {span.first}-{span.last}/{size}"
    described["content-length"] = str(span.last - span.first + 1)
    code = 206 if "content-range" in described else 200
    if request.method == "HEAD":  # Sanic cannot end a streamed answer to it (25.12)
        return HTTPResponse(status=code, headers=described, content_type=media_type)
    response = await request.respond(status=code, headers=described, content_type=media_type)
    await _stream(source, span, response, cast(asyncio.WriteTransport, request.transport))
    return None


def as_attachment(name: str) -> dict[str, str]:
    """The header that has a browser save it; RFC 6266: a plain name as it is, others encoded."""
    is_plain = quote(name) == name
    told = f'filename="{name}"' if is_plain else f"filename*=utf-8''{quote(name)}"
    return {"content-disposition": f"attachment; {told}"}


def content_type(path: Path) -> str:
    """The media type by the file's name; texts are taken for UTF-8."""
    guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


async def _stream(source: IO[bytes], span: Span, response: HTTPResponse, transport: asyncio.WriteTransport) -> None:
    length = span.last - span.first + 1
    await asyncio.to_thread(source.seek, span.first)
    while length > 0 and (chunk := await asyncio.to_thread(source.read, min(_CHUNK_BYTES, length))):
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await response.send(chunk)
        except TimeoutError:
            transport.abort()
            return
        length -= len(chunk)
    await response.eof()


def _validators(status: os.stat_result) -> dict[str, str]:
    modified = datetime.fromtimestamp(int(status.st_mtime), UTC)
    return {
        "etag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
        "last-modified": format_datetime(modified, usegmt=True),
    }


def _is_current(request: Request, headers: dict[str, str]) -> bool:
    """Whether the client's copy is this file; a tag counts for more than a date (RFC 9110 section 13.2.2)."""
    tags = request.headers.getone("if-none-match", None)
    if tags is not None:
        return headers["etag"] in tags or tags.strip() == "*"
    since = _date(request.headers.getone("if-modified-since", None))
    modified = _date(headers["last-modified"])
    return since is not None and modified is not None and modified <= since


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _asked_range(request: Request, headers: dict[str, str]) -> tuple[str, str] | None:
    """The first and the last byte as they are asked for, not both empty; None: the whole file is."""
    match = _RANGE.fullmatch(request.headers.getone("range", "").strip())
    guard = request.headers.getone("if-range", None)
    if match is None or guard not in (None, headers["etag"], headers["last-modified"]):
        return None
    first, last = match.groups()
    return (first, last) if first or last else None


def _satisfied(asked: tuple[str, str], size: int) -> Span | None:
    """What the file has of a range; None when it lies outside. Without a first byte it is so many from the end."""
    first, last = asked
    if not first:
        return Span(max(0, size - int(last)), size - 1) if int(last) else None
    span = Span(int(first), min(int(last), size - 1) if last else size - 1)
    return span if span.first <= span.last else None
