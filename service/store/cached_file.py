"""What small files say, read and understood again only when they changed."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

RACY_NS = 50_000_000
"""A file or directory touched less than this before it was read may change again without its time changing: the
kernel stamps in ticks of up to 10 ms. What was read in that window is not believed twice (git calls it racy)."""


class _Signature(NamedTuple):
    inode: int
    mtime_ns: int
    size_bytes: int


class FileCache[T]:
    """What `load` makes of files, by path, those read last. Blocking calls; for files replaced by rename."""

    def __init__(self, capacity: int, load: Callable[[str], T], weigh: Callable[[T], int] = lambda _: 1) -> None:
        """`capacity` is a number of files, or the sum of what `weigh` says of each."""
        self._capacity = capacity
        self._load = load
        self._weigh = weigh
        self._weight = 0
        self._files: OrderedDict[str, tuple[_Signature, T]] = OrderedDict()

    def read(self, path: Path) -> T | None:
        """What `path` says now, or None when there is no such file."""
        name = str(path)
        try:
            status = os.stat(name)
        except FileNotFoundError:
            self._forget(name)
            return None
        signature = _Signature(status.st_ino, status.st_mtime_ns, status.st_size)
        cached = self._files.get(name)
        if cached is not None and cached[0] == signature:
            self._files.move_to_end(name)
            return cached[1]
        try:
            content = self._load(name)
        except FileNotFoundError:
            return None
        if time.time_ns() - status.st_mtime_ns > RACY_NS:
            self._keep(name, signature, content)
        return content

    def _keep(self, name: str, signature: _Signature, content: T) -> None:
        self._forget(name)
        self._files[name] = (signature, content)
        self._weight += self._weigh(content)
        while self._weight > self._capacity:
            self._forget(next(iter(self._files)))

    def _forget(self, name: str) -> None:
        if name in self._files:
            _, content = self._files.pop(name)
            self._weight -= self._weigh(content)
