"""Goals that follow on each other: the work for one ends with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from service.catalog.cluster_runs import ClusterRuns
from service.catalog.conversation_set import ConversationSet
from service.catalog.keys import Keys
from service.errors import OwnershipLost, RunLimitReached
from service.redis_source import RedisSource
from service.runner.conversation import goal_loop
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


class Far(ClusterRuns):
    """In a Redis whose answer takes a while."""

    def __init__(self, redis: Redis, keys: Keys, slot_ttl_seconds: float) -> None:
        super().__init__(redis, keys, slot_ttl_seconds)
        self.may_answer = asyncio.Event()

    async def take(self, conversation_id: UUID, limit: int) -> bool:
        await self.may_answer.wait()
        return await super().take(conversation_id, limit)


class Gone(Hosting):
    """A conversation that is being let go."""

    async def tell_agent(self, message: bytes, key: str) -> None:
        raise OwnershipLost

    async def append(self, event: bytes) -> None:
        raise OwnershipLost


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


async def test_goal_that_is_gone_on_with_waits_for_a_slot(
    tmp_path: Path, goals: ConversationSet, slots: RunSlots
) -> None:
    """Its next owner is full, and nobody would begin it again."""
    opened, hosting, workers, other = Rig(tmp_path).create(ScriptedLLM.of()), Hosting(), Workers(), uuid4()
    former = GoalLoop(opened, workers, goals, slots, hosting)
    await former.start("one", 3)
    await former.stop()
    await slots.take(other, "run")
    goal = GoalLoop(opened, workers, goals, slots, hosting)
    with (
        patch.object(goal_loop, "ASK_AGAIN_SECONDS", 0.01),
        patch.object(RunSlots, "take", autospec=True, side_effect=RunSlots.take) as take,
    ):
        await goal.open(will_resume=True)
        await wait_until_async(lambda: take.call_count > 1, "it asks again")
        assert hosting.keys == []
        slots.give_back(other, "run")
        await wait_until_async(lambda: len(hosting.keys) == 1, "the agent is told")
    await goal.stop()
    workers.close()


async def test_goal_of_a_conversation_that_is_let_go_gives_its_slot_back(
    tmp_path: Path, goals: ConversationSet, slots: RunSlots
) -> None:
    """Else its runner would have one less, until it ends."""
    opened, workers = Rig(tmp_path).create(ScriptedLLM.of()), Workers()
    goal = GoalLoop(opened, workers, goals, slots, Gone())
    with pytest.raises(OwnershipLost):
        await goal.start("one", 3)
    await wait_until_async(lambda: at_work() == 0, "it is over")
    assert slots.taken == 0
    assert await goals.without_owner() == []
    workers.close()


async def test_two_that_ask_for_a_slot_at_once_are_both_refused() -> None:
    """The deployment's are all taken; the second is not taken for one that shares the slot of the first."""
    redis, its_own = RedisSource(None, "t").commands(), uuid4()
    cluster = Far(redis, Keys("t"), 10.0)
    await ClusterRuns.take(cluster, uuid4(), 1)
    slots = RunSlots(2, cluster, 1)
    asked = [asyncio.create_task(slots.take(its_own, "run")), asyncio.create_task(slots.take(its_own, "goal"))]
    await asyncio.wait(asked, timeout=0.0)
    cluster.may_answer.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RunLimitReached, RunLimitReached]
    assert slots.taken == 0
    await redis.aclose()


def at_work() -> int:
    """How many work for a goal."""
    return sum(task.get_name().startswith("goal ") for task in asyncio.all_tasks())
