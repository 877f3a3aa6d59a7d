"""Where a client's path leads: checked once, here, and walked to without following a link that appears meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from service.errors import BadRequest, InvalidRequest

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(NamedTuple):
    """A path without links, below a directory that it may not leave."""

    root: Path
    parts: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.root.joinpath(*self.parts)

    @contextmanager
    def parent(self, *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory that holds it, reached step by step; a link on the way is refused.

        Raises:
            OSError: a step is missing (unless `create`), no directory, or a link.
        """
        descriptor = os.open(self.root, _DIRECTORY)
        try:
            for part in self.parts[:-1]:
                if create and not _exists(part, descriptor):
                    os.mkdir(part, dir_fd=descriptor)
                step = os.open(part, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = step
            yield descriptor
        finally:
            os.close(descriptor)


def place(text: str, name: str, inside: str | None) -> Place:
    """Where `text` leads, links followed. Blocking.

    Args:
        name: what the client calls it, for the refusal.
        inside: a conversation's working directory, which it must not leave; None: anywhere.

    Raises:
        BadRequest: it is not absolute, or holds a NUL.
        InvalidRequest: it leads out of `inside`.
    """
    if inside is not None and (not text.startswith("/") or "\0" in text):
        raise InvalidRequest(f"{name} must be inside the conversation workspace")
    if not text.startswith("/"):
        raise BadRequest("Path must be absolute")
    if "\0" in text:
        raise BadRequest("Path must not contain a NUL character")
    root, target = Path(os.path.realpath(inside or "/")), Path(os.path.realpath(text))
    if not target.is_relative_to(root):
        raise InvalidRequest(f"{name} must be inside the conversation workspace")
    return Place(root, target.relative_to(root).parts)


def open_file(target: Place) -> BinaryIO:
    """The regular file at a place, for reading. Blocking.

    Raises:
        IsADirectoryError: it is a directory, or something else that is no file.
        OSError: as `open` does.
    """
    if not target.parts:
        raise IsADirectoryError
    with target.parent() as directory:
        descriptor = os.open(
            target.parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory
        )
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError
    return os.fdopen(descriptor, "rb")


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
