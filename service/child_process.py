"""What every process that has a parent here does first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing import parent_process

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal this process gets when the thread that made it ends."""
_PR_SET_NAME = 15
"""prctl(2): what the kernel calls this thread, of which the process has the name; up to 15 bytes."""


def die_with_parent(parent_pid: int | None = None) -> None:
    """Have the kernel send SIGTERM to this process when its parent is gone, however that ended. Linux only.

    `parent_pid` is who the parent should be, by default the process that started this one by multiprocessing: if it
    is gone already, there is nobody left to be told of, so end now. A process that was started otherwise, by a shell
    for instance, outlives its parent.
    """
    starter = parent_process()
    if parent_pid is None and starter is not None:
        parent_pid = starter.pid
    if sys.platform != "linux" or parent_pid is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGTERM)


def name_process(name: str) -> None:
    """Have `ps -o comm` and `top` show this name. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def default_signals() -> None:
    """Undo handlers and a mask inherited from the parent: they belong to its work."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
