"""One conversation's runs: each comes to an end, and readers hear of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import pytest
from openhands.sdk import Agent, Message
from openhands.sdk.agent.base import AgentBase
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event import AgentErrorEvent, ObservationEvent

from service.catalog.catalog import Catalog
from service.catalog.cluster_runs import ClusterRuns
from service.catalog.keys import Keys
from service.errors import RunLimitReached
from service.pubsub.envelope import Kind
from service.redis_source import RedisSource
from service.runner import full_disk
from service.runner.agent_loop import PROCESS_AGENT_LOOP
from service.runner.conversation import run_driver
from service.runner.conversation.opening import Opened
from service.runner.conversation.reporter import Reporter
from service.runner.conversation.run_driver import RESULT_NOT_STORED, RunDriver
from service.runner.conversation.run_slots import RunSlots
from service.runner.workers import Workers
from tests.unit.runner.rig import Rig, ScriptedLLM, says, send, thinks
from tests.unit.runner.small_disk import SmallDisk
from tests.waiting import wait_until_async


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def opened(rig: Rig) -> Opened:
    return rig.create(ScriptedLLM.of(says("done")))


@pytest.fixture
async def driver(opened: Opened) -> AsyncIterator[RunDriver]:
    async with driving(opened) as driver:
        yield driver


@asynccontextmanager
async def driving(opened: Opened, cluster_runs: ClusterRuns | None = None) -> AsyncIterator[RunDriver]:
    """With a reporter that tells what happens, as in a runner; `cluster_runs`: where the deployment has a limit."""
    async with AsyncExitStack() as stack:
        workers = Workers()
        stack.callback(workers.close)
        agent_loop = PROCESS_AGENT_LOOP.acquire()
        stack.callback(PROCESS_AGENT_LOOP.release)
        redis = RedisSource(None, "t").commands()
        stack.push_async_callback(redis.aclose)
        catalog = Catalog(redis, Keys("t"), 10.0)
        reporter = Reporter(opened, catalog.index, workers, lambda: None, fsync=False)
        stack.push_async_callback(reporter.stop)

        async def settle() -> None:
            await reporter.run_ended()

        slots = RunSlots(1, cluster_runs or catalog.cluster_runs, 1 if cluster_runs else None)
        driver = RunDriver(opened.conversation, agent_loop, workers, slots, settle)
        reporter.watch(driver)
        opened.store.on_append = reporter.on_append
        yield driver


def told_states(rig: Rig) -> list[bytes]:
    """The full states that readers were told."""
    told = [envelope.payload for envelope in rig.publisher.envelopes if envelope.kind is Kind.TRANSIENT]
    return [payload for payload in told if b'"key":"full_state"' in payload]


@pytest.mark.parametrize("file", ["meta.json", "snapshot"])
async def test_end_of_a_run_is_told_when_the_disk_has_room(
    rig: Rig, opened: Opened, driver: RunDriver, file: str
) -> None:
    """All its events were stored; what clients wait for is the state after them."""
    send(opened, "hello")
    with (
        patch.object(full_disk, "_AGAIN_SECONDS", 0.01),
        SmallDisk(opened.directory.path, lambda name: file in name) as disk,
    ):
        await driver.start()
        await disk.wait_refused(3)
        assert told_states(rig) == []
        disk.is_full = False
        assert await driver.wait_ended(10.0)
    assert b'"execution_status":"finished"' in told_states(rig)[0]


async def test_call_whose_result_could_not_be_stored_is_not_made_again(rig: Rig) -> None:
    """Its outcome is unknown: the agent is told so, and the next run does not carry it out once more."""
    llm = ScriptedLLM.of(thinks(), says("done"))
    opened = rig.create(llm)
    async with driving(opened) as driver:
        send(opened, "hello")
        with patch.object(full_disk, "_AGAIN_SECONDS", 0.01), SmallDisk(opened.directory.path, is_full=False) as disk:
            hear = opened.store.on_append

            def note(seq: int, event_id: str, data: bytes) -> None:
                disk.is_full = disk.is_full or data.endswith(b'"kind":"ActionEvent"}')
                hear(seq, event_id, data)

            opened.store.on_append = note
            await driver.start()
            await disk.wait_refused(3)
            opened.store.on_append = hear
            disk.is_full = False
            assert await driver.wait_ended(10.0)
        state = opened.conversation.state
        assert state.execution_status is ConversationExecutionStatus.ERROR
        await driver.start()
        assert await driver.wait_ended(10.0)
    results = [event for event in state.events if isinstance(event, ObservationEvent | AgentErrorEvent)]
    assert [getattr(event, "error", None) for event in results] == [RESULT_NOT_STORED]
    assert state.execution_status.value == "finished"


async def test_run_that_waits_for_another_to_get_a_slot_is_refused_with_it(opened: Opened) -> None:
    """Its message was to be answered by a run: nobody else would start that, or tell that there is none."""

    class Full(ClusterRuns):
        """A deployment that says only when it is told to that it has no slot."""

        def __init__(self) -> None:
            self.answers = asyncio.Event()

        async def take(self, conversation_id: UUID, limit: int) -> bool:
            await self.answers.wait()
            return False

    full = Full()
    async with driving(opened, full) as driver:
        asked = [asyncio.create_task(ask) for ask in (driver.start(), *(driver.start_or_repeat() for _ in "ab"))]
        await asyncio.wait(asked, timeout=0.0)
        full.answers.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [RunLimitReached] * 3
        assert not driver.is_busy


@asynccontextmanager
async def interrupted(rig: Rig, *answers: Message) -> AsyncIterator[tuple[Opened, RunDriver]]:
    """In its first step, which ends with the block; of an agent that knows only the blocking step."""
    is_asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        is_asked.set()
        go_on.wait(10.0)

    opened = rig.create(ScriptedLLM.of(*answers, before={0: wait}))
    with patch.object(Agent, "astep", AgentBase.astep):
        async with driving(opened) as driver:
            send(opened, "hello")
            await driver.start()
            await wait_until_async(is_asked.is_set, "a step is being taken")
            interrupting = asyncio.create_task(driver.interrupt())
            await asyncio.wait([interrupting], timeout=0.0)
            yield opened, driver
            go_on.set()
            await interrupting
            assert not driver.is_active


async def test_run_of_an_agent_that_knows_only_the_blocking_step_can_be_interrupted(rig: Rig) -> None:
    """At the end of the step, like a pause: there is no task to cancel."""
    async with interrupted(rig, *(thinks() for _ in range(100)), says("done")) as (opened, _):
        pass
    assert opened.conversation.state.execution_status is ConversationExecutionStatus.PAUSED


async def test_run_that_is_asked_for_while_one_is_interrupted_comes_after_it(rig: Rig) -> None:
    """It was not what the interruption was about."""
    async with interrupted(rig, thinks(), says("done")) as (opened, driver):
        await driver.start_or_repeat()
    assert opened.conversation.state.execution_status is ConversationExecutionStatus.FINISHED


class Sometimes(ClusterRuns):
    """A deployment that has a slot only when it is told to; knows what was asked of it."""

    def __init__(self) -> None:
        self.is_free = False
        self.refused = 0
        self.given_back: list[UUID] = []

    async def take(self, conversation_id: UUID, limit: int) -> bool:
        self.refused += not self.is_free
        return self.is_free

    async def give_back(self, conversation_id: UUID) -> None:
        self.given_back.append(conversation_id)


@asynccontextmanager
async def waiting_for_a_slot(opened: Opened) -> AsyncIterator[tuple[RunDriver, Sometimes]]:
    """A run that was cut off and is to be gone on with, where there is no slot."""
    slots = Sometimes()
    with patch.object(run_driver, "ASK_AGAIN_SECONDS", 0.1):
        async with driving(opened, slots) as driver:
            send(opened, "hello")
            with opened.conversation.state as state:
                state.execution_status = ConversationExecutionStatus.RUNNING
            driver.resume()
            await wait_until_async(lambda: slots.refused > 0, "it waits for a slot")
            yield driver, slots


@pytest.mark.parametrize("is_interrupted", [False, True])
async def test_message_after_a_pause_has_its_run(opened: Opened, *, is_interrupted: bool) -> None:
    """Though the run that was paused still waited for a slot, and so had not ended."""
    async with waiting_for_a_slot(opened) as (driver, slots):
        if is_interrupted:
            driver._interrupt()
        await asyncio.to_thread(opened.conversation.pause)
        send(opened, "go on")
        slots.is_free = True
        await driver.start_or_repeat()
        assert await driver.wait_ended(10.0)
    assert opened.conversation.state.execution_status is ConversationExecutionStatus.FINISHED


async def test_run_that_waits_for_a_slot_is_left_to_the_next_owner(opened: Opened) -> None:
    """With the slot: it may have been taken there already."""
    async with waiting_for_a_slot(opened) as (driver, slots):
        driver.close()
        slots.is_free = True
        assert await driver.wait_ended(10.0)
    assert opened.conversation.state.execution_status is ConversationExecutionStatus.RUNNING
    assert slots.given_back == []
    assert isinstance(opened.conversation.agent.llm, ScriptedLLM)
    assert opened.conversation.agent.llm.asked == []


async def test_closed_driver_repeats_no_run(rig: Rig) -> None:
    """It was interrupted for good; a message that was applied meanwhile is for the next owner."""
    async with interrupted(rig, *(thinks() for _ in range(5)), says("done")) as (opened, driver):
        driver.close()
        await driver.start_or_repeat()
    assert opened.conversation.state.execution_status is ConversationExecutionStatus.PAUSED
