"""Directories held open: while one is, its own name and those above it may change and lead nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Linux lets a directory be passed through that may not be listed.
ONLY_A_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags for `os.open`: a link is refused."""
_DESCRIPTORS = Path("/proc/self/fd")


def path_of(descriptor: int, plain: Path) -> Path:
    """A path to an open directory, good for this process and a program it starts in it; `plain` without `/proc`."""
    path = _DESCRIPTORS / str(descriptor)
    return path if path.is_dir() else plain


@contextmanager
def opened(directory: Path) -> Iterator[Path]:
    """A directory for the length of the context. Raises OSError when it is none, or a link."""
    descriptor = os.open(directory, ONLY_A_DIRECTORY)
    try:
        yield path_of(descriptor, directory)
    finally:
        os.close(descriptor)
