"""Where a client's path leads: checked once, here, and walked to without following a link that appears meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from service.errors import BadRequest, InvalidRequest
from service.open_directory import ONLY_A_DIRECTORY, path_of

_PATH_BYTES = 4095
_NAME_BYTES = 255
"""What Linux and macOS take at most."""


class Held(NamedTuple):
    """How far a place can be walked to, without a link."""

    directory: Path
    """The last directory on the way, the place itself if it is one. It stays this one, whatever names change."""
    rest: tuple[str, ...]
    """What is left of the way: a file, or what does not exist."""


class Place(NamedTuple):
    """A path without links, below a directory that it may not leave."""

    root: Path
    parts: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.root.joinpath(*self.parts)

    def below(self, parts: tuple[str, ...]) -> Place:
        """What is that far below it."""
        return Place(self.root, (*self.parts, *parts))

    @contextmanager
    def parent(self, *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory that holds it, reached step by step; a link on the way is refused.

        Raises:
            OSError: a step is missing (unless `create`), no directory, or a link.
        """
        descriptor = os.open(self.root, ONLY_A_DIRECTORY)
        try:
            for part in self.parts[:-1]:
                if create and not _exists(part, descriptor):
                    os.mkdir(part, dir_fd=descriptor)
                descriptor = _step(descriptor, part)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def held(self) -> Iterator[Held]:
        """The way to it, as far as there are directories.

        Raises:
            OSError: a step may not be taken, or has become a link.
        """
        descriptor, taken = os.open(self.root, ONLY_A_DIRECTORY), 0
        try:
            for part in self.parts:
                if not _exists(part, descriptor) or _is_a_file(part, descriptor):
                    break
                descriptor = _step(descriptor, part)
                taken += 1
            plain = self.root.joinpath(*self.parts[:taken])
            yield Held(path_of(descriptor, plain), self.parts[taken:])
        finally:
            os.close(descriptor)


def absolute(file_path: str) -> str:
    """The path that ends a route's own; proxies merge the slash that makes it absolute."""
    return "/" + file_path.lstrip("/")


def place(text: str, name: str, inside: str | None) -> Place:
    """Where `text` leads, links followed. Blocking.

    Args:
        name: what the client calls it, for the refusal.
        inside: a conversation's working directory, which it must not leave; None: anywhere.

    Raises:
        BadRequest: it is not absolute, holds a NUL, is longer than paths can be, or a loop of links.
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
    if len(os.fsencode(target)) > _PATH_BYTES or any(len(os.fsencode(part)) > _NAME_BYTES for part in target.parts):
        raise BadRequest("Path is too long")
    if os.path.islink(target):  # what follows all links ends at none, but for those that lead to each other
        raise BadRequest("Path is a loop of links")
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


def _is_a_file(name: str, directory: int) -> bool:
    mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    return not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode)


def _step(directory: int, name: str) -> int:
    """A descriptor of a directory in `directory`, whose own is closed. Raises OSError for anything else."""
    step = os.open(name, ONLY_A_DIRECTORY, dir_fd=directory)
    os.close(directory)
    return step
