"""Whether the disk takes writes."""

from __future__ import annotations

import os
from pathlib import Path

_LEAST_FREE_BYTES = 1 << 20
"""Less than this, and the next event or snapshot may not fit (guess)."""


def disk_problem(directory: Path) -> str | None:
    """Why nothing can be written below `directory`, which need not exist yet; None when it can. Blocking."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is not a directory"
    try:
        status = os.statvfs(existing)
    except OSError as error:
        return f"The disk of {existing} does not answer: {error.strerror}"
    if status.f_flag & os.ST_RDONLY or not os.access(existing, os.W_OK):
        return f"{existing} is read-only"
    if status.f_bavail * status.f_frsize < _LEAST_FREE_BYTES:
        return f"The disk of {existing} is full"
    return None
