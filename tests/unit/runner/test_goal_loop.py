"""Goals that follow on each other: the work for one ends with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.catalog.conversation_set import ConversationSet
from service.catalog.keys import Keys
from service.redis_source import RedisSource
from service.runner.conversation.goal_loop import GoalLoop
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


async def test_ended_goal_does_not_work_for_the_next(tmp_path: Path, goals: ConversationSet) -> None:
    """Which begins while the end of the former is told, and stays in the list of those at work."""
    opened, hosting, workers = Rig(tmp_path).create(ScriptedLLM.of()), Hosting(), Workers()
    goal = GoalLoop(opened, workers, goals, hosting)
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


def at_work() -> int:
    """How many work for a goal."""
    return sum(task.get_name().startswith("goal ") for task in asyncio.all_tasks())
