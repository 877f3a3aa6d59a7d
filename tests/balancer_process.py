"""HAProxy with the configuration of `deploy/`, as it is."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.child_process import ChildProcess
from tests.server_process import REPOSITORY, free_port

CONFIGURATION = REPOSITORY / "deploy" / "haproxy.cfg"
START_SECONDS = 20.0


class ServerStatistics(NamedTuple):
    """What HAProxy has counted of one server in one backend, since it started."""

    is_in_rotation: bool
    """Whether it is given requests. It is before its first check, too."""
    is_found_ready: bool
    """Whether its last check passed."""
    responses: int
    """Answers with status 200 to 299."""
    sockets: int
    """Connections upgraded to a WebSocket."""


class Balancer:
    """One HAProxy in front of servers on this machine."""

    def __init__(self, directory: Path, ports: Sequence[int], bind_options: str = "") -> None:
        """Choose a port; nothing runs before `start`.

        Args:
            ports: of the web servers, which are called web1, web2, ... in this order.
            bind_options: what follows the address in the `bind` line.
        """
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # A socket's path may have 107 bytes: pytest's directories are too long.
        self._directory = Path(tempfile.mkdtemp(prefix="fo", dir="/tmp"))
        self._commands = self._directory / "haproxy"
        environment = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "FANOUT_BIND": f"127.0.0.1:{self.port} {bind_options}".strip(),
            "FANOUT_STATS_SOCKET": str(self._commands),
            **{f"FANOUT_WEB_{number}": f"127.0.0.1:{port}" for number, port in enumerate(ports, start=1)},
        }
        program = shutil.which("haproxy", path=environment["PATH"]) or "haproxy"
        self.process = ChildProcess("haproxy", [program, "-db", "-f", str(CONFIGURATION)], directory, environment)

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

    def start(self) -> None:
        """Start the process and wait until it takes commands; the servers may be down.

        Raises:
            ServerFailedError: it exited, or took none in time.
        """
        self.process.start()
        self.process.wait_until(self._takes_commands, "HAProxy takes commands", START_SECONDS)

    def close(self) -> None:
        """End it."""
        self.process.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def statistics(self, backend: str = "web") -> dict[str, ServerStatistics]:
        """The counters of each server, by its name."""
        lines = self.command("show stat").removeprefix("# ").splitlines()
        rows = [row for row in csv.DictReader(lines) if row["pxname"] == backend]
        return {
            row["svname"]: ServerStatistics(
                is_in_rotation=row["status"].startswith("UP"),
                # Marked with a star while the next check runs.
                is_found_ready=row["check_status"].removeprefix("* ") == "L7OK",
                responses=int(row["hrsp_2xx"]),
                sockets=int(row["hrsp_1xx"]),
            )
            for row in rows
            if row["svname"] != "BACKEND"
        }

    def command(self, text: str) -> str:
        """What the stats socket answers to a command."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._commands))
            connection.sendall(f"{text}\n".encode())
            with connection.makefile() as answer:
                return answer.read()

    def _takes_commands(self) -> bool:
        # The socket's file is there a moment before anybody listens at it.
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self._commands)) == 0
