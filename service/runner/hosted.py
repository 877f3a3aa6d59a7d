"""One conversation in the hands of this runner: its commands, its runs, and what its readers are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.utils.cipher import Cipher

from service.catalog.index import ConversationIndex
from service.errors import BrokerUnavailable, RunLimitReached
from service.runner.agent_loop import AgentLoop
from service.runner.command import Command
from service.runner.command_queue import CommandQueue
from service.runner.opening import Opened
from service.runner.recovery import Navigation, recover
from service.runner.reporter import Reporter
from service.runner.run_driver import RunDriver
from service.runner.run_slots import RunSlots
from service.runner.workers import Workers
from service.store.owner_record import INTERRUPTION_SECONDS, give_up, note_interruption

_log = structlog.get_logger(__name__)

_RUNNING_PATIENCE_SECONDS = 0.1
_COLD_PATIENCE_SECONDS = 2.0
"""How long an answer waits for its command to be applied before it only says accepted: while a run may hold the
conversation, and when the first message has to start the agent's tools."""

_INTERRUPTION_LIMIT = 3
_POISONED = "RunInterruptedRepeatedly"
_WHY_POISONED = (
    f"The runner of this conversation died {_INTERRUPTION_LIMIT} times within {INTERRUPTION_SECONDS / 60:g} minutes "
    "while running it. The run is not continued automatically; start it again when the cause is gone."
)


class HostedConversation:
    """Methods of the runner's loop."""

    def __init__(
        self,
        opened: Opened,
        index: ConversationIndex,
        agent_loop: AgentLoop,
        workers: Workers,
        slots: RunSlots,
        note_activity: Callable[[], None],
        *,
        cipher: Cipher,
        fsync: bool,
        resume_runs: bool,
    ) -> None:
        self.directory = opened.directory
        self.conversation = opened.conversation
        self.reporter = Reporter(opened, index, workers, note_activity, fsync=fsync)
        self._claim = opened.claim
        self._was_handed_over = opened.was_handed_over
        self._fsync = fsync
        self._resume_runs = resume_runs
        self._store = opened.store
        self._outbox = opened.outbox
        self._workers = workers
        self._driver = RunDriver(opened.conversation, agent_loop, workers, slots, self.reporter.run_ended)
        self._queue = CommandQueue(opened, workers, cipher, self._applied)
        self._is_warm = False
        """Whether the agent's tools are started; the first message starts them, which may take long."""

    @property
    def conversation_id(self) -> UUID:
        return self.directory.conversation_id

    async def start(self) -> None:
        """Repair what a crash left, tell readers, begin to apply commands, and go on with a run that was cut off."""
        self._store.on_append = self.reporter.on_append
        self.reporter.watch(self._driver)
        must_resume = await self._workers.call(self._recover)
        await self.reporter.refresh()
        self.reporter.publish_full_state()
        self._queue.start()
        if must_resume:
            await self._resume()

    async def let_go(self, drain_seconds: float) -> None:
        """Leave the conversation to its next owner; waiting commands stay in the inbox. Call `abandon` afterwards.

        A run stops at the end of its step, and its next owner goes on with it; a tool that takes longer than
        `drain_seconds` is cut off. Where runs are not resumed, this one is paused.
        """
        if self._driver.is_active and self._resume_runs:
            await self._freeze(drain_seconds)
            await self._stop()
        else:
            await self._driver.interrupt()
            if not await self._driver.wait_ended(drain_seconds):
                _log.warning("run_does_not_end", conversation_id=str(self.conversation_id))
            await self._stop()
            await self.reporter.refresh()
        await self._workers.call(give_up, self.directory, self._claim, fsync=self._fsync)

    async def abandon(self) -> None:
        """Write nothing more, and let go of terminals and other resources."""
        self._store.discard_writes()
        self.reporter.discard()
        await self._driver.interrupt()
        await self._stop()
        await self._workers.call(self.conversation.close)

    async def _freeze(self, drain_seconds: float) -> None:
        """Have the run write nothing more, if possible from the end of its step on, where no tool is at work."""
        frozen = asyncio.ensure_future(self._workers.call(self._freeze_between_steps))
        done, _ = await asyncio.wait([frozen], timeout=drain_seconds)
        if not done:
            _log.warning("tool_cut_off", conversation_id=str(self.conversation_id), drain_seconds=drain_seconds)
            self._store.discard_writes()
        self.reporter.discard()

    def _freeze_between_steps(self) -> None:
        # The run holds this lock while tools are at work, and lets go of it while it waits for the LLM, whose answer
        # it cannot store any more.
        with self.conversation.state as state:
            if self._driver.is_starting:
                state.execution_status = ConversationExecutionStatus.RUNNING
            self._store.discard_writes()

    def tell_deleted(self) -> None:
        """Nothing is written or published after this, and readers know that it is gone."""
        self._store.discard_writes()
        self.reporter.discard()
        self._outbox.deleted()

    async def submit(self, kind: str, content: bytes, *, starts_run: bool = False, key: str | None = None) -> None:
        """Apply a command (`service.runner.commands`) in its turn, once per `key`; never waits for a tool.

        Raises:
            RunLimitReached: the message is stored, its run was not started.
            RequestFailed: the SDK refused; nothing is left in the inbox.
        """
        command = Command(kind, content, starts_run, key)
        await self._queue.submit(command, self._patience_seconds(command))

    async def run(self) -> None:
        """Accept a run. When this returns every reader is told `running`.

        Raises:
            AlreadyRunning, RunLimitReached.
        """
        await self._driver.start()
        await self.reporter.refresh()

    async def interrupt(self) -> None:
        """Cancel what is in flight and pause; returns once that is so, or after 5 s."""
        if not await self._driver.interrupt():
            await self.submit("pause", b"{}")
        self.reporter.publish_full_state()

    def _recover(self) -> bool:
        """True when a run is to be resumed. Blocking."""
        state = self.conversation.state
        was_running = state.execution_status is ConversationExecutionStatus.RUNNING
        was_cut_off = was_running and not self._was_handed_over
        times = note_interruption(self.directory, self._claim, time.time(), fsync=self._fsync) if was_cut_off else 0
        will_resume = was_running and self._resume_runs and times < _INTERRUPTION_LIMIT
        recover(state, Navigation(self._claim.settled_length, state.leaf_event_id), will_resume=will_resume)
        if times >= _INTERRUPTION_LIMIT:
            with state:
                state.append_event(ConversationErrorEvent(source="environment", code=_POISONED, detail=_WHY_POISONED))
        return will_resume

    async def _resume(self) -> None:
        try:
            await self.run()
        except (RunLimitReached, BrokerUnavailable) as error:
            _log.warning("run_not_resumed", conversation_id=str(self.conversation_id), error=str(error))

    def _patience_seconds(self, command: Command) -> float | None:
        """None: nothing can be in the way and nothing is to be remembered, so the inbox is not needed."""
        if self._driver.is_active or not self._queue.is_empty:
            return _RUNNING_PATIENCE_SECONDS
        is_cold = command.kind == "message" and not self._is_warm
        return _COLD_PATIENCE_SECONDS if is_cold or command.key is not None else None

    async def _applied(self, command: Command) -> None:
        self._is_warm = self._is_warm or command.kind == "message"
        if command.starts_run:
            await self._start_run()
        await self.reporter.refresh()
        if command.kind == "pause":
            self._driver.forget_repeat()
            self.reporter.publish_full_state()

    async def _start_run(self) -> None:
        try:
            await self._driver.start_or_repeat()
        except RunLimitReached:
            raise RunLimitReached(saved_in=str(self.conversation_id)) from None

    async def _stop(self) -> None:
        await self._queue.stop()
        await self.reporter.stop()
