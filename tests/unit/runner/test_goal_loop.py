"""Goals that follow on each other: the work for one ends with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from service.catalog.cluster_runs import ClusterRuns
from service.catalog.conversation_set import ConversationSet
from service.catalog.keys import Keys
from service.errors import RunLimitReached
from service.redis_source import RedisSource
from service.runner.conversation.goal_loop import GoalLoop
from service.runner.conversation.run_slots import RunSlots
from service.runner.workers import Workers
from tests.unit.runner.rig import Rig, ScriptedLLM
from tests.waiting import wait_until_async


class Hosting:
    """A conversation whose first run does not finish, so that its goal is interrupted, and whose second goes on."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        """Of what the agent was told."""
        self.tells_end = asyncio.Event()
        self.may_end = asyncio.Event()

    async def tell_agent(self, message: bytes, key: str) -> None:
        self.keys.append(key)

    async def append(self, event: bytes) -> None:
        if json.loads(event)["value"]["status"] == "interrupted":
            self.tells_end.set()
            await self.may_end.wait()

    async def run_to_its_end(self) -> None:
        if len(self.keys) > 1:
            await asyncio.Event().wait()


@pytest.fixture
async def goals() -> AsyncIterator[ConversationSet]:
    source = RedisSource(None, "t")
    redis = source.commands()
    yield ConversationSet(redis, Keys("t"), "goals")
    await redis.aclose()


@pytest.fixture
async def slots() -> AsyncIterator[RunSlots]:
    """Of a runner that one run fills."""
    redis = RedisSource(None, "t").commands()
    yield RunSlots(1, ClusterRuns(redis, Keys("t"), 10.0), None)
    await redis.aclose()


async def test_ended_goal_does_not_work_for_the_next(tmp_path: Path, goals: ConversationSet, slots: RunSlots) -> None:
    """Which begins while the end of the former is told, and stays in the list of those at work."""
    opened, hosting, workers = Rig(tmp_path).create(ScriptedLLM.of()), Hosting(), Workers()
    goal = GoalLoop(opened, workers, goals, slots, hosting)
    await goal.start("one", 3)
    await hosting.tells_end.wait()
    await goal.start("two", 3)
    await wait_until_async(lambda: len(hosting.keys) == 2, "the agent is told of the second")
    hosting.may_end.set()
    await wait_until_async(lambda: at_work() == 1, "the first is over", timeout_seconds=5.0)
    assert len(hosting.keys) == 2
    assert await goals.without_owner() == [opened.directory.conversation_id]
    await goal.stop()
    workers.close()


async def test_goal_has_a_slot_to_its_end(tmp_path: Path, goals: ConversationSet, slots: RunSlots) -> None:
    """Between its runs too; without one it does not begin."""
    opened, hosting, workers, other = Rig(tmp_path).create(ScriptedLLM.of()), Hosting(), Workers(), uuid4()
    goal, its_own = GoalLoop(opened, workers, goals, slots, hosting), opened.directory.conversation_id
    hosting.may_end.set()
    await slots.take(other, "run")
    with pytest.raises(RunLimitReached):
        await goal.start("none", 3)
    assert not goal.is_active
    slots.give_back(other, "run")
    await goal.start("one", 3)
    await wait_until_async(lambda: at_work() == 0, "the first is over")
    assert slots.taken == 0
    await goal.start("two", 3)
    await slots.take(its_own, "run")
    slots.give_back(its_own, "run")
    with pytest.raises(RunLimitReached):
        await slots.take(other, "run")
    await goal.interrupt()
    assert slots.taken == 0
    workers.close()


def at_work() -> int:
    """How many work for a goal."""
    return sum(task.get_name().startswith("goal ") for task in asyncio.all_tasks())
