"""Processes that start in a moment: forked from a parent that has imported the SDK, as runners are from theirs.

Importing the SDK takes 4 s of CPU, and the tests start a server some fifty times. A forked one differs in nothing else
from `python -m service`: its environment, directory and session are its own, and it goes through the same `main`.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

_MESSAGE_BYTES = 1 << 20


class Forked:
    """A process of the nursery, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, pid: int, outcome: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._outcome = outcome
        """A pipe that says how the process ended."""

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.returncode is None and select.select([self._outcome], [], [], 0)[0]:
            self._take_outcome()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._outcome], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("fanout", timeout or 0)
            self._take_outcome()
        assert self.returncode is not None
        return self.returncode

    def _take_outcome(self) -> None:
        said = os.read(self._outcome, 16)
        os.close(self._outcome)
        assert said, "the nursery has ended"
        self.returncode = int(said)


class Nursery:
    """The parent; it ends with the process that made it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.nursery", str(theirs.fileno())],
                cwd=Path(__file__).parent.parent,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._requests = ours

    def start(self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str], log: int) -> Forked:
        """Run `fanout` with these arguments; returns when the process is there."""
        outcome, its_outcome = os.pipe()
        request = {"arguments": list(arguments), "directory": str(directory), "environment": dict(environment)}
        socket.send_fds(self._requests, [json.dumps(request).encode()], [log, its_outcome])
        os.close(its_outcome)
        pid = self._requests.recv(16)
        assert pid, "the nursery has ended"
        return Forked(int(pid), outcome)


@functools.cache
def nursery() -> Nursery:
    """The one of this test process."""
    return Nursery()


def _serve(requests: socket.socket) -> None:
    import service.app
    import service.cli  # noqa: F401
    from service.runner.environment import import_sdk

    import_sdk()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the watchers ended
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 2)
        if not message:
            return
        log, outcome = descriptors
        if os.fork() == 0:
            _watch(requests, message, log, outcome)
        os.close(log)
        os.close(outcome)


def _watch(requests: socket.socket, message: bytes, log: int, outcome: int) -> NoReturn:
    """Be the parent of one process: tell its id, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        requests.close()
        os.close(outcome)
        _run(log, **json.loads(message))
    requests.send(str(pid).encode())
    requests.close()
    os.close(log)
    _, status = os.waitpid(pid, 0)
    os.write(outcome, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _run(log: int, arguments: list[str], directory: str, environment: dict[str, str]) -> NoReturn:
    from service.cli import main

    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, 64)
    sys.argv = ["fanout", *arguments]
    code = 0
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)  # noqa: T201  as the interpreter would
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
