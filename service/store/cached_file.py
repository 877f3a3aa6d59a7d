"""Whole small files, read again only when they changed."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

RACY_NS = 50_000_000
"""A file or directory touched less than this before it was read may change again without its time changing: the
kernel stamps in ticks of up to 10 ms. What was read in that window is not believed twice (git calls it racy)."""


class _Signature(NamedTuple):
    inode: int
    mtime_ns: int
    size_bytes: int


class FileCache:
    """The last `capacity` files by path. Blocking calls; for files replaced by rename."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._files: OrderedDict[Path, tuple[_Signature, bytes]] = OrderedDict()

    def read(self, path: Path) -> bytes | None:
        """The bytes of `path` as they are now, or None when there is no such file."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            self._files.pop(path, None)
            return None
        signature = _Signature(status.st_ino, status.st_mtime_ns, status.st_size)
        cached = self._files.get(path)
        if cached is not None and cached[0] == signature:
            self._files.move_to_end(path)
            return cached[1]
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if time.time_ns() - status.st_mtime_ns > RACY_NS:
            self._files[path] = (signature, data)
            if len(self._files) > self._capacity:
                self._files.popitem(last=False)
        return data
