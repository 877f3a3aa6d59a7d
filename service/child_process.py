"""What every process that has a parent here does first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing import parent_process

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal this process gets when the thread that made it ends."""


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


def default_signals() -> None:
    """Undo handlers inherited over a fork: they belong to the parent's work."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
