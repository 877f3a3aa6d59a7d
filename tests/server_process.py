"""The server as its users run it: a process of its own, reached only over the network.

Everything it writes goes below one directory and everything it reads from the environment is set here,
so a developer's settings, keys and home directory never reach a test.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "service", "serve"]
START_SECONDS = 60.0
"""Importing the SDK takes 4 s of CPU with compiled files and 10 s without; the machine may be busy."""
STOP_SECONDS = 30.0
LOG_TAIL_BYTES = 20_000


class ServerFailedError(Exception):
    """The server exited, or did not become ready in time; shows the end of its log."""

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(reason, log)
        self.reason = reason
        self.log = log

    def __str__(self) -> str:
        return f"{self.reason}; its log ends:\n{self.log}"


class Server:
    """One server and its data directory; the directory stays the same over `restart`."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        """Choose a port; nothing runs before `start`.

        Args:
            directory: everything the server writes is below it.
            environment: variables added to the hermetic ones.
        """
        self.directory = directory
        self.conversations_path = directory / "conversations"
        self.log_path = directory / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # tmux puts its socket there, and a socket's path may have 107 bytes: pytest's directories are too long.
        self._tmux_directory = Path(tempfile.mkdtemp(prefix="fo", dir="/tmp"))
        self._environment = self._hermetic_environment() | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the running server, which is also its process group's."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """The end of what the server has printed, over all its starts."""
        return self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def start(self, timeout_seconds: float = START_SECONDS) -> None:
        """Start the process and wait until `/ready` answers 200.

        Raises:
            ServerFailedError: it exited or was not ready in time.
        """
        (self.directory / "home").mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "--host", "127.0.0.1", "--port", str(self.port)],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own group: a server that signals its group must not hit the tests.
                start_new_session=True,
            )
        self._wait_ready(timeout_seconds)

    def kill(self) -> None:
        """End the server and its children with SIGKILL, as a lost machine would."""
        self._signal_group(signal.SIGKILL)
        self._wait_exit()

    def terminate(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Ask the server to stop with SIGTERM and return its exit code.

        Raises:
            ServerFailedError: it was still there after `timeout_seconds`.
        """
        os.kill(self.pid, signal.SIGTERM)
        return self._wait_exit(timeout_seconds)

    def restart(self) -> None:
        """Start again on the same port and data directory, stopping the server first if it runs."""
        if self._process is not None:
            self.terminate()
        self.start()

    def close(self) -> None:
        """End whatever is left of the server, the terminals it opened included."""
        if self._process is not None:
            self.kill()
        for tmux_socket in self._tmux_directory.glob("*/*"):
            # tmux leaves the server's session; its own command is the only way to reach it.
            subprocess.run(["tmux", "-S", str(tmux_socket), "kill-server"], capture_output=True, check=False)
        shutil.rmtree(self._tmux_directory, ignore_errors=True)

    def _wait_ready(self, timeout_seconds: float) -> None:
        try:
            wait_until(self._is_ready, "the server is ready", timeout_seconds)
        except AssertionError as error:
            raise ServerFailedError(str(error), self.log) from error

    def _is_ready(self) -> bool:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            self._process = None
            raise ServerFailedError(f"the server exited with {code} before it was ready", self.log)
        try:
            return httpx.get(f"{self.url}/ready", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def _wait_exit(self, timeout_seconds: float = STOP_SECONDS) -> int:
        assert self._process is not None, "the server is not running"
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise ServerFailedError(f"the server did not stop within {timeout_seconds} s", self.log) from error
        self._process = None
        return code

    def _hermetic_environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "HOME": str(self.directory / "home"),
            "TMUX_TMPDIR": str(self._tmux_directory),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OPENHANDS_SUPPRESS_BANNER": "1",
            "OH_SECRET_KEY": "tests-only",
            "OH_CONVERSATIONS_PATH": str(self.conversations_path),
            "OH_BASH_EVENTS_DIR": str(self.directory / "bash_events"),
            "OH_WORKSPACE_PATH": str(self.directory / "workspace"),
            "OH_ENABLE_VSCODE": "false",
        }


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
