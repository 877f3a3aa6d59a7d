"""Accepted commands: applied once, in order, whatever happens to the runner on the way."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event import MessageEvent, PauseEvent
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.llm import content_to_str

from service.errors import OwnershipLost, RequestFailed
from service.identity import RunnerId
from service.runner import full_disk
from service.runner.conversation import command_queue
from service.runner.conversation.command import Command
from service.runner.conversation.command_queue import CommandQueue
from service.runner.conversation.opening import Opened
from service.runner.conversation.recovery import recover
from service.runner.workers import Workers
from service.store import atomic
from service.store.inbox import Inbox, key_name
from service.store.layout import ConversationDirectory
from service.store.owner_record import claim
from tests.unit.runner.rig import Rig, ScriptedLLM, crash_points, says
from tests.unit.runner.small_disk import SmallDisk
from tests.waiting import wait_until_async

SECRET = "s3cret-value-of-the-test"
KEY = key_name("k1")
PATIENCE_SECONDS = 10.0


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def opened(rig: Rig) -> Opened:
    return rig.create(ScriptedLLM.of())


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.close()


class Applied(list[Command]):
    """The commands that were applied, in order."""

    failures = 0

    def note_failure(self) -> None:
        self.failures += 1

    async def note(self, command: Command) -> None:
        self.append(command)


@asynccontextmanager
async def started(rig: Rig, opened: Opened, workers: Workers) -> AsyncIterator[tuple[CommandQueue, Applied]]:
    """A queue that applies, what a crash left behind first."""
    applied = Applied()
    queue = CommandQueue(opened, workers, rig.opener.cipher, applied.note, applied.note_failure, {})
    await queue.start()
    try:
        yield queue, applied
    finally:
        await queue.stop()


def body(text: str, *, run: bool = False) -> bytes:
    """A message as it is posted."""
    return json.dumps({"content": [{"type": "text", "text": text}], "run": run}).encode()


def accept(directory: ConversationDirectory, kind: str, content: bytes, key: str | None = None) -> None:
    """As if a client had been told that this is accepted, and the runner had died then."""
    inbox = Inbox(directory, fsync=False)
    inbox.put(inbox.reserve(), kind, content, key)


def waiting(directory: ConversationDirectory) -> list[str]:
    return [entry.kind for entry in Inbox(directory, fsync=False).entries()]


def said(opened: Opened) -> list[str]:
    """The texts of the user's messages in the log."""
    messages = [event for event in opened.conversation.state.events if isinstance(event, MessageEvent)]
    return ["".join(content_to_str(event.llm_message.content)) for event in messages if event.source == "user"]


async def drained(queue: CommandQueue) -> None:
    await wait_until_async(lambda: queue.is_empty, "every command is applied")


# After a crash


async def test_accepted_commands_are_applied_in_order(rig: Rig, opened: Opened, workers: Workers) -> None:
    """Their clients have their answer already."""
    for kind, content in (("message", body("one")), ("pause", b"{}"), ("message", body("two", run=True))):
        accept(opened.directory, kind, content)
    async with started(rig, rig.open(opened.directory), workers) as (queue, applied):
        await drained(queue)
    again = rig.open(opened.directory)
    assert said(again) == ["one", "two"]
    assert sum(isinstance(event, PauseEvent) for event in again.conversation.state.events) == 1
    assert [(command.kind, command.starts_run) for command in applied] == [
        ("message", False),
        ("pause", False),
        ("message", True),
    ]
    assert waiting(opened.directory) == []


@contextmanager
def crashes_in_the_inbox(
    directory: ConversationDirectory, copies: Path, points: list[ConversationDirectory]
) -> Iterator[None]:
    """Adds to the crash points those after each change of the inbox."""

    def and_copy(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any) -> Any:
            result = change(*args)
            copy = copies / f"inbox-{len(points):03}" / directory.path.name
            shutil.copytree(directory.path, copy)
            points.append(ConversationDirectory(copy))
            return result

        return changed

    with (
        patch.object(Inbox, "assign", and_copy(Inbox.assign)),
        patch.object(Inbox, "finish", and_copy(Inbox.finish)),
    ):
        yield


@pytest.mark.parametrize("key", [None, KEY])
async def test_killed_at_any_moment_no_message_is_lost_or_doubled(
    rig: Rig, opened: Opened, workers: Workers, tmp_path: Path, key: str | None
) -> None:
    """A crash between append and removal, or anywhere else: each is in the log once, and on the agent's branch."""
    accept(opened.directory, "message", body("one"), key)
    accept(opened.directory, "message", body("two"))
    copies = tmp_path / "copies"
    with crash_points(opened.directory, copies) as points, crashes_in_the_inbox(opened.directory, copies, points):
        async with started(rig, rig.open(opened.directory), workers) as (queue, _):
            await drained(queue)
    assert len(points) > 8

    for number, point in enumerate(points):
        again = rig.open(point)
        recover(again.conversation.state, None, will_resume=False)
        async with started(rig, again, workers) as (queue, _):
            await drained(queue)
        assert said(again) == ["one", "two"], f"after step {number}"
        branch = {event.id for event in again.conversation.state.active_branch()}
        messages = [event for event in again.conversation.state.events if isinstance(event, MessageEvent)]
        assert {event.id for event in messages} <= branch, f"after step {number}"
        assert waiting(point) == [], f"after step {number}"
        assert key is None or Inbox(point, fsync=False).is_done(key), f"after step {number}"
        again.conversation.close()


async def test_killed_at_any_moment_a_message_begins_its_run(
    rig: Rig, opened: Opened, workers: Workers, tmp_path: Path
) -> None:
    """It is asked for by the one who died or by the next, also where the message ended what was finished."""
    with opened.conversation.state as state:
        state.execution_status = ConversationExecutionStatus.FINISHED
    accept(opened.directory, "message", body("one", run=True))
    copies = tmp_path / "copies"
    asked_after: list[int] = []
    with crash_points(opened.directory, copies) as points, crashes_in_the_inbox(opened.directory, copies, points):
        with patch.object(Applied, "append", lambda applied, command: asked_after.append(len(points))):
            async with started(rig, rig.open(opened.directory), workers) as (queue, _):
                await drained(queue)
    assert len(points) > asked_after[0] > 4

    for number, point in enumerate(points):
        again = rig.open(point)
        recover(again.conversation.state, None, will_resume=False)
        async with started(rig, again, workers) as (queue, applied):
            await drained(queue)
        assert said(again) == ["one"], f"after step {number}"
        if number < asked_after[0]:
            assert [command.starts_run for command in applied] == [True], f"after step {number}"
            status = again.conversation.state.execution_status
            assert status is ConversationExecutionStatus.IDLE, f"after step {number}"
        assert waiting(point) == [], f"after step {number}"
        again.conversation.close()


async def test_answered_message_begins_no_other_run(rig: Rig, opened: Opened, workers: Workers) -> None:
    """The runner died when its run had begun, and before the inbox had forgotten it."""
    accept(opened.directory, "message", body("one", run=True))
    with patch.object(Inbox, "finish"):
        async with started(rig, rig.open(opened.directory), workers) as (queue, _):
            await drained(queue)
    again = rig.open(opened.directory)
    with again.conversation.state as state:
        state.append_event(MessageEvent(source="agent", llm_message=says("an answer")))
    async with started(rig, again, workers) as (queue, applied):
        await drained(queue)
    assert applied == []
    assert waiting(opened.directory) == []


async def test_message_that_is_answered_meanwhile_begins_no_other_run(
    rig: Rig, opened: Opened, workers: Workers
) -> None:
    """By a run that went on while the disk refused the state; that is finished then, and stays so."""
    async with started(rig, opened, workers) as (queue, _):
        await queue.submit(Command("message", body("one")), None)
        with opened.conversation.state as state:
            event_id = state.leaf_event_id
            state.append_event(MessageEvent(source="agent", llm_message=says("an answer")))
            state.execution_status = ConversationExecutionStatus.FINISHED
        await queue.submit(Command("message", body("one"), True, event_id=event_id), None)
    assert opened.conversation.state.execution_status is ConversationExecutionStatus.FINISHED
    assert said(opened) == ["one"]


async def test_message_that_is_in_the_log_is_not_applied_again(rig: Rig, opened: Opened, workers: Workers) -> None:
    """The runner died between append and removal."""
    accept(opened.directory, "message", body("one"))
    with patch.object(Inbox, "finish"):
        async with started(rig, rig.open(opened.directory), workers) as (queue, _):
            await drained(queue)
    assert waiting(opened.directory) == ["message"]

    again = rig.open(opened.directory)
    async with started(rig, again, workers) as (queue, applied):
        await drained(queue)

    assert applied == []
    assert said(again) == ["one"]
    assert waiting(opened.directory) == []


async def test_secrets_lie_encrypted_and_arrive(rig: Rig, opened: Opened, workers: Workers) -> None:
    """While they wait, nobody reads them off the disk."""
    queue = CommandQueue(opened, workers, rig.opener.cipher, Applied().note, lambda: None, {})
    command = Command("secrets", json.dumps({"secrets": {"TOKEN": SECRET}}).encode())
    await queue.submit(command, 0.01)
    assert waiting(opened.directory) == ["secrets"]
    files = [path for path in opened.directory.path.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in path.read_bytes() for path in files)

    again = rig.open(opened.directory)
    async with started(rig, again, workers) as (queue, _):
        await drained(queue)

    registry = rig.open(opened.directory).conversation.state.secret_registry
    assert registry.secret_sources["TOKEN"].get_value() == SECRET


async def test_command_that_fails_after_its_answer_leaves_an_event(rig: Rig, opened: Opened, workers: Workers) -> None:
    """Its client was told that it is accepted: the conversation says what became of it, and goes on."""
    accept(opened.directory, "from_the_future", b"{}")
    accept(opened.directory, "message", body("one"))
    again = rig.open(opened.directory)
    async with started(rig, again, workers) as (queue, _):
        await drained(queue)
    errors = [event for event in again.conversation.state.events if isinstance(event, ConversationErrorEvent)]
    assert [error.code for error in errors] == ["KeyError"]
    assert said(again) == ["one"]
    assert waiting(opened.directory) == []


# A new owner


async def test_deposed_owner_leaves_accepted_commands_to_its_successor(
    rig: Rig, opened: Opened, workers: Workers
) -> None:
    """It cannot apply them, and they are not its to throw away."""
    accept(opened.directory, "message", body("one"))
    deposed = rig.open(opened.directory)
    claim(opened.directory, RunnerId("other"), fsync=False)
    with patch.object(command_queue._log, "error"):
        async with started(rig, deposed, workers) as (queue, _):
            [command] = queue._commands
            await asyncio.wait([command.outcome], timeout=PATIENCE_SECONDS)
    assert waiting(opened.directory) == ["message"]

    successor = rig.open(opened.directory)
    async with started(rig, successor, workers) as (queue, _):
        await drained(queue)
    assert said(successor) == ["one"]


async def test_deposed_owner_accepts_nothing(rig: Rig, opened: Opened, workers: Workers) -> None:
    """Its successor has looked into the inbox already."""
    async with started(rig, opened, workers) as (queue, _):
        claim(opened.directory, RunnerId("other"), fsync=False)
        with pytest.raises(OwnershipLost):
            await queue.submit(Command("message", body("one")), PATIENCE_SECONDS)
    assert waiting(opened.directory) == []


async def test_message_that_a_frozen_conversation_stored_is_accepted(
    rig: Rig, opened: Opened, workers: Workers
) -> None:
    """It cannot be applied any more, and the next owner finds it: its client must not send it again."""
    opened.store.close()
    async with started(rig, opened, workers) as (queue, _):
        await queue.submit(Command("message", body("one")), PATIENCE_SECONDS)
    assert waiting(opened.directory) == ["message"]
    successor = rig.open(opened.directory)
    async with started(rig, successor, workers) as (queue, _):
        await drained(queue)
    assert said(successor) == ["one"]


async def test_abandoned_conversation_leaves_accepted_commands(rig: Rig, opened: Opened, workers: Workers) -> None:
    """What is applied to a closed store was not applied."""
    accept(opened.directory, "message", body("one"))
    abandoned = rig.open(opened.directory)
    abandoned.store.close()
    async with started(rig, abandoned, workers) as (queue, _):
        await drained(queue)
    assert waiting(opened.directory) == ["message"]


async def test_stopped_queue_keeps_what_waits(rig: Rig, opened: Opened, workers: Workers) -> None:
    """The next owner applies it, also what was in hand when the owner changed."""
    async with started(rig, opened, workers) as (queue, _):
        with holding(opened):
            await queue.submit(Command("message", body("one")), 0.01)
            await queue.submit(Command("message", body("two")), 0.01)
            await queue.stop()
            claim(opened.directory, RunnerId("other"), fsync=False)
    assert waiting(opened.directory) == ["message"] * 2
    async with started(rig, rig.open(opened.directory), workers) as (queue, _):
        await drained(queue)
    assert said(rig.open(opened.directory)) == ["one", "two"]


async def test_queue_that_left_nothing_is_not_stopped_again(rig: Rig, opened: Opened, workers: Workers) -> None:
    """Its conversation is let go and then closed, and the disk need not be looked at each time."""
    with patch.object(Inbox, "close", autospec=True, side_effect=Inbox.close) as close:
        async with started(rig, opened, workers) as (queue, _):
            await queue.stop()
    assert close.call_count == 1


async def test_message_that_is_in_the_log_is_accepted_when_its_queue_stops(
    rig: Rig, opened: Opened, workers: Workers
) -> None:
    """What follows it takes too long, as where Redis stands still: its client must not send it to the next owner."""
    is_applied = asyncio.Event()

    async def stand_still(command: Command) -> None:
        is_applied.set()
        await asyncio.Event().wait()

    queue = CommandQueue(opened, workers, rig.opener.cipher, stand_still, lambda: None, {})
    await queue.start()
    submitted = asyncio.create_task(queue.submit(Command("message", body("one")), None))
    await is_applied.wait()
    with patch.object(command_queue, "_IN_HAND_SECONDS", 0.01):
        await queue.stop()
        opened.store.close()
        await queue.stop()
    await submitted
    assert said(rig.open(opened.directory)) == ["one"]


async def test_applied_message_whose_owner_is_deposed_is_accepted(rig: Rig, opened: Opened, workers: Workers) -> None:
    """It is in the log, and what follows it is no longer to be done here."""

    async def be_deposed(command: Command) -> None:
        raise OwnershipLost

    queue = CommandQueue(opened, workers, rig.opener.cipher, be_deposed, lambda: None, {})
    await queue.start()
    await queue.submit(Command("message", body("one")), None)
    await queue.stop()
    assert said(rig.open(opened.directory)) == ["one"]


@pytest.mark.parametrize("slow", ["fsync", "fsync_directory"], ids=["before it is there", "after it is there"])
async def test_command_that_a_slow_disk_is_storing_is_accepted_or_did_not_happen(
    rig: Rig, opened: Opened, workers: Workers, slow: str
) -> None:
    """Never both: its client would send it again to the next owner, which finds it in the inbox, too."""
    is_storing, go_on = threading.Event(), threading.Event()
    syncing = replace(opened, inbox=Inbox(opened.directory, fsync=True))

    def wait(_: object) -> None:
        is_storing.set()
        go_on.wait(PATIENCE_SECONDS)

    where = os if slow == "fsync" else atomic
    with patch.object(command_queue, "_IN_HAND_SECONDS", 0.01), patch.object(where, slow, wait):
        async with started(rig, syncing, workers) as (queue, _):
            submitted = asyncio.create_task(queue.submit(Command("message", body("one")), PATIENCE_SECONDS))
            await workers.call(is_storing.wait, PATIENCE_SECONDS)
            await queue.stop()
            go_on.set()
            outcome = (await asyncio.gather(submitted, return_exceptions=True))[0]
    assert isinstance(outcome, OwnershipLost) == (waiting(opened.directory) == [])
    assert isinstance(outcome, OwnershipLost) == (slow == "fsync")


async def test_command_whose_client_goes_away_while_it_is_stored_is_applied(
    rig: Rig, opened: Opened, workers: Workers
) -> None:
    """As one that is stored already, and those behind it after it."""
    is_storing, go_on = threading.Event(), threading.Event()
    put = Inbox.put

    def put_slowly(*args: Any) -> Any:
        is_storing.set()
        go_on.wait(PATIENCE_SECONDS)
        return put(*args)

    async with started(rig, opened, workers) as (queue, _):
        with patch.object(Inbox, "put", put_slowly):
            gone = asyncio.create_task(queue.submit(Command("message", body("one")), PATIENCE_SECONDS))
            await workers.call(is_storing.wait, PATIENCE_SECONDS)
            gone.cancel()
            await asyncio.wait([gone])
        go_on.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await queue.submit(Command("message", body("two")), None)
    assert said(opened) == ["one", "two"]


# Answers


@contextmanager
def holding(opened: Opened) -> Iterator[None]:
    """A tool holds the conversation, on a thread of its own, for the length of the block."""
    is_held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with opened.conversation.state:
            is_held.set()
            release.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(PATIENCE_SECONDS)
    try:
        yield
    finally:
        release.set()
        thread.join()


async def test_answer_does_not_wait_for_a_tool(rig: Rig, opened: Opened, workers: Workers) -> None:
    """What is accepted is on disk by then, and is applied in its turn."""
    async with started(rig, opened, workers) as (queue, applied):
        with holding(opened):
            for text in ("one", "two", "three"):
                await queue.submit(Command("message", body(text)), 0.01)
            assert waiting(opened.directory) == ["message"] * 3
            assert said(opened) == []
        await drained(queue)
        assert said(opened) == ["one", "two", "three"]
        assert len(applied) == 3
    assert waiting(opened.directory) == []


async def test_command_that_waits_for_a_tool_keeps_no_other_from_the_disk(rig: Rig, opened: Opened) -> None:
    """Else as many as there are threads would keep all others from being stored, and the runner from letting go."""
    with closing(Workers(1)) as workers:
        async with started(rig, opened, workers) as (queue, _):
            with holding(opened):
                for text in ("one", "two"):
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await queue.submit(Command("message", body(text)), 0.01)
            await drained(queue)
    assert said(opened) == ["one", "two"]


async def test_applied_command_is_answered_when_it_is_applied(rig: Rig, opened: Opened, workers: Workers) -> None:
    """Nothing is in the way: it does not even go through the inbox."""
    async with started(rig, opened, workers) as (queue, applied):
        await queue.submit(Command("message", body("one")), None)
        assert said(opened) == ["one"]
        assert len(applied) == 1
        await queue.submit(Command("message", body("two")), PATIENCE_SECONDS)
        assert said(opened) == ["one", "two"]
    assert waiting(opened.directory) == []


@pytest.mark.parametrize("patience_seconds", [None, PATIENCE_SECONDS])
async def test_refused_command_is_its_answer(
    rig: Rig, opened: Opened, workers: Workers, patience_seconds: float | None
) -> None:
    """Nothing is left of it, in the inbox or in the log."""
    async with started(rig, opened, workers) as (queue, applied):
        with pytest.raises(RequestFailed):
            await queue.submit(Command("message", b"{"), patience_seconds)
        assert (applied, applied.failures) == ([], 1)
        await queue.submit(Command("message", body("one")), patience_seconds)
    assert said(opened) == ["one"]
    assert waiting(opened.directory) == []


async def test_command_that_cannot_be_stored_is_not_accepted(rig: Rig, opened: Opened, workers: Workers) -> None:
    """The disk is full: the client is told, and nothing happens later."""
    async with started(rig, opened, workers) as (queue, applied):
        with (
            patch.object(Inbox, "put", side_effect=OSError("no space")),
            pytest.raises(RequestFailed, match="no space"),
        ):
            await queue.submit(Command("message", body("one")), PATIENCE_SECONDS)
        await queue.submit(Command("message", body("two")), PATIENCE_SECONDS)
    assert said(opened) == ["two"]
    assert len(applied) == 1


# A full disk


@pytest.fixture
def impatient() -> Iterator[None]:
    """A disk that took nothing is asked again soon, and nothing is waited for when a queue stops."""
    with (
        patch.object(full_disk, "_AGAIN_SECONDS", 0.01),
        patch.object(full_disk, "_LONGEST_PAUSE_SECONDS", 0.02),
        patch.object(command_queue, "_IN_HAND_SECONDS", 0.01),
    ):
        yield


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE], ids=["space", "descriptors"])
async def test_accepted_command_waits_until_the_disk_has_room(
    rig: Rig, opened: Opened, workers: Workers, number: int
) -> None:
    """It keeps its place, and those behind it theirs. So it does where the process has no descriptors left."""
    async with started(rig, opened, workers) as (queue, applied):
        with SmallDisk(opened.directory.path, is_full=False, number=number) as disk:
            with holding(opened):
                for text in ("one", "two"):
                    await queue.submit(Command("message", body(text)), 0.01)
                disk.is_full = True
            await disk.wait_refused(3)
            assert waiting(opened.directory) == ["message"] * 2
        await drained(queue)
        assert [applied.failures, len(applied)] == [0, 2]
    assert said(opened) == ["one", "two"]
    assert waiting(opened.directory) == []


@pytest.mark.usefixtures("impatient")
async def test_next_owner_finds_what_the_disk_did_not_take(rig: Rig, opened: Opened, workers: Workers) -> None:
    """Its client has its answer."""
    accept(opened.directory, "message", body("one"))
    with SmallDisk(opened.directory.path) as disk:
        async with started(rig, opened, workers):
            await disk.wait_refused(2)
    assert waiting(opened.directory) == ["message"]
    successor = rig.open(opened.directory)
    async with started(rig, successor, workers) as (queue, _):
        await drained(queue)
    assert said(successor) == ["one"]


@pytest.mark.usefixtures("impatient")
async def test_message_whose_state_did_not_fit_is_not_doubled(rig: Rig, opened: Opened, workers: Workers) -> None:
    """The event was stored, and the last thing that fits; the state follows when there is room."""
    accept(opened.directory, "message", body("one"))
    async with started(rig, opened, workers) as (queue, _):
        with SmallDisk(opened.directory.path, lambda name: name.startswith(".base_state")) as disk:
            await disk.wait_refused(3)
        await drained(queue)
    again = rig.open(opened.directory)
    assert said(again) == ["one"]
    assert again.conversation.state.leaf_event_id == opened.conversation.state.leaf_event_id
    assert waiting(opened.directory) == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("patience_seconds", [None, PATIENCE_SECONDS])
async def test_message_whose_state_did_not_fit_is_accepted(
    rig: Rig, opened: Opened, workers: Workers, patience_seconds: float | None
) -> None:
    """It is in the log: its client must not send it again, and if it does, the key is known."""
    async with started(rig, opened, workers) as (queue, _):
        await queue.submit(Command("message", body("first")), None)  # now the agent is ready
        with SmallDisk(opened.directory.path, lambda name: name.startswith(".base_state")):
            async with asyncio.timeout(PATIENCE_SECONDS / 2):
                await queue.submit(Command("message", body("one"), key=KEY), patience_seconds)
        await drained(queue)
        if patience_seconds is not None:
            await queue.submit(Command("message", body("one"), key=KEY), patience_seconds)
    again = rig.open(opened.directory)
    assert said(again) == ["first", "one"]
    assert again.conversation.state.leaf_event_id == opened.conversation.state.leaf_event_id
    assert waiting(opened.directory) == []


async def test_command_that_was_not_accepted_yet_is_refused_by_a_full_disk(
    rig: Rig, opened: Opened, workers: Workers
) -> None:
    """It was in the inbox already; nothing of it is left there."""
    async with started(rig, opened, workers) as (queue, _):
        with (
            SmallDisk(opened.directory.path, lambda name: ".event-" in name),
            pytest.raises(RequestFailed, match="No space"),
        ):
            await queue.submit(Command("message", body("one")), PATIENCE_SECONDS)
        assert waiting(opened.directory) == []
        await queue.submit(Command("message", body("two")), PATIENCE_SECONDS)
    assert said(opened) == ["two"]


@pytest.mark.usefixtures("impatient")
async def test_failure_that_does_not_fit_is_told_when_there_is_room(rig: Rig, opened: Opened, workers: Workers) -> None:
    """And the commands behind it are applied."""
    accept(opened.directory, "from_the_future", b"{}")
    accept(opened.directory, "message", body("one"))
    async with started(rig, opened, workers) as (queue, _):
        with SmallDisk(opened.directory.path) as disk:
            await disk.wait_refused(2)
        await drained(queue)
    errors = [event for event in opened.conversation.state.events if isinstance(event, ConversationErrorEvent)]
    assert [error.code for error in errors] == ["KeyError"]
    assert said(opened) == ["one"]


async def test_command_whose_failure_cannot_be_told_stays_in_the_inbox(
    rig: Rig, opened: Opened, workers: Workers
) -> None:
    """It was accepted: the next owner tries it again."""
    accept(opened.directory, "from_the_future", b"{}")
    with SmallDisk(opened.directory.path, number=errno.EACCES) as disk:
        async with started(rig, opened, workers) as (queue, _):
            await drained(queue)
        assert disk.refusals > 0
    assert waiting(opened.directory) == ["from_the_future"]


async def test_failure_that_cannot_be_told_stops_no_command_behind_it(
    rig: Rig, opened: Opened, workers: Workers
) -> None:
    """Whatever the reason: here, that the conversation belongs to another."""
    for kind in ("from_the_future", "message"):
        accept(opened.directory, kind, body("one"))
    deposed = rig.open(opened.directory)
    claim(opened.directory, RunnerId("other"), fsync=False)
    async with started(rig, deposed, workers) as (queue, _):
        commands = list(queue._commands)
        await wait_until_async(lambda: all(command.outcome.done() for command in commands), "both have an end")
        await drained(queue)


# Repetitions


async def test_repeated_command_has_no_second_effect(rig: Rig, opened: Opened, workers: Workers) -> None:
    """By its key: while it waits, when it is applied, and after a restart."""
    async with started(rig, opened, workers) as (queue, _):
        with holding(opened):
            for _ in range(2):
                await queue.submit(Command("message", body("one"), key=KEY), 0.01)
        await drained(queue)
        await queue.submit(Command("message", body("one"), key=KEY), PATIENCE_SECONDS)
    again = rig.open(opened.directory)
    async with started(rig, again, workers) as (queue, _):
        await queue.submit(Command("message", body("one"), key=KEY), PATIENCE_SECONDS)
        await queue.submit(Command("message", body("two"), key=key_name("k2")), PATIENCE_SECONDS)
    assert said(again) == ["one", "two"]


async def test_repetition_of_a_failed_command_is_another_try(rig: Rig, opened: Opened, workers: Workers) -> None:
    """Nothing had happened."""
    async with started(rig, opened, workers) as (queue, _):
        with pytest.raises(RequestFailed):
            await queue.submit(Command("message", b"{", key=KEY), PATIENCE_SECONDS)
        await queue.submit(Command("message", body("one"), key=KEY), PATIENCE_SECONDS)
    assert said(opened) == ["one"]
