"""One conversation's runs: at most one at a time, started on request, driven to their end.

The SDK has no such guard: two concurrent `arun()` duplicate observations. All methods are called on the runner's loop;
the agent itself runs on the agent loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog
from openhands.sdk.agent.base import AgentBase
from openhands.sdk.conversation.exceptions import ConversationRunError
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event.conversation_error import ConversationErrorEvent

from service.errors import AlreadyRunning, BrokerUnavailable, OwnershipLost, RunLimitReached
from service.metrics import metrics
from service.runner.agent_loop import AgentLoop
from service.runner.conversation.recovery import close_open_calls
from service.runner.conversation.run_slots import ASK_AGAIN_SECONDS, RunSlots
from service.runner.full_disk import once_stored
from service.runner.untyped import untyped
from service.runner.workers import Workers
from service.tasks import TaskSet
from service.tracing import traced

_log = structlog.get_logger(__name__)

RESULT_NOT_STORED = (
    "The result of this call could not be stored, so its outcome is unknown; check what it did before doing it again."
)
_INTERRUPT_WAIT_SECONDS = 5.0
_WRAP_UP_SECONDS = 5.0
_RUNNING = ConversationExecutionStatus.RUNNING
_REPEATABLE = (ConversationExecutionStatus.IDLE, ConversationExecutionStatus.PAUSED)
"""Where a run asked for while the last one ended is still to be done; an error is the answer to both."""


class RunDriver:
    """Starts, repeats and interrupts the runs of one conversation."""

    def __init__(
        self,
        conversation: LocalConversation,
        agent_loop: AgentLoop,
        workers: Workers,
        slots: RunSlots,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        """`settle` is awaited after each run, once everything the run appended is on disk; it tells the readers, or
        raises OwnershipLost.
        """
        self._conversation = conversation
        self._agent_loop = agent_loop
        self._workers = workers
        self._slots = slots
        self._settle = settle
        self._tasks = TaskSet()
        self._task: asyncio.Task[None] | None = None
        self._has_slot_answer = asyncio.Event()
        """Not while a run that is asked for waits for a slot."""
        self._has_slot_answer.set()
        self._is_alone = False
        """Something holds the state lock for long, so no run may begin."""
        self._is_wanted_again = False
        """Something came during the run that it may have missed."""
        self._has_entered = False
        """The SDK's status shows the run, or did."""
        self._interrupt_wanted = False
        self._closed = threading.Event()
        self._is_on_agent_loop = False
        """Between entering and leaving the SDK's `arun`, which is when it can be interrupted."""

    @property
    def is_active(self) -> bool:
        """Whether a run is accepted or going on."""
        return self._task is not None

    @property
    def is_busy(self) -> bool:
        """Whether a run is active or asked for, or something is done that no run may meet."""
        return self.is_active or self._is_alone or not self._has_slot_answer.is_set()

    @property
    def is_unseen(self) -> bool:
        """Whether a run is accepted, first or again, that the SDK's status does not show."""
        return self.is_starting or (self.is_active and self._has_more)

    @property
    def is_starting(self) -> bool:
        """Whether a run is accepted and the SDK's status does not show it yet."""
        status = self._conversation.state.execution_status
        return self.is_active and not self._has_entered and status is not ConversationExecutionStatus.FINISHED

    def note_running(self) -> None:
        """The SDK's status became `running`; callable from any thread."""
        self._has_entered = True

    async def start(self) -> None:
        """Accept a run; it goes on in the background.

        Raises:
            AlreadyRunning: there is one.
            RunLimitReached: this runner or the deployment is full.
            BrokerUnavailable: whether the deployment is full cannot be found out.
            OwnershipLost: after `close`; nothing happened.
        """
        await self.let_end()
        if self._closed.is_set():
            raise OwnershipLost
        if self.is_busy:
            raise AlreadyRunning
        self._has_slot_answer.clear()
        try:
            await self._slots.take(self._conversation.id, "run")
        finally:
            self._has_slot_answer.set()
        self._leave_slot_if_closed()
        self._has_entered = False
        self._begin(has_slot=True)

    def resume(self) -> None:
        """Accept a run that the SDK's status shows already; it goes on once it has a slot, however long that takes."""
        self._has_entered = True
        self._begin(has_slot=False)

    def close(self) -> None:
        """Accept no more runs: what is asked for from here on is the next owner's. Callable from any thread."""
        self._closed.set()

    async def let_end(self) -> None:
        """A client that was just told of the end of a run may start the next at once, while this one wraps up."""
        is_over = self._has_entered and self._conversation.state.execution_status != _RUNNING
        if self._task is not None and is_over:
            await asyncio.wait([self._task], timeout=_WRAP_UP_SECONDS)

    async def start_or_repeat(self) -> None:
        """Accept a run, or have the active one go on with what was appended meanwhile. Raises as `start`."""
        while not self._has_slot_answer.is_set():  # there may be none for the run that was asked for
            await self._has_slot_answer.wait()
        if self._task is not None or self._is_alone:
            self._is_wanted_again = True
        else:
            await self.start()

    async def alone[Result](self, function: Callable[[], Awaitable[Result]]) -> Result:
        """Await what holds the state lock for long. A run that began meanwhile would wait for that lock on the agent
        loop, and all others with it: so it is refused, or comes afterwards. Raises AlreadyRunning.
        """
        await self.let_end()
        if self.is_busy:
            raise AlreadyRunning
        self._is_alone = True
        try:
            return await function()
        finally:
            self._is_alone = False
            if self._is_wanted_again:
                await self.start_or_repeat()

    def forget_repeat(self) -> None:
        """What was asked for before a pause is not to be done after it. Callable from any thread."""
        self._is_wanted_again = False

    async def interrupt(self) -> bool:
        """Cancel the LLM call or tool in flight; returns when the run has ended or after 5 s. False without a run."""
        task = self._task
        if task is None:
            return False
        self._is_wanted_again = False
        self._interrupt()
        if self._has_blocking_step:
            self._tasks.start(self._interrupt_blocking_run(), f"interrupt {self._conversation.id}")
        await asyncio.wait([task], timeout=_INTERRUPT_WAIT_SECONDS)
        return True

    def pause_start(self) -> None:
        """Have a run that has not begun not begin: the SDK, told to pause before that, would run all the same. Callable
        from any thread.
        """
        if self.is_starting:
            self._interrupt()

    async def wait_ended(self, timeout_seconds: float | None = None) -> bool:
        """Until no run is active; False when the time was over first."""
        if self._task is None:
            return True
        done, _ = await asyncio.wait([self._task], timeout=timeout_seconds)
        return bool(done)

    def _begin(self, *, has_slot: bool) -> None:
        self._interrupt_wanted = False
        self._task = self._tasks.start(self._drive(has_slot=has_slot), f"run {self._conversation.id}")

    async def _drive(self, *, has_slot: bool) -> None:
        with traced("run", conversation_id=str(self._conversation.id)):
            await self._drive_to_end(has_slot=has_slot)

    async def _drive_to_end(self, *, has_slot: bool) -> None:
        try:
            while True:
                has_slot = has_slot or await self._wait_for_slot()
                if has_slot:
                    self._is_wanted_again = False
                    await self._run_once()
                else:
                    await self._pause_if_interrupted()
                if not self._must_repeat:
                    await self._settle_once_stored()
                    # No await from here to the end: a message that arrives later starts a run of its own.
                    if not self._must_repeat:
                        return
                self._interrupt_wanted = False  # what is still to be done was asked for afterwards
        except OwnershipLost:  # the next owner tells what became of it
            _log.info("run_given_up", conversation_id=str(self._conversation.id))
        finally:
            metrics().runs_ended.labels(self._conversation.state.execution_status.value).inc()
            self._task = None
            self._slots.give_back(self._conversation.id, "run")

    async def _wait_for_slot(self) -> bool:
        """False when the run is paused or interrupted first. Raises OwnershipLost after `close`."""
        log = _log.warning  # once
        while self._is_owed and not self._interrupt_wanted:
            if self._closed.is_set():
                raise OwnershipLost
            try:
                await self._slots.take(self._conversation.id, "run")
            except (RunLimitReached, BrokerUnavailable) as error:
                log("run_waits_for_slot", conversation_id=str(self._conversation.id), error=str(error))
                log = _log.debug
                await asyncio.sleep(ASK_AGAIN_SECONDS)
            else:
                self._leave_slot_if_closed()
                return True
        return False

    def _leave_slot_if_closed(self) -> None:
        """Raises OwnershipLost then: the slot is the next owner's, who may have taken it already."""
        if self._closed.is_set():
            self._slots.leave(self._conversation.id)
            raise OwnershipLost

    @property
    def _is_owed(self) -> bool:
        """Whether a run that has no slot yet is still to be gone on with."""
        return self._is_wanted_again or self._conversation.state.execution_status is _RUNNING

    @property
    def _must_repeat(self) -> bool:
        return self._has_more and not self._closed.is_set()

    @property
    def _has_more(self) -> bool:
        return self._is_wanted_again and self._conversation.state.execution_status in _REPEATABLE

    @property
    def _has_blocking_step(self) -> bool:
        """Whether this is a custom agent that knows no other."""
        return type(self._conversation.agent).astep is AgentBase.astep

    async def _run_once(self) -> None:
        """Raises OwnershipLost."""
        try:
            if not self._has_blocking_step:
                await asyncio.wrap_future(self._agent_loop.submit(self._arun()))
            elif not self._interrupt_wanted:
                await self._workers.call_that_waits(untyped(self._conversation).run)
        except ConversationRunError as error:
            # The SDK has set the status and appended the ConversationErrorEvent.
            _log.info("run_failed", conversation_id=str(self._conversation.id), error=str(error.original_exception))
            await self._once_recorded(self._close_open_calls)
        except OwnershipLost:
            raise
        except Exception as error:  # noqa: BLE001  supervisor: whatever a run raises ends that run only, visibly
            _log.exception("run_crashed", conversation_id=str(self._conversation.id))
            await self._once_recorded(partial(self._record_crash, error))
        await self._pause_if_interrupted()
        self._has_entered = True

    async def _arun(self) -> None:
        if self._interrupt_wanted:
            return
        self._is_on_agent_loop = True
        try:
            await untyped(self._conversation).arun()
        except asyncio.CancelledError:
            # Interrupted while the agent was being initialised, which the SDK does not expect; `_run_once` pauses.
            _log.info("interrupted_before_first_step", conversation_id=str(self._conversation.id))
        finally:
            self._is_on_agent_loop = False

    def _interrupt(self) -> None:
        self._interrupt_wanted = True
        # On the agent loop, so that it cannot fall between the check in `_arun` and the SDK's own bookkeeping.
        self._agent_loop.loop.call_soon_threadsafe(self._interrupt_on_agent_loop)

    def _interrupt_on_agent_loop(self) -> None:
        # Without a task to cancel the SDK would fall back to `pause`, which takes the state lock on this thread.
        if self._is_on_agent_loop:
            self._conversation.interrupt()

    async def _interrupt_blocking_run(self) -> None:
        """Without a task to cancel the SDK pauses it, and tells the tools."""
        with suppress(OwnershipLost):
            await self._workers.call_that_waits(self._conversation.interrupt)

    async def _pause_if_interrupted(self) -> None:
        if self._interrupt_wanted:
            await self._workers.call_that_waits(self._conversation.pause)  # no effect once paused

    async def _once_recorded(self, record: Callable[[], None]) -> None:
        """Once the disk takes it: one that is full may be what the run died of."""
        await once_stored(
            lambda: self._workers.call_that_waits(record),
            "crash_not_recorded",
            is_passing=lambda refusal: True,
            conversation_id=str(self._conversation.id),
        )

    async def _settle_once_stored(self) -> None:
        """Likewise: readers must hear of the end, and a full disk may have taken the run's last event and no more."""
        await once_stored(self._settle, "run_not_settled", conversation_id=str(self._conversation.id))

    def _record_crash(self, error: Exception) -> None:
        """What the SDK does for errors inside a step, for those outside of one."""
        state = self._conversation.state
        with state:
            close_open_calls(state, RESULT_NOT_STORED)
            state.execution_status = ConversationExecutionStatus.ERROR
            state.append_event(
                ConversationErrorEvent(source="environment", code=type(error).__name__, detail=str(error))
            )

    def _close_open_calls(self) -> None:
        """The next run would carry them out again."""
        with self._conversation.state as state:
            close_open_calls(state, RESULT_NOT_STORED)
