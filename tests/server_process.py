"""The server as its users run it: a process of its own, reached only over the network.

Everything it writes goes below one directory and everything it reads from the environment is set here,
so a developer's settings, keys and home directory never reach a test.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.child_process import PRELOADED, STOP_SECONDS, ChildProcess, ServerFailedError

__all__ = ["COMMAND", "FANOUT", "REPOSITORY", "Sandbox", "Server", "ServerFailedError", "free_port"]

REPOSITORY = Path(__file__).resolve().parent.parent
FANOUT = [sys.executable, "-m", "service"]
COMMAND = [PRELOADED, "serve"]
START_SECONDS = 60.0
"""Importing the SDK takes 4 s of CPU with compiled files and 10 s without; the machine may be busy."""
_PORTS = range(20_000, 32_000)


class Sandbox:
    """What the processes of one deployment share: a directory, and an environment that keeps them inside it."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        """Make the directory.

        Args:
            directory: everything the processes write is below it.
            environment: variables added to the hermetic ones.
        """
        self.directory = directory
        self.conversations_path = directory / "conversations"
        self.bash_events_path = directory / "bash_events"
        # tmux puts its socket there, and a socket's path may have 107 bytes: pytest's directories are too long.
        self._tmux_directory = Path(tempfile.mkdtemp(prefix="fo", dir="/tmp"))
        self.environment = self._hermetic_environment() | dict(environment or {})
        (directory / "home").mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """End the terminals that the processes have opened."""
        for tmux_socket in self._tmux_directory.glob("*/*"):
            # tmux leaves the server's session; its own command is the only way to reach it.
            subprocess.run(["tmux", "-S", str(tmux_socket), "kill-server"], capture_output=True, check=False)
        shutil.rmtree(self._tmux_directory, ignore_errors=True)

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
            "OH_BASH_EVENTS_DIR": str(self.bash_events_path),
            "OH_WORKSPACE_PATH": str(self.directory / "workspace"),
            # Where the public catalog of skills would be cloned over the network.
            "EXTENSIONS_PATH": str(self.directory / "extensions"),
            "OH_ENABLE_VSCODE": "false",
            "OH_ENABLE_BROWSER": "false",
        }


class Server:
    """One server and its data directory; the directory stays the same over `restart`."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        """Choose a port; nothing runs before `start`.

        Args:
            directory: everything the server writes is below it.
            environment: variables added to the hermetic ones.
            command: takes `--host` and `--port`, which are added.
        """
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._sandbox = Sandbox(directory, environment)
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        self._process = ChildProcess("server", [*command, *address], directory, self._sandbox.environment)

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
    def directory(self) -> Path:
        """Everything the server writes is below it."""
        return self._sandbox.directory

    @property
    def conversations_path(self) -> Path:
        return self._sandbox.conversations_path

    @property
    def bash_events_path(self) -> Path:
        return self._sandbox.bash_events_path

    @property
    def process(self) -> ChildProcess:
        """The server's main process."""
        return self._process

    @property
    def pid(self) -> int:
        """Process id of the running server, which is also its process group's."""
        return self._process.pid

    @property
    def log_path(self) -> Path:
        return self._process.log_path

    @property
    def log(self) -> str:
        """The end of what the server has printed, over all its starts."""
        return self._process.log

    def start(self, timeout_seconds: float = START_SECONDS) -> None:
        """Start the process and wait until `/ready` answers 200.

        Raises:
            ServerFailedError: it exited or was not ready in time.
        """
        self._process.start()
        self.wait_ready(timeout_seconds)

    def wait_ready(self, timeout_seconds: float = START_SECONDS) -> None:
        """Wait until `/ready` answers 200.

        Raises:
            ServerFailedError: it exited or was not ready in time.
        """
        self._process.wait_until(self.is_ready, "the server is ready", timeout_seconds)

    def is_ready(self) -> bool:
        """Whether `/ready` answers 200 now."""
        return self.status("/ready") == 200

    def status(self, path: str) -> int | None:
        """Status of a GET over a connection of its own; None when there is no answer."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=5, trust_env=False).status_code
        except httpx.TransportError:
            return None

    def kill(self) -> None:
        """End the server and its children with SIGKILL, as a lost machine would."""
        self._process.kill()

    def terminate(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Ask the server to stop with SIGTERM and return its exit code.

        Raises:
            ServerFailedError: it was still there after `timeout_seconds`.
        """
        return self._process.terminate(timeout_seconds)

    def restart(self) -> None:
        """Start again on the same port and data directory, stopping the server first if it runs."""
        if self._process.is_running:
            self.terminate()
        self.start()

    def close(self) -> None:
        """End whatever is left of the server, the terminals it opened included."""
        self._process.close()
        self._sandbox.close()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on right now.

    It is below those that Linux gives to outgoing connections, or one might take it before the server does.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
