"""What every process that has a parent here does first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal this process gets when the thread that made it ends."""


def die_with_parent(parent_pid: int | None = None) -> None:
    """Have the kernel send SIGTERM to this process when its parent is gone, however that ended. Linux only.

    `parent_pid` is who the parent should be: if it is gone already, there is nobody left to be told of, so end now.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent_pid is not None and os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGTERM)


def default_signals() -> None:
    """Undo handlers inherited over a fork: they belong to the parent's work."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
