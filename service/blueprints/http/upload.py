"""Taking in a file of any size: multipart parsed as it comes, a temporary file beside the target, then a rename."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from sanic import Request
from sanic.exceptions import PayloadTooLarge

from service.blueprints.http.arguments import invalid_value
from service.blueprints.http.places import Place
from service.blueprints.http.request_body import parts_of_body
from service.errors import BadRequest

_FIELD = b"file"
_OVERHEAD_BYTES = 64 * 1024
"""Boundaries, headers and other fields around the file."""
_NEW_FILE_MODE = 0o644


class _FilePart:
    """Writes the last part called `file` to a stream."""

    def __init__(self, boundary: bytes, target: BinaryIO) -> None:
        self.size_bytes = 0
        self._was_found = False
        self._is_whole = False
        self._target = target
        self._is_file = False
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._choose,
                "on_part_data": self._on_data,
                "on_part_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Blocking. Raises MultipartParseError, OSError."""
        self._parser.write(data)

    def finish(self) -> None:
        """The body is over. Raises InvalidRequest: it had no such part, or ends within it; MultipartParseError."""
        self._parser.finalize()
        if not self._was_found:
            raise invalid_value("missing", ["body", "file"], "Field required", None)
        # The delimiter that follows the file shows that it is whole, so a closing one is not insisted upon.
        if not self._is_whole:
            raise invalid_value("value_error", ["body", "file"], "The body ends within the file", None)

    def _begin(self) -> None:
        self._is_file = False
        self._disposition = self._header = self._value = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _choose(self) -> None:
        _, options = parse_options_header(self._disposition)
        # Without a file name it is a plain field.
        self._is_file = options.get(b"name") == _FIELD and b"filename" in options
        if self._is_file:
            self._was_found = True
            self._is_whole = False
            self.size_bytes = 0
            self._target.seek(0)
            self._target.truncate()

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._target.write(data[start:end])
            self.size_bytes += end - start

    def _end(self) -> None:
        if self._is_file:
            self._is_whole = True


async def take_upload(request: Request, place: Place, limit_bytes: int, *, fsync: bool) -> int:
    """Store the body's part `file` at `place`, whole or not at all; returns its size in bytes.

    The handler must be a streaming one.

    Raises:
        InvalidRequest: the body is no multipart form with such a part, or ends within it; nothing was stored.
        PayloadTooLarge: it is larger than `limit_bytes`; nothing was stored.
        RequestTimeout: the client has stopped sending it; nothing was stored.
        OSError: it cannot be stored.
    """
    media_type, options = parse_options_header(request.headers.getone("content-type", ""))
    if media_type != b"multipart/form-data" or not options.get(b"boundary"):
        raise invalid_value("missing", ["body", "file"], "Field required", None)
    # Sanic's limit is for bodies that it keeps in memory.
    request.stream.request_max_size = limit_bytes + _OVERHEAD_BYTES  # type: ignore[union-attr]
    async with _replacement(place, fsync) as replacement:
        part = _FilePart(options[b"boundary"], replacement.file)
        try:
            async for data in parts_of_body(request):
                await _in_thread(part.feed, data)
                if part.size_bytes > limit_bytes:
                    raise PayloadTooLarge(f"The file is larger than {limit_bytes} bytes")
            part.finish()
        except MultipartParseError as error:
            raise invalid_value("value_error", ["body", "file"], str(error), None) from None
        await _in_thread(replacement.keep)
    return part.size_bytes


async def _in_thread[**P, R](function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of `function`; a client that hangs up does not take away what the thread works on."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


@asynccontextmanager
async def _replacement(place: Place, fsync: bool) -> AsyncIterator[_Replacement]:
    replacement = _Replacement(place, fsync)
    try:
        await _in_thread(replacement.open)
        yield replacement
    finally:
        replacement.close()


class _Replacement:
    """A new file that takes the target's name when it is kept, and vanishes otherwise."""

    def __init__(self, place: Place, fsync: bool) -> None:
        self._place = place
        self._name = place.parts[-1]
        self._temporary = f".{secrets.token_hex(8)}.upload"
        self._fsync = fsync
        self._directory: int | None = None
        self.file: BinaryIO = BytesIO()

    def open(self) -> None:
        """Make the temporary file and the directories above it. Raises OSError, BadRequest."""
        with self._place.parent(create=True) as directory:
            self._directory = os.dup(directory)
        mode = _replaceable_mode(self._name, self._directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.file = os.fdopen(os.open(self._temporary, flags, mode, dir_fd=self._directory), "r+b")
        if mode != _NEW_FILE_MODE:
            os.fchmod(self.file.fileno(), mode)

    def close(self) -> None:
        """Remove the temporary file, unless it was kept."""
        self.file.close()
        if self._directory is not None:
            with suppress(FileNotFoundError):  # kept
                os.unlink(self._temporary, dir_fd=self._directory)
            os.close(self._directory)

    def keep(self) -> None:
        self.file.flush()
        if self._fsync:
            os.fsync(self.file.fileno())
        os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)


def _replaceable_mode(name: str, directory: int) -> int:
    """The mode of the file that is replaced. Raises IsADirectoryError, and BadRequest for what is no file otherwise."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return _NEW_FILE_MODE
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(name)
    if not stat.S_ISREG(status.st_mode):
        raise BadRequest("Path is not a file")
    return stat.S_IMODE(status.st_mode)
