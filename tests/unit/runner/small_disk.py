"""A disk that is full at the moments a test chooses."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from tests.waiting import wait_until_async


class SmallDisk:
    """While this is entered and full, no file that `refuses` names can be made below `path`."""

    def __init__(
        self,
        path: Path,
        refuses: Callable[[str], bool] = lambda name: True,
        *,
        is_full: bool = True,
        number: int = errno.ENOSPC,
    ) -> None:
        self._path = path
        self._refuses = refuses
        self._number = number
        self._open = os.open
        self._patch = patch.object(os, "open", self._open_unless_full)
        self.is_full = is_full
        self.refusals = 0
        """How often that was tried."""

    def __enter__(self) -> Self:
        self._patch.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._patch.stop()

    def _open_unless_full(self, path: str | Path, flags: int, *args: Any, **kwargs: Any) -> int:
        is_new = flags & os.O_CREAT and Path(path).is_relative_to(self._path)
        if self.is_full and is_new and self._refuses(Path(path).name):
            self.refusals += 1
            raise OSError(self._number, os.strerror(self._number))
        return self._open(path, flags, *args, **kwargs)

    async def wait_refused(self, times: int) -> None:
        await wait_until_async(lambda: self.refusals >= times, f"the disk has refused {times} times")
