"""What is asked of a conversation's goal, by name."""

from __future__ import annotations

from service.requests.message import Answer, Request
from service.runner.operations.table import SUCCESS, Operation, conversation_id
from service.runner.ownership.host import Host
from service.runner.wire.request_models import StartGoalRequest
from service.runner.wire.validation import parse


class GoalOperations:
    """Asked of the conversation's owner."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.table: dict[str, Operation] = {
            "goal.start": self._start,
            "goal.stop": self._stop,
            "goal.resume": self._resume,
        }

    async def _start(self, request: Request) -> Answer:
        wanted = parse(StartGoalRequest, request.body)
        await (await self._host.open(conversation_id(request))).start_goal(wanted.objective, wanted.max_iterations)
        return SUCCESS

    async def _stop(self, request: Request) -> Answer:
        await (await self._host.open(conversation_id(request))).goal.interrupt()
        return SUCCESS

    async def _resume(self, request: Request) -> Answer:
        await (await self._host.open(conversation_id(request))).resume_goal()
        return SUCCESS
