"""A goal: run, have the agent's LLM judge whether the objective is reached, tell the agent what is missing, run again.

What the SDK decides (`GoalController`) is driven from here. How far it is lies in `goal.json`, written before each
thing that follows from it, so that the next owner goes on: it sends the message again under the same key, which has no
second effect, and waits for the run, which is resumed by itself. A judgement that was cut off is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol
from uuid import uuid4

import structlog
from openhands.sdk.agent.acp_agent import ACPAgent
from openhands.sdk.conversation.goal import GoalController, GoalDone, GoalStatus
from openhands.sdk.conversation.goal.prompts import RESUME_PROMPT
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event.conversation_state import ConversationStateUpdateEvent
from openhands.sdk.llm import TextContent
from pydantic import BaseModel

from service.catalog.conversation_set import ConversationSet
from service.errors import BadRequest, BrokerUnavailable, Conflict, OwnershipLost, RunLimitReached
from service.runner.conversation.opening import Opened
from service.runner.conversation.run_slots import ASK_AGAIN_SECONDS, RunSlots
from service.runner.wire.request_models import PostMessageRequest
from service.runner.workers import Workers
from service.store.goal_record import GOAL_FILE, read_goal
from service.store.inbox import key_name
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

GOAL_REFUSED = "Conversation run or goal loop already running."


class Goal(BaseModel):
    """The content of `goal.json`."""

    goal_id: str
    status: GoalStatus
    message: str
    """What the agent is told in this round."""

    @property
    def key(self) -> str:
        """Of this round's message, as an idempotency key."""
        return key_name(f"goal {self.goal_id} {self.status.iteration}")


class Surroundings(Protocol):
    """What a goal needs of the conversation that hosts it."""

    async def tell_agent(self, message: bytes, key: str) -> None:
        """Append a user's message and start a run, once per key."""

    async def append(self, event: bytes) -> None:
        """Append a state update to the log, after what was asked before."""

    async def run_to_its_end(self) -> None:
        """Until no command waits and no run is going on; a message that waits for a run gets one."""


class GoalLoop:
    """Methods of the runner's loop."""

    def __init__(
        self, opened: Opened, workers: Workers, goals: ConversationSet, slots: RunSlots, surroundings: Surroundings
    ) -> None:
        self._conversation: LocalConversation = opened.conversation
        self._conversation_id = opened.directory.conversation_id
        self._directory = opened.directory
        self._store = opened.store
        self._workers = workers
        self._goals = goals
        self._slots = slots
        self._surroundings = surroundings
        self._tasks = TaskSet()
        self._goal: Goal | None = None
        self._changing = asyncio.Lock()

    @property
    def is_active(self) -> bool:
        """Whether the goal is being worked for, be it that a run is going on or that it is judged."""
        return self._at_work(None) is not None

    async def open(self, *, will_resume: bool) -> None:
        """Go on where the former owner was; without `will_resume` what it left is interrupted."""
        content = await self._workers.call(read_goal, self._directory)
        if content is None:
            return
        self._goal = goal = Goal.model_validate_json(content)
        if self.is_active and will_resume:
            await self._publish()
            self._go_on(goal.goal_id)
        else:
            await self.interrupt()

    async def start(self, objective: str, max_iterations: int) -> None:
        """Begin to work for an objective.

        Raises:
            BadRequest: it is blank, or the agent has no LLM to judge with.
            Conflict: there is a goal.
            RunLimitReached, BrokerUnavailable: as `RunSlots.take`.
        """
        if not objective.strip():
            raise BadRequest("Goal objective must not be empty.")
        await self._begin(objective, max_iterations, objective, 0)

    async def resume(self) -> None:
        """Go on with a goal that was interrupted, with the rounds it has left.

        Raises:
            BadRequest: there is none.
            Conflict: it is not interrupted.
            RunLimitReached, BrokerUnavailable: as `RunSlots.take`.
        """
        last = self._goal
        if self.is_active:
            raise Conflict(GOAL_REFUSED)
        if last is None or last.status.status != "interrupted":
            raise BadRequest("no_resumable_goal")
        await self._begin(last.status.objective, last.status.max_iterations, RESUME_PROMPT, last.status.iteration)

    async def interrupt(self) -> None:
        """End the goal; the run that is going on goes on. Nothing without a goal."""
        if await self._change(None, active=False, status="interrupted"):
            await self._tasks.stop()
            await self._publish()
            await self._unregister()

    async def stop(self) -> None:
        """Do nothing more here; the next owner goes on."""
        await self._tasks.stop()
        self._slots.give_back(self._conversation_id, "goal")

    async def _begin(self, objective: str, max_iterations: int, message: str, iteration: int) -> None:
        if isinstance(self._conversation.agent, ACPAgent):
            raise BadRequest("no_judge_llm")
        async with self._changing:
            if self.is_active:
                raise Conflict(GOAL_REFUSED)
            status = GoalStatus(
                active=True,
                status="running",
                iteration=iteration,
                max_iterations=max_iterations,
                objective=objective,
            )
            goal_id = uuid4().hex
            await self._slots.take(self._conversation_id, "goal")
            try:
                await self._save(Goal(goal_id=goal_id, status=status, message=message))
            except BaseException:
                self._slots.give_back(self._conversation_id, "goal")
                raise
        self._go_on(goal_id)  # first, for it has a slot, which is given back at its end also where nobody can be told
        await self._publish()

    def _go_on(self, goal_id: str) -> None:
        self._tasks.start(self._work(goal_id), f"goal {self._conversation_id}")

    async def _work(self, goal_id: str) -> None:
        try:
            with contextlib.suppress(BrokerUnavailable):  # a server that starts finds it on the disk
                await self._goals.add([self._conversation_id])
            await self._hold_slot(goal_id)
            while (goal := self._at_work(goal_id)) is not None:
                await self._round(goal)
        except Exception:  # noqa: BLE001  supervisor: whatever a round raises ends the goal, visibly
            _log.exception("goal_failed", conversation_id=str(self._conversation_id))
            await self._change(goal_id, active=False, status="interrupted")
            with contextlib.suppress(OwnershipLost):
                await self._publish()
        await self._unregister()

    async def _hold_slot(self, goal_id: str) -> None:
        """One that was started has it already; one that is gone on with waits, however long that takes."""
        while self._at_work(goal_id) is not None:
            try:
                return await self._slots.take(self._conversation_id, "goal")
            except (RunLimitReached, BrokerUnavailable):
                await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def _round(self, goal: Goal) -> None:
        message = PostMessageRequest(role="user", content=[TextContent(text=goal.message)], run=True)
        await self._surroundings.tell_agent(message.model_dump_json().encode(), goal.key)
        await self._surroundings.run_to_its_end()
        if self._conversation.state.execution_status is not ConversationExecutionStatus.FINISHED:
            await self._change(goal.goal_id, active=False, status="interrupted")
        else:
            await self._judge(goal.goal_id, goal.status)
        await self._publish()

    async def _judge(self, goal_id: str, status: GoalStatus) -> None:
        llm, limit = self._conversation.agent.llm, status.max_iterations
        controller = GoalController(status.objective, llm, max_iterations=limit)
        controller.iteration = status.iteration
        step = await self._workers.call_that_waits(
            lambda: controller.on_run_finished(self._conversation.state.active_branch())
        )
        if isinstance(step, GoalDone):
            outcome = step.outcome
            await self._change(
                goal_id, active=False, status=outcome.status, verdict=outcome.verdict, iteration=controller.iteration
            )
        else:
            await self._change(goal_id, step.followup, iteration=controller.iteration, verdict=step.verdict)

    def _at_work(self, goal_id: str | None) -> Goal | None:
        """The goal as it is now, of that id if one is given; None when it has ended, also where another has begun."""
        goal = self._goal
        is_it = goal is not None and goal.status.active and goal_id in (None, goal.goal_id)
        return goal if is_it else None

    async def _change(self, goal_id: str | None, message: str | None = None, **changes: Any) -> bool:
        """Save a change of the goal, and the message of its next round; False when it is not at work any more."""
        async with self._changing:
            goal = self._at_work(goal_id)
            if goal is None:
                return False
            status = goal.status.model_copy(update=changes)
            await self._save(Goal(goal_id=goal.goal_id, status=status, message=message or goal.message))
            if not status.active:
                self._slots.give_back(self._conversation_id, "goal")
            return True

    async def _publish(self) -> None:
        assert self._goal is not None
        event = ConversationStateUpdateEvent(key="goal", value=self._goal.status.model_dump(mode="json"))
        await self._surroundings.append(event.model_dump_json(exclude_none=True).encode())

    async def _save(self, goal: Goal) -> None:
        await self._workers.call(self._store.write, GOAL_FILE, goal.model_dump_json())
        self._goal = goal

    async def _unregister(self) -> None:
        async with self._changing:
            if not self.is_active:  # another may have begun
                with contextlib.suppress(BrokerUnavailable):
                    await self._goals.remove(self._conversation_id)
