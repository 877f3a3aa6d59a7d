"""Whether the disk takes writes, and this process can ask it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

_LEAST_FREE_BYTES = 1 << 20
"""Less than this, and the next event or snapshot may not fit (guess)."""

_REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),  # this process or machine has no more to open a file with
    *(errno.ESTALE, errno.ETIMEDOUT),  # of network disks
)


def disk_problem(directory: Path) -> str | None:
    """Why nothing can be written below `directory`, which need not exist yet; None when it can. Blocking."""
    try:
        existing = nearest_existing(directory)
        if not existing.is_dir():
            return f"{existing} is not a directory"
        status = os.statvfs(existing)
    except OSError as error:
        return f"The disk of {directory} does not answer: {error.strerror}"
    if status.f_flag & os.ST_RDONLY or not os.access(existing, os.W_OK):
        return f"{existing} is read-only"
    if status.f_blocks and status.f_bavail * status.f_frsize < _LEAST_FREE_BYTES:  # some network disks tell no sizes
        return f"The disk of {existing} is full"
    return None


def can_open() -> bool:
    """Whether this process has a descriptor left to open anything with."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def is_refusal(error: OSError) -> bool:
    """Whether the disk takes nothing for now; any other error would come again, however long one waits."""
    return error.errno in _REFUSALS


def nearest_existing(directory: Path) -> Path:
    """The directory or the first above it that exists. Raises OSError where that cannot be told."""
    for path in (directory, *directory.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat(path)  # not `exists`, which since Python 3.14 takes a disk that does not answer for an empty one
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory))
