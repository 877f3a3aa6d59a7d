"""A deployment of many processes behind a load balancer, with the face of one server."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.balancer_process import Balancer
from tests.child_process import PRELOADED, ChildProcess, wait_for_all
from tests.redis_process import RedisProcess
from tests.server_process import FANOUT, Sandbox, free_port

START_SECONDS = 90.0
"""Importing the SDK takes 4 s of CPU with compiled files and 10 s without; the machine may be busy."""


class Cluster:
    """Web servers on ports of their own, one parent of runners, a Redis, and HAProxy round robin in front."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        *,
        web_servers: int = 2,
        runners: int = 2,
    ) -> None:
        """Choose ports; nothing runs before `start`.

        Args:
            directory: everything the processes write is below it.
            environment: variables added to the hermetic ones.
        """
        self.directory = directory
        self.redis = RedisProcess(directory / "redis")
        metrics_port = free_port()
        self.runners_url = f"http://127.0.0.1:{metrics_port}"
        """Where the runners' /metrics is."""
        addresses = {"REDIS_URL": self.redis.url, "OH_METRICS_PORT": str(metrics_port)}
        self._sandbox = Sandbox(directory, addresses | dict(environment or {}))
        self.conversations_path = self._sandbox.conversations_path
        ports = [free_port() for _ in range(web_servers)]
        self.web_urls = [f"http://127.0.0.1:{port}" for port in ports]
        """Each web server's own address, past the balancer."""
        self.web_servers = [self._web_server(number, port) for number, port in enumerate(ports, start=1)]
        self.runners = self._child("runners", PRELOADED, "runner", "--processes", str(runners))
        self.balancer = Balancer(directory, ports)
        self.url = self.balancer.url

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
    def log(self) -> str:
        """The end of what each process has printed."""
        return "\n".join(f"--- {child.name}\n{child.log}" for child in self._children)

    def start(self) -> None:
        """Start everything and wait until the balancer has every web server in its rotation.

        Raises:
            ServerFailedError: something exited or was not ready in time.
        """
        self.redis.start()
        for child in (self.runners, *self.web_servers):
            child.start()
        self.balancer.start()
        wait_for_all(
            self._children, lambda: self.is_ready, "the balancer has found every web server ready", START_SECONDS
        )

    def past_the_balancer(self, web_server: int) -> httpx.Client:
        """Requests to one web server, counted from 0."""
        return httpx.Client(base_url=self.web_urls[web_server], timeout=30, trust_env=False)

    def close(self) -> None:
        """End whatever is left."""
        with ExitStack() as stack:
            stack.callback(self._sandbox.close)
            stack.callback(self.redis.close)
            for child in self._children:
                stack.callback(child.close)
            stack.callback(self.balancer.close)

    @property
    def _children(self) -> list[ChildProcess]:
        return [*self.web_servers, self.runners, self.balancer.process]

    @property
    def is_ready(self) -> bool:
        """Whether every web server is ready and the balancer, which hears of a change late, has it in its rotation."""
        servers = self.balancer.statistics().values()
        return all(server.is_in_rotation and server.is_found_ready for server in servers) and all(
            map(_is_ready, self.web_urls)
        )

    def _web_server(self, number: int, port: int) -> ChildProcess:
        return self._child(f"web{number}", *FANOUT, "web", "--host", "127.0.0.1", "--port", str(port))

    def _child(self, name: str, *command: str) -> ChildProcess:
        return ChildProcess(name, command, self.directory, self._sandbox.environment)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=30, trust_env=False).is_success
    except httpx.TransportError:
        return False


def counted(url: str, series: str) -> float:
    """What the node at this address has counted in all series that begin so."""
    lines = httpx.get(f"{url}/metrics", timeout=30, trust_env=False).raise_for_status().text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(series))
