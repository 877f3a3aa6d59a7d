"""One conversation in the hands of this runner: its commands, its runs, and what its readers are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import structlog
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.utils.cipher import Cipher

from service.catalog.conversation_set import ConversationSet
from service.catalog.index import ConversationIndex
from service.errors import AlreadyRunning, Conflict, NotFound, RunLimitReached
from service.runner.agent_loop import AgentLoop
from service.runner.conversation.command import Command
from service.runner.conversation.command_queue import CommandQueue
from service.runner.conversation.commands import condense, pause
from service.runner.conversation.event_tree import is_in_log
from service.runner.conversation.goal_loop import GOAL_REFUSED, GoalLoop
from service.runner.conversation.opening import Opened
from service.runner.conversation.recovery import take_up
from service.runner.conversation.reporter import Reporter
from service.runner.conversation.run_driver import RunDriver
from service.runner.conversation.run_slots import RunSlots
from service.runner.conversation.titles import AutoTitle, TitleLlms
from service.runner.webhooks.webhooks import ConversationWebhooks
from service.runner.wire.request_models import NavigateRequest
from service.runner.workers import Workers
from service.store.inbox import KEY_SECONDS
from service.store.owner_record import give_up, note_navigation

_log = structlog.get_logger(__name__)

_RUNNING_PATIENCE_SECONDS = 0.1
_COLD_PATIENCE_SECONDS = 2.0
"""How long an answer waits for its command to be applied before it only says accepted: while a run may hold the
conversation, and when the first message has to start the agent's tools."""

_LAST_COMMANDS_SECONDS = 2.0
"""For commands that no run is in the way of."""

_LAST_WEBHOOKS_SECONDS = 2.0
"""For what waits to be told to receivers when an idle conversation is let go; its next owner tells the rest."""

_ENDS_GOAL = ("message", "history", "pause")
"""What a client does to a conversation that works for a goal."""

_FIRST = "first"
"""The key of the command that a conversation begins with; no client's, which are hashes."""


class HostedConversation:
    """Methods of the runner's loop. How it comes to a stop:

    | method | the run | the conversation |
    |---|---|---|
    | `interrupt` | is cancelled at once and paused | stays here |
    | `pause_work` | likewise, if there is one | stays here |
    | `let_go` | halts between two steps, or is paused where runs are not resumed | is its next owner's |
    | `abandon` | is cancelled and leaves no trace | is closed: let go of, another runner's, or deleted |
    | `tell_deleted` | goes on until `abandon` and leaves no trace | is gone for its readers |
    """

    def __init__(
        self,
        opened: Opened,
        index: ConversationIndex,
        agent_loop: AgentLoop,
        workers: Workers,
        slots: RunSlots,
        note_activity: Callable[[], None],
        webhooks: ConversationWebhooks,
        goals: ConversationSet,
        title_llms: TitleLlms,
        *,
        cipher: Cipher,
        fsync: bool,
        resume_runs: bool,
    ) -> None:
        self.directory = opened.directory
        self.conversation = opened.conversation
        self.reporter = Reporter(opened, index, workers, note_activity, fsync=fsync)
        self.webhooks = webhooks
        self._opened = opened
        self._fsync = fsync
        self._resume_runs = resume_runs
        self._store = opened.store
        self._outbox = opened.outbox
        self._workers = workers
        self._slots = slots
        self._driver = RunDriver(opened.conversation, agent_loop, workers, slots, self._run_ended)
        self._queue = CommandQueue(
            opened,
            workers,
            cipher,
            self._applied,
            self.reporter.note_change,
            {"navigate": self._navigate, "condense": condense, "pause": self._pause},
        )
        self.goal = GoalLoop(opened, workers, goals, slots, self)
        self._title = AutoTitle(opened.conversation, self.reporter, workers, title_llms)
        self._is_warm = False
        """Whether the agent's tools are started; the first message starts them, which may take long."""
        self._used_at = time.monotonic()

    @property
    def conversation_id(self) -> UUID:
        return self.directory.conversation_id

    def note_use(self) -> None:
        """Somebody wants it or it changes; callable from any thread."""
        self._used_at = time.monotonic()

    def is_idle_since(self, moment: float) -> bool:
        """Whether nothing has happened since (monotonic time), and nothing is left to be done."""
        is_at_work = self._driver.is_busy or self.goal.is_active
        is_at_work = is_at_work or self._title.is_at_work or not self._queue.is_empty or not self.webhooks.is_done
        return self._used_at < moment and not is_at_work

    async def start(self) -> None:
        """Repair what a crash left, tell readers, begin to apply commands, and go on with a run that was cut off."""
        await self.webhooks.start(self._outbox.last_seq + 1)
        self._store.on_append = self._on_append
        self.reporter.watch(self._driver)
        must_resume = await self._workers.call(take_up, self._opened, resume_runs=self._resume_runs, fsync=self._fsync)
        snapshot = await self.reporter.refresh()
        self.webhooks.note_state(snapshot.full_state)
        self.reporter.tell_new_owner()
        if must_resume:
            self._driver.resume()
        await self._queue.start()
        await self.goal.open(will_resume=self._resume_runs)

    async def let_go(self, drain_seconds: float) -> None:
        """Leave the conversation to its next owner; waiting commands stay in the inbox. Call `abandon` afterwards.

        A run stops at the end of its step, and its next owner goes on with it; a tool that takes longer than
        `drain_seconds` is cut off. Where runs are not resumed, this one is paused.
        """
        await self.goal.stop()
        if not self._driver.is_active:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_COMMANDS_SECONDS):
                    await self._queue.wait_empty()
        if not self._driver.is_active:
            await self._queue.stop()  # the command that it has in hand may begin a run
        owes_run = False
        if self._driver.is_active and self._resume_runs:
            owes_run = await self._freeze(drain_seconds)
            await self._stop()
            await self.webhooks.stop()
        else:
            self._driver.close()
            await self._driver.interrupt()
            if not await self._driver.wait_ended(drain_seconds):
                _log.warning("run_does_not_end", conversation_id=str(self.conversation_id))
            await self._stop()
            if self._queue.is_empty:
                await self.reporter.refresh()
            else:
                self._cut_off()  # what is in hand must not come to half of its end
                owes_run = self._queue.owes_run
                await self.reporter.index_as_running()  # else its next owner may come only when somebody asks
            await self.webhooks.finish(_LAST_WEBHOOKS_SECONDS)
        await self._workers.call(give_up, self.directory, self._opened.claim, owes_run=owes_run, fsync=self._fsync)

    async def abandon(self) -> None:
        """Write nothing more, and let go of terminals and other resources."""
        self._cut_off()
        await self.goal.stop()
        await self.webhooks.stop()
        await self._driver.interrupt()
        await self._stop()
        await self._workers.call_that_waits(self.conversation.close)

    async def _freeze(self, drain_seconds: float) -> bool:
        """Have the run write nothing more, if possible from the end of its step on, where no tool is at work.

        Returns whether it has left no trace, since its agent takes long to get ready.
        """
        is_unseen = self._driver.is_unseen
        if is_unseen:
            with suppress(OSError):
                await self.reporter.refresh()  # it is in the index that other runners look for runs without an owner
        frozen = asyncio.ensure_future(self._workers.call_that_waits(self._freeze_between_steps))
        done, _ = await asyncio.wait([frozen], timeout=drain_seconds)
        if not done:
            _log.warning("tool_cut_off", conversation_id=str(self.conversation_id), drain_seconds=drain_seconds)
        self._cut_off()
        self._slots.leave(self.conversation_id)
        return is_unseen and not done

    def _freeze_between_steps(self) -> None:
        # The run holds this lock while tools are at work, and lets go of it while it waits for the LLM, whose answer
        # it cannot store any more. Not `with state`, which would save only when it is too late what is set inside.
        state = self.conversation.state
        state.acquire()
        try:
            is_unseen = self._driver.is_unseen
            self._driver.close()
            if is_unseen:
                state.execution_status = ConversationExecutionStatus.RUNNING
        except OSError:
            _log.exception("run_not_left", conversation_id=str(self.conversation_id))
        finally:
            self._store.close()
            state.release()

    def _cut_off(self) -> None:
        """From here on nothing is written and no run begins."""
        self._driver.close()
        self._store.close()

    def tell_deleted(self) -> None:
        """Nothing is written or published after this, and readers know that it is gone."""
        self._cut_off()
        self._outbox.deleted()

    async def submit(self, kind: str, content: bytes, *, starts_run: bool = False, key: str | None = None) -> None:
        """Apply a command (`service.runner.conversation.commands`) in its turn, once per `key`; never waits for a tool.

        Raises:
            RunLimitReached: the message is stored, its run was not started.
            RequestFailed: the SDK refused; nothing is left in the inbox.
        """
        if kind in _ENDS_GOAL and not self._queue.knows(key):
            await self.goal.interrupt()
        await self._submit(Command(kind, content, starts_run, key))

    async def begin(
        self, kind: str, content: bytes, *, starts_run: bool = False, key: str | None, is_new: bool
    ) -> None:
        """Apply the command that a conversation begins with; `key` is that of the create.

        One that was found gets it when it was made by a create with this key, whose runner may have died just before.
        Raises as `submit`.
        """
        if is_new or self._was_created_with(key):
            await self.submit(kind, content, starts_run=starts_run, key=None if key is None else _FIRST)

    def _was_created_with(self, key: str | None) -> bool:
        """Whether it was, as long as it is remembered for sure which keys were used."""
        meta = self.reporter.meta
        if key is None or meta.creation_key != key:
            return False
        return (datetime.now(UTC) - meta.created_at).total_seconds() < KEY_SECONDS

    async def _submit(self, command: Command) -> None:
        await self._queue.submit(command, self._patience_seconds(command))

    async def run(self) -> None:
        """Accept a run. When this returns every reader is told `running`.

        Raises:
            AlreadyRunning, RunLimitReached.
        """
        await self._driver.start()
        await self.reporter.refresh()

    async def meets_run(self, key: str | None) -> bool:
        """Whether a message submitted right now (no await in between) would find the agent at work. False for a key
        that is known: it will not be applied again.
        """
        await self._driver.let_end()
        return (self._driver.is_busy or self.goal.is_active) and not self._queue.knows(key)

    async def navigate(self, event_id: str | None) -> None:
        """Go on from another event of the log, or from the beginning. Not while a run is going on.

        Raises:
            AlreadyRunning: nothing happened.
            NotFound: there is no such event.
        """
        await self._driver.let_end()
        if self._driver.is_busy:
            raise AlreadyRunning
        content = NavigateRequest(event_id=event_id).model_dump_json().encode()
        await self._queue.submit(Command("navigate", content), None)

    async def condense(self) -> None:
        """Have the LLM summarise what was said, while no run is going on.

        Raises:
            AlreadyRunning: nothing happened.
            Conflict: as `commands.condense`.
            RequestFailed: the LLM did not answer.
        """
        await self._driver.alone(lambda: self._queue.submit(Command("condense", b"{}"), None))

    async def start_goal(self, objective: str, max_iterations: int) -> None:
        """Have the agent work until its LLM finds the objective reached.

        Raises as `GoalLoop.start`, Conflict during a run too.
        """
        await self._require_free()
        await self.goal.start(objective, max_iterations)

    async def resume_goal(self) -> None:
        """Go on with a goal that was interrupted. Raises as `GoalLoop.resume`, Conflict during a run too."""
        await self._require_free()
        await self.goal.resume()

    async def tell_agent(self, message: bytes, key: str) -> None:
        """See `goal_loop.Surroundings`."""
        await self._submit(Command("message", message, True, key))

    async def append(self, event: bytes) -> None:
        """See `goal_loop.Surroundings`."""
        await self._submit(Command("state_update", event))

    async def run_to_its_end(self) -> None:
        """See `goal_loop.Surroundings`."""
        await self._settled()
        if self.conversation.state.execution_status is ConversationExecutionStatus.IDLE:
            await self._driver.start_or_repeat()
            await self._settled()

    async def _settled(self) -> None:
        while self._driver.is_active or not self._queue.is_empty:
            await self._queue.wait_empty()
            await self._driver.wait_ended()

    async def _require_free(self) -> None:
        await self._driver.let_end()
        if self._driver.is_busy:
            raise Conflict(GOAL_REFUSED)

    async def interrupt(self) -> None:
        """Cancel what is in flight and pause; returns once that is so, or after 5 s."""
        await self.goal.interrupt()
        if not await self._driver.interrupt():
            await self.submit("pause", b"{}")
        self.reporter.publish_full_state()

    async def pause_work(self) -> None:
        """Interrupt a run or a goal; nothing where there is none."""
        if self._driver.is_busy or self.goal.is_active:
            await self.interrupt()

    def _pause(self, conversation: LocalConversation, content: bytes) -> None:
        self._driver.forget_repeat()
        self._driver.pause_start()
        pause(conversation, content)

    def _navigate(self, conversation: LocalConversation, content: bytes) -> None:
        event_id = NavigateRequest.model_validate_json(content).event_id
        with conversation.state as state:
            if state.execution_status is ConversationExecutionStatus.RUNNING:
                raise AlreadyRunning
            if event_id is not None and not is_in_log(state, event_id):
                raise NotFound(f"Unknown event_id: {event_id}")
            length = len(state.events)
            conversation.navigate_to(event_id)
        # Else its next owner would take HEAD to the end of the log again.
        note_navigation(self.directory, self._opened.claim, length, fsync=self._fsync)

    def _patience_seconds(self, command: Command) -> float | None:
        """None: nothing can be in the way and nothing is to be remembered, so the inbox is not needed."""
        if self._driver.is_busy or not self._queue.is_empty:
            return _RUNNING_PATIENCE_SECONDS
        is_cold = command.kind == "message" and not self._is_warm
        return _COLD_PATIENCE_SECONDS if is_cold or command.key is not None else None

    def _on_append(self, seq: int, event_id: str, data: bytes) -> None:
        self.note_use()
        self.reporter.on_append(seq, event_id, data)
        self.webhooks.note(seq, len(data))

    async def _run_ended(self) -> None:
        snapshot = await self.reporter.run_ended()
        self.webhooks.note_state(snapshot.full_state)

    async def _applied(self, command: Command) -> None:
        if command.kind == "message":
            self._is_warm = True
            self._title.note_message(command.content)
        if command.starts_run:
            await self._start_run()
        await self.reporter.refresh()
        await self.webhooks.register()
        if command.kind == "pause":
            self.reporter.publish_full_state()

    async def _start_run(self) -> None:
        try:
            await self._driver.start_or_repeat()
        except RunLimitReached:
            raise RunLimitReached(saved_in=str(self.conversation_id)) from None

    async def _stop(self) -> None:
        await self._title.stop()
        await self._queue.stop()
        await self.reporter.stop()
