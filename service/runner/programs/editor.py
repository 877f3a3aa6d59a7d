"""The editor in the browser, OpenVSCode Server, where the image has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from service.errors import Unavailable
from service.runner.programs.ports import require_free
from service.settings import Settings

_READY = ("Web UI available at", "Server bound to")


class Editor:
    """A `Program` (`service.runner.programs.host_program`)."""

    name = "vscode"

    def __init__(self, settings: Settings) -> None:
        self.port = settings.vscode_port
        self._root = Path(settings.vscode_path)
        self._base_path = settings.vscode_base_path

    def command(self, token: str) -> list[str]:
        """As `Program`."""
        program = self._root / "bin" / "openvscode-server"
        if not program.exists():
            raise Unavailable(f"There is no {program}")
        require_free(self.port)
        command = [str(program), "--host", "0.0.0.0", "--connection-token", token, "--port", str(self.port)]
        if (self._root / "extensions").is_dir():
            command += ["--extensions-dir", str(self._root / "extensions")]
        if self._base_path:
            command += ["--server-base-path", "/" + self._base_path.strip("/")]
        return [*command, "--disable-workspace-trust"]

    def clean_up(self) -> None:
        """As `Program`."""

    async def wait_ready(self, lines: AsyncIterator[str]) -> None:
        """As `Program`."""
        async for line in lines:
            if any(mark in line for mark in _READY):
                return
