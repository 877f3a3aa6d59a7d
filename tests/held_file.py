"""A file of which nobody can read anything for a while, as on a disk that does not answer."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

LOOP_SECONDS = 5.0


class HeldFile:
    """Who opens it waits, in the kernel, until `release` or the end of the block; then it has its content."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._content = content
        self._is_held = True
        os.mkfifo(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let those who wait go on."""
        if not self._is_held:
            return
        self._is_held = False
        pipe = os.open(self._path, os.O_RDWR)  # alone this does not wait for a reader
        os.write(pipe, self._content)
        whole = self._path.with_name(f".{self._path.name}.whole")
        whole.write_bytes(self._content)
        whole.replace(self._path)
        os.close(pipe)

    def release_after(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Release when somebody waits; says whether the loop, which is another thread's, was free meanwhile."""
        pipe = os.open(self._path, os.O_WRONLY)  # waits for a reader, who waits on until this is closed
        turned = threading.Event()
        loop.call_soon_threadsafe(turned.set)
        is_free = turned.wait(LOOP_SECONDS)
        self.release()
        os.close(pipe)
        return is_free
