"""Files that are either the old or the new, never half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

FILE_MODE = 0o600
"""Conversations hold what users wrote and tools read: nobody but the server's user looks at them."""


def write_atomically(
    path: Path | str,
    data: bytes,
    *,
    fsync: bool,
    fsync_name: bool = True,
    temporary_in: Path | None = None,
    committing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Replace `path` by `data`: a temporary file in the same directory or `temporary_in`, then a rename.

    With `fsync` the bytes survive a power cut, and with `fsync_name` the name does too, at the price of a second
    sync; without it call `fsync_directory` before acknowledging. The parent directory must exist. A crash leaves at
    most a dot-file ending in `.tmp`, which readers ignore.
    """
    parent, name = os.path.split(path)
    temporary = os.path.join(temporary_in or parent, f".{name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            write_all(descriptor, data)
            if fsync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with committing():
            os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if fsync and fsync_name:
        fsync_directory(parent)


def fsync_directory(path: Path | str) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """As `os.write`, which may take a part only. Where this raises, some of it may be in the file."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
