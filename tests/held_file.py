"""A file of which nobody can read anything for a while, as on a disk that does not answer."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import wait_until

_LOOP_SECONDS = 5.0


class HeldFile:
    """Who opens it waits, in the kernel, until `release` or the end of the block; then it is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_held = True
        self._pipe: int | None = None
        os.mkfifo(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody wants to read it."""
        if self._pipe is None:
            try:
                self._pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
        return self._pipe is not None

    def release(self) -> None:
        """Let those who wait go on."""
        if not self._is_held:
            return
        self._is_held = False
        pipe = os.open(self._path, os.O_RDWR) if self._pipe is None else self._pipe  # so it does not wait for a reader
        empty = self._path.with_name(f".{self._path.name}.empty")
        empty.touch()
        empty.replace(self._path)
        os.close(pipe)

    def release_after(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Release when somebody waits; says whether the loop, which is another thread's, was free meanwhile."""
        wait_until(lambda: self.is_waited_for, "somebody reads the file")
        turned = threading.Event()
        loop.call_soon_threadsafe(turned.set)
        is_free = turned.wait(_LOOP_SECONDS)
        self.release()
        return is_free
