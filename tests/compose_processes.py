"""What `deploy/compose.yaml` would start, as processes of this machine: its commands, environment and health checks.

Names of containers, ports and folders become those of this machine; nothing else is changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.child_process import ChildProcess, wait_for_all
from tests.server_process import REPOSITORY, Sandbox, free_port

COMPOSE = REPOSITORY / "deploy" / "compose.yaml"
ENTRYPOINT = REPOSITORY / "deploy" / "entrypoint.sh"
OWN_IMAGE = "fanout"
START_SECONDS = 90.0
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def read_compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """The file with its anchors merged and its variables replaced, as compose does it."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(each) for key, each in value.items()}
        if isinstance(value, list):
            return [replaced(each) for each in value]
        if isinstance(value, str):
            return _VARIABLE.sub(lambda found: environment.get(found[1]) or found[2] or "", value)
        return value

    loaded: dict[str, Any] = replaced(yaml.safe_load(COMPOSE.read_text("utf-8")))
    return loaded


class ComposeProcesses:
    """The stack; `environment` is what the file's variables are taken from."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._sandbox = Sandbox(directory)
        for volume in ("data", "workspace"):
            (directory / volume).mkdir()
        self._services: dict[str, dict[str, Any]] = read_compose(environment)["services"]
        self._ports = {name: free_port() for name in self._instances()}
        self.url = f"http://127.0.0.1:{self._ports['balancer']}"
        self.children = {name: self._child(name, service) for name, service in self._instances().items()}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_healthy(self, name: str) -> bool:
        """Whether the service's own health check passes now; one without is."""
        service = self._instances()[name]
        check = service.get("healthcheck")
        if check is None:
            return True
        kind, *command = check["test"]
        assert kind == "CMD"
        done = subprocess.run(
            [self._here(word, name) for word in command],
            env=self._environment(name, service),
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def close(self) -> None:
        for child in reversed(self.children.values()):
            child.close()
        self._sandbox.close()

    def _start(self) -> None:
        """In the order of `depends_on`, as far as health is asked for."""
        waiting = dict(self.children)
        while waiting:
            name = next(name for name in waiting if not self._needs(name) & waiting.keys())
            for needed in self._needs(name):
                self._wait_healthy(needed)
            waiting.pop(name).start()
        wait_for_all(
            list(self.children.values()),
            lambda: all(map(self.is_healthy, self.children)),
            "every service is healthy",
            START_SECONDS,
        )

    def _wait_healthy(self, name: str) -> None:
        self.children[name].wait_until(lambda: self.is_healthy(name), f"{name} is healthy", START_SECONDS)

    def _needs(self, name: str) -> set[str]:
        needed = self._instances()[name].get("depends_on", {})
        if isinstance(needed, list):  # started before, and not waited for
            return set()
        return {other for other, how in needed.items() if how["condition"] == "service_healthy"}

    def _instances(self) -> dict[str, dict[str, Any]]:
        """The services, replicas with a number of their own."""
        instances: dict[str, dict[str, Any]] = {}
        for name, service in self._services.items():
            replicas = service.get("deploy", {}).get("replicas", 1)
            names = [name] if replicas == 1 else [f"{name}-{number}" for number in range(1, replicas + 1)]
            instances |= dict.fromkeys(names, service)
        return instances

    def _child(self, name: str, service: dict[str, Any]) -> ChildProcess:
        command = [self._here(word, name) for word in service["command"]]
        if service["image"] == OWN_IMAGE:
            command = [str(ENTRYPOINT), *command]
        return ChildProcess(name, command, self._sandbox.directory / name, self._environment(name, service))

    def _environment(self, name: str, service: dict[str, Any]) -> dict[str, str]:
        given = {key: self._here(value, name) for key, value in service.get("environment", {}).items()}
        given.pop("FANOUT_DNS", None)  # Docker's, which is not here
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        return self._sandbox.environment | given | {"PATH": path}

    def _here(self, text: str, name: str) -> str:
        """A word of the file, with names, ports and folders of this machine."""
        own = self._ports[name]
        text = re.sub(r"(web\d):8000", lambda found: f"127.0.0.1:{self._ports[found[1]]}", text)
        for service, port in (("redis", 6379), ("balancer", 8080)):
            text = text.replace(f"{service}:{port}", f"127.0.0.1:{self._ports[service]}")
        text = re.sub(r"\b(6379|8000|8080|9100)\b", str(own), text).replace("0.0.0.0", "127.0.0.1")
        text = text.replace("/usr/local/etc/haproxy/haproxy.cfg", str(COMPOSE.with_name("haproxy.cfg")))
        return re.sub(r"^/(data|workspace)\b", lambda found: str(self._sandbox.directory / found[1]), text)
