"""What is asked of each runner of a machine that is about to be frozen, by name."""

from __future__ import annotations

from service.requests.message import Answer, Request
from service.runner.operations.table import SUCCESS, Operation
from service.runner.ownership.host import Host


class SandboxOperations:
    """Asked of every runner."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.table: dict[str, Operation] = {"sandbox.prepare_pause": self._prepare_pause}

    async def _prepare_pause(self, _: Request) -> Answer:
        await self._host.close_all()
        return SUCCESS
