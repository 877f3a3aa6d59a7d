"""A temporary directory of a node: what its processes share for as long as they live, files and a socket."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "fanout-node-"
_IN_USE = "in-use"
_PARENT_LIMIT_BYTES = 60
"""A unix socket's path may have 107 bytes (unix(7)); redis-server needs a few more while it starts."""


def make_node_directory() -> Path:
    """Make one, only for this user; whoever makes it removes it at last.

    What nodes have left that were killed before they could is removed, too.
    """
    parent = _parent()
    _remove_abandoned(parent)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    # Locked before it has its name: who finds it unlocked may remove the directory. The kernel unlocks it at our end.
    unnamed = directory / f".{_IN_USE}"
    fcntl.flock(os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX)
    unnamed.rename(directory / _IN_USE)
    return directory


def remove_node_directory(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _parent() -> Path:
    temporary = Path(tempfile.gettempdir())
    return temporary if len(os.fsencode(temporary)) <= _PARENT_LIMIT_BYTES else Path("/tmp")


def _remove_abandoned(parent: Path) -> None:
    for lock_path in parent.glob(f"{_PREFIX}*/{_IN_USE}"):
        with suppress(OSError):  # it is locked, another user's, or being removed
            with lock_path.open("rb+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_node_directory(lock_path.parent)
