"""A server in a process and a directory of its own, as `fanout serve` starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

_START_SECONDS = 90.0
"""Importing the SDK takes 10 s where nothing is compiled yet; the machine may be busy."""
_STOP_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_LOG_CHARACTERS = 2000


class ServerNotReady(Exception):
    """It ended, or was not ready in time; the text has the end of its log."""


class OwnServer:
    """`with OwnServer(directory) as server:` serves at `server.url`, on loopback, without a key."""

    def __init__(self, directory: Path) -> None:
        """Everything it writes is below `directory`."""
        self._directory = directory
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log_path = directory / "server.log"

    def __enter__(self) -> Self:
        """Start it. Raises ServerNotReady."""
        (self._directory / "home").mkdir(parents=True)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", str(self.port)],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _environment(self) -> dict[str, str]:
        """Nobody's settings but these; the machine's own server, if there is one, is not touched."""
        root = Path(__file__).resolve().parents[2]
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(root),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(self._directory / "home"),
            "TMPDIR": str(self._directory),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OPENHANDS_SUPPRESS_BANNER": "1",
            "OH_SECRET_KEY": "of the demo",
            "OH_CONVERSATIONS_PATH": str(self._directory / "conversations"),
            "OH_BASH_EVENTS_DIR": str(self._directory / "bash_events"),
            "OH_WORKSPACE_PATH": str(self._directory / "workspace"),
            "OH_PERSISTENCE_DIR": str(self._directory / "kept"),
            "OH_ENABLE_VSCODE": "false",
            "OH_ENABLE_BROWSER": "false",
        }

    def _wait_ready(self) -> None:
        pause = threading.Event()
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            for _ in range(int(_START_SECONDS / _LOOK_SECONDS)):
                if self._process.poll() is not None:
                    raise ServerNotReady(f"The server has ended:\n{self._log()}")
                if _is_ready(client):
                    return
                pause.wait(_LOOK_SECONDS)
        raise ServerNotReady(f"The server is not ready after {_START_SECONDS:g} s:\n{self._log()}")

    def _log(self) -> str:
        return self._log_path.read_text("utf-8", "replace")[-_LOG_CHARACTERS:]

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
