"""What is asked of the programs that a host runs once, by name: any of its runners can tell."""

from __future__ import annotations

import asyncio

from service.errors import Disabled
from service.requests.message import Answer, Request
from service.runner.operations.table import Operation, answered
from service.runner.programs.desktop import Desktop, password_of
from service.runner.programs.editor import Editor
from service.runner.programs.host_program import HostProgram
from service.settings import Settings


class HostOperations:
    """The editor's and the desktop's. What is not enabled is not run."""

    def __init__(self, settings: Settings) -> None:
        self._editor = HostProgram(Editor(settings)) if settings.enable_vscode else None
        self._desktop = HostProgram(Desktop(settings)) if settings.enable_vnc else None
        self.programs = [each for each in (self._editor, self._desktop) if each is not None]
        """To be kept running."""
        self.table: dict[str, Operation] = {
            "host.editor_status": self._editor_status,
            "host.editor_token": self._editor_token,
            "host.desktop_password": self._desktop_password,
        }

    async def _editor_status(self, request: Request) -> Answer:
        if self._editor is None:
            message = "VSCode is disabled in configuration"
            return answered({"running": False, "enabled": False, "message": message})
        is_running = await asyncio.to_thread(self._editor.find) is not None
        return answered({"running": is_running, "enabled": True})

    async def _editor_token(self, request: Request) -> Answer:
        if self._editor is None:
            raise Disabled("VSCode is disabled in configuration. Set enable_vscode=true to enable.")
        found = await asyncio.to_thread(self._editor.find)
        return answered(None if found is None else found.token)

    async def _desktop_password(self, request: Request) -> Answer:
        if self._desktop is None:
            raise Disabled("Desktop is disabled in configuration. Set enable_vnc=true to enable.")
        found = await asyncio.to_thread(self._desktop.find)
        return answered(None if found is None else password_of(found.token))
