"""`fanout` whose first runner dies with the first command that it stores: `python -m tests.dying_runners`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

_make_directory = os.mkdir


def _die_at_first(path: StrOrBytesPath, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    """As `os.mkdir`. The kernel has memory to give back, say, just when the first inbox of all is to be made."""
    name = Path(os.fsdecode(path))
    if name.name == "inbox":
        try:
            (name.parent.parent / "has-died").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    _make_directory(path, mode, dir_fd=dir_fd)


os.mkdir = _die_at_first

if __name__ == "__main__":  # worker processes import this module again
    from service.cli import main

    main()
