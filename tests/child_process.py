"""A program started by the tests: in a session of its own, with a log and no environment but what it is given."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.nursery import Forked, nursery
from tests.waiting import wait_until

STOP_SECONDS = 30.0
LOG_TAIL_BYTES = 20_000
PRELOADED = "fanout, forked from a process that has imported the SDK"


class ServerFailedError(Exception):
    """A program exited, or did not become ready or stop in time; shows the end of its log."""

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(reason, log)
        self.reason = reason
        self.log = log

    def __str__(self) -> str:
        return f"{self.reason}; its log ends:\n{self.log}"


class ChildProcess:
    """One program; it may be started, ended and started again."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        """Start nothing yet. A command that begins with PRELOADED has the SDK imported already.

        Args:
            name: what failures and the log file call it.
            directory: its working directory, made if absent; `<name>.log` is in it.
            environment: all of it.
        """
        self.name = name
        self.log_path = directory / f"{name}.log"
        self._command = list(command)
        self._directory = directory
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def pid(self) -> int:
        """Process id, which is also its session's and its process group's."""
        assert self._process is not None, f"the {self.name} is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The end of what the program has printed, over all its starts."""
        return self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def start(self) -> None:
        """Start the program; returns before it has done anything."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            if self._command[0] == PRELOADED:
                self._process = nursery().start(self._command[1:], self._directory, self._environment, log.fileno())
                return
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own group: a program that signals its group must not hit the tests.
                start_new_session=True,
            )

    def wait_until(self, condition: Callable[[], bool], description: str, timeout_seconds: float) -> None:
        """Wait for a condition that this program brings about.

        Raises:
            ServerFailedError: it exited first, or the condition was not true in time.
        """

        wait_for_all([self], condition, description, timeout_seconds)

    def check_running(self, reason: str) -> None:
        """Raises ServerFailedError if the program has ended; what it left in its group is ended too."""
        assert self._process is not None, f"the {self.name} is not running"
        if (code := self._process.poll()) is not None:
            self._signal_group(signal.SIGKILL)
            self._process = None
            raise ServerFailedError(f"the {self.name} exited with {code} {reason}", self.log)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone, not to its children."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End the program and its children with SIGKILL, as a lost machine would."""
        self._signal_group(signal.SIGKILL)
        self.wait_exit()

    def terminate(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Ask the program to stop with SIGTERM and return its exit code.

        Raises:
            ServerFailedError: it was still there after `timeout_seconds`.
        """
        self.send_signal(signal.SIGTERM)
        return self.wait_exit(timeout_seconds)

    def wait_exit(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait until the program has ended and return its exit code, negative for a signal.

        Raises:
            ServerFailedError: it was still there after `timeout_seconds`.
        """
        assert self._process is not None, f"the {self.name} is not running"
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise ServerFailedError(f"the {self.name} did not stop within {timeout_seconds} s", self.log) from error
        self._process = None
        return code

    def close(self) -> None:
        """End whatever is left of it."""
        if self._process is not None:
            self.kill()

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return


def wait_for_all(
    children: Sequence[ChildProcess], condition: Callable[[], bool], description: str, timeout_seconds: float
) -> None:
    """Wait for a condition that these programs bring about together.

    Raises:
        ServerFailedError: one exited first, or the condition was not true in time.
    """

    def is_met() -> bool:
        for child in children:
            child.check_running(f"before {description}")
        return condition()

    try:
        wait_until(is_met, description, timeout_seconds)
    except AssertionError as error:
        logs = "\n".join(f"--- {child.name}\n{child.log}" for child in children)
        raise ServerFailedError(str(error), logs) from error
