"""What readers are told of one conversation: the snapshot on disk, the index, the channel, and in which order.

News of a status goes out only when REST answers tell it too, and that of an error only with its reason in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event import Event
from openhands.sdk.event.conversation_state import ConversationStateUpdateEvent
from openhands.sdk.event.llm_completion_log import LLMCompletionLogEvent
from openhands.sdk.llm import LLM

from service.catalog.index import RUNNING, ConversationIndex, IndexEntry
from service.errors import BrokerUnavailable, OwnershipLost
from service.metrics import metrics
from service.runner.conversation.description import Describer
from service.runner.conversation.meta import Meta, write_meta
from service.runner.conversation.opening import Opened
from service.runner.conversation.outbox import Hold
from service.runner.conversation.run_driver import RunDriver
from service.runner.conversation.streaming import reset
from service.runner.full_disk import once_stored
from service.runner.workers import Workers
from service.store.snapshot import Snapshot, SnapshotHeader, write_snapshot
from service.tasks import TaskSet
from service.tracing import note

_SNAPSHOT_DELAY_SECONDS = 0.25
"""How old the snapshot may be while a run appends events."""
_DESCRIBE_TRIES = 5
_REPEAT_FULL_STATE_SECONDS = 0.5
"""The SDK's client begins to wait for the end of a run only after the reply to `POST run`, so the end of a quick run
is told once more; the client drops what it knows by event id."""


_AGENTS_KINDS = (b'"kind":"ActionEvent"}', b'"kind":"MessageEvent"}')
_ANSWER = re.compile(rb'"llm_response_id":"([^"]+)"')


class Reporter:
    """Methods of the runner's loop, except the callbacks that the SDK calls on its threads."""

    def __init__(
        self,
        opened: Opened,
        index: ConversationIndex,
        workers: Workers,
        note_activity: Callable[[], None],
        *,
        fsync: bool,
    ) -> None:
        self.meta = opened.meta
        self._directory = opened.directory
        self._conversation = opened.conversation
        self._describer = Describer(opened.conversation.state)
        self._outbox = opened.outbox
        self._store = opened.store
        self._fence = opened.fence
        self._index = index
        self._workers = workers
        self._note_activity = note_activity
        self._fsync = fsync
        self._driver: RunDriver
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskSet()
        self._refreshing = asyncio.Lock()
        self._changing_meta = asyncio.Lock()
        """While a record is being written, the next one must not be made of the one before it."""
        self._refresh_timer: asyncio.TimerHandle | None = None
        self._due_refresh: asyncio.Task[None] | None = None
        """The last that the timer began."""
        self._indexed_status: str | None = None
        """With what status the index has it; None when that is not certain."""
        self._error_hold: Hold | None = None
        self._events_stored = metrics().events_stored
        self._steps = metrics().steps
        self._last_answer: bytes | None = None
        self._is_change_noted = False
        """Whether something has changed since the snapshot was renewed; the loop is woken only for the first change."""
        self._active_at: datetime | None = None
        """When something else than the state has changed last, unless the loop has seen it."""

    @property
    def status(self) -> ConversationExecutionStatus:
        """What clients are told: a run counts as running from the moment it is accepted."""
        if self._driver.is_unseen:
            return ConversationExecutionStatus.RUNNING
        return self._conversation.state.execution_status

    def watch(self, driver: RunDriver) -> None:
        """From here on readers are told what changes."""
        self._driver = driver
        self._conversation.state.set_on_state_change(self._on_state_change)
        self._watch_llms()

    async def stop(self) -> None:
        """Tell nothing more by itself."""
        self._cancel_refresh_timer()
        await self._tasks.stop()

    async def change_meta(self, **changes: Any) -> None:
        """Set fields of the record, durably, and show them. Raises OwnershipLost when nothing is written any more."""
        async with self._changing_meta:
            await self._change_meta(**changes)

    async def suggest_title(self, title: str) -> None:
        """Set the title, unless a client has set one."""
        async with self._changing_meta:
            if self.meta.title is None:
                await self._change_meta(title=title)

    async def _change_meta(self, **changes: Any) -> None:
        await self._write_meta(self.meta.model_copy(update=changes | {"updated_at": datetime.now(UTC)}))
        self.meta = self.meta.model_copy(update=changes | {"updated_at": datetime.now(UTC)})
        await self.refresh()

    async def refresh(self) -> Snapshot:
        """Renew what readers see on disk and in lists; where nothing is written any more, the next owner does.

        Raises OwnershipLost when another runner has claimed the conversation.
        """
        async with self._refreshing:
            self._cancel_refresh_timer()
            # In this order: who sees it noted has said before when that was.
            self._is_change_noted = False
            self._take_activity()
            snapshot = self.describe()
            if self._store.is_closed:
                return snapshot
            try:
                # First the index: who has seen a status in the conversation finds it in the lists too.
                await self._put_in_index(snapshot.header)
                await self._workers.call(self._write, write_snapshot, self._directory, snapshot)
            except OwnershipLost:
                if not self._store.is_closed:  # else it was closed meanwhile
                    raise
        return snapshot

    def describe(self) -> Snapshot:
        """What readers would be told now."""
        for _ in range(_DESCRIBE_TRIES):
            with contextlib.suppress(RuntimeError):  # a dictionary changed size: the run goes on in another thread
                return self._describer.snapshot(self.meta, self.status)
        return self._describer.snapshot(self.meta, self.status)

    async def index_as_running(self) -> None:
        """Have another runner open it soon: it looks for what runs in lists and has no owner."""
        header = self.describe().header
        with contextlib.suppress(BrokerUnavailable):  # a runner that starts finds it on the disk
            await self._index.put(
                [IndexEntry(self._directory.conversation_id, header.created_at, header.updated_at, RUNNING)]
            )

    async def _put_in_index(self, header: SnapshotHeader) -> None:
        conversation_id = self._directory.conversation_id
        indexed_status, self._indexed_status = self._indexed_status, None
        with contextlib.suppress(BrokerUnavailable):  # the index is made again from the snapshots
            if header.status == indexed_status:
                await self._index.touch(conversation_id, header.updated_at)
            else:
                await self._index.put(
                    [IndexEntry(conversation_id, header.created_at, header.updated_at, header.status)]
                )
            self._indexed_status = header.status

    def index_if_untold(self) -> None:
        """Redis answers: if it did not when it was told last, it is told now."""
        if self._indexed_status is None:
            self.note_change()

    def index_again(self) -> None:
        """Redis may have lost what it was told last."""
        self._tasks.start(self._put_in_index_late(), f"index {self._directory.conversation_id}")

    async def _put_in_index_late(self) -> None:
        with contextlib.suppress(OwnershipLost):
            await self._workers.call(self._require_ownership)
            async with self._refreshing:
                self._indexed_status = None  # not before: what is being told may be lost, too
                await self._put_in_index(self.describe().header)

    def tell_new_owner(self) -> None:
        """Nothing more will come of what the former owner was in the middle of telling."""
        self._outbox.progress(reset)
        self.publish_full_state()

    def publish_full_state(self) -> None:
        """Tell readers the state as it is, after all that happened before."""
        self._outbox.transient(self._describer.full_state_event(self.status))
        self._outbox.release_all()

    async def run_ended(self) -> Snapshot:
        """Readers get the result of the run, and the message that it is over comes last; returns what they get."""
        await self._write_meta(self.meta)
        snapshot = await self.refresh()
        self._outbox.transient(snapshot.full_state)
        self._outbox.release_all()
        self._loop.call_later(_REPEAT_FULL_STATE_SECONDS, self._repeat, snapshot.full_state, self._outbox.last_seq)
        return snapshot

    def note_change(self) -> None:
        """Renew what readers see before long."""
        self._is_change_noted = True
        self._start_refresh_timer()

    def on_append(self, seq: int, event_id: str, data: bytes) -> None:
        """An event is on disk; called on the appending thread."""
        self._outbox.durable(seq, data)
        self._count(data)
        note("event", seq=seq, id=event_id)
        if self._error_hold is not None and data.endswith(b'"kind":"ConversationErrorEvent"}'):
            self._loop.call_soon_threadsafe(self._announce_status, self._error_hold)
            self._error_hold = None
        if not data.endswith(b'"kind":"ConversationStateUpdateEvent"}'):
            self._active_at = datetime.now(UTC)
        if not self._is_change_noted and not self._outbox.is_collecting:  # else who collects tells the loop
            self._is_change_noted = True
            self._loop.call_soon_threadsafe(self._start_refresh_timer)

    def _count(self, data: bytes) -> None:
        """One LLM answer may become several events, one for each tool call."""
        self._events_stored.inc()
        answer = _ANSWER.search(data) if data.endswith(_AGENTS_KINDS) else None
        if answer is not None and answer[1] != self._last_answer:
            self._last_answer = answer[1]
            self._steps.inc()

    def _on_state_change(self, event: Event) -> None:
        """Called by the SDK on whatever thread changed the state."""
        assert isinstance(event, ConversationStateUpdateEvent)
        if event.key == "secret_registry":
            return  # set by `commands.update_secrets` only to have it saved
        if event.key == "agent":
            self._watch_llms()  # it may have an LLM that nobody watches yet
        if event.key == "execution_status":
            self._hold_for_status(event.value)
        self._conversation.state.append_event(event)

    def _watch_llms(self) -> None:
        for llm in self._conversation.agent.get_all_llms():
            llm.telemetry.set_stats_update_callback(self.on_stats)
            if llm.log_completions:
                llm.telemetry.set_log_completions_callback(partial(self._on_completion, llm))

    def _hold_for_status(self, status: ConversationExecutionStatus) -> None:
        if status is ConversationExecutionStatus.RUNNING:
            self._driver.note_running()
        hold = self._outbox.hold()
        if status is ConversationExecutionStatus.ERROR:
            self._error_hold = hold  # until the SDK has appended the event with the reason
        else:
            self._loop.call_soon_threadsafe(self._announce_status, hold)

    def _announce_status(self, hold: Hold) -> None:
        self._tasks.start(self._refresh_and_release(hold), f"announce {self._directory.conversation_id}")

    async def _refresh_and_release(self, hold: Hold) -> None:
        try:
            with contextlib.suppress(OwnershipLost):  # the new owner tells
                await self.refresh()
        finally:
            self._outbox.release(hold)

    def on_stats(self) -> None:
        """An LLM call has cost something; called on the calling thread."""
        state = self._conversation.state
        state.append_event(ConversationStateUpdateEvent(key="stats", value=state.stats))

    def _on_completion(self, llm: LLM, filename: str, content: str) -> None:
        """An LLM that is to be logged was called: whoever wants the file makes it. Called on the calling thread."""
        event = LLMCompletionLogEvent(filename=filename, log_data=content, model_name=llm.model, usage_id=llm.usage_id)
        self._conversation.state.append_event(event)

    def _take_activity(self) -> None:
        active_at, self._active_at = self._active_at, None
        if active_at is not None:
            self._note_activity()
            self.meta = self.meta.model_copy(update={"updated_at": active_at})

    def _start_refresh_timer(self) -> None:
        if self._refresh_timer is None:
            self._refresh_timer = self._loop.call_later(_SNAPSHOT_DELAY_SECONDS, self._refresh_soon)

    def _refresh_soon(self) -> None:
        self._refresh_timer = None
        if not self._is_change_noted:
            return  # it was renewed while the loop was about to be told
        if self._due_refresh is not None and not self._due_refresh.done():
            self._start_refresh_timer()  # it waits for a full disk; what it shows then may be this change or not
            return
        name = str(self._directory.conversation_id)
        refreshed = once_stored(self._refresh_late, "snapshot_not_stored", conversation_id=name)
        self._due_refresh = self._tasks.start(refreshed, f"snapshot {name}")

    async def _refresh_late(self) -> None:
        """This process may have stood still since it was due, and the index asks no fence."""
        with contextlib.suppress(OwnershipLost):
            await self._workers.call(self._require_ownership)
            await self.refresh()

    def _cancel_refresh_timer(self) -> None:
        if self._refresh_timer is not None:
            self._refresh_timer.cancel()
            self._refresh_timer = None

    def _repeat(self, full_state: bytes, last_seq: int) -> None:
        if not self._driver.is_active and self._outbox.last_seq == last_seq:
            self._outbox.transient(full_state)

    async def _write_meta(self, meta: Meta) -> None:
        await self._workers.call(self._write, write_meta, self._directory, meta, fsync=self._fsync)

    def _write(self, function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Raises as `_require_ownership`. Blocking."""
        self._require_ownership()
        try:
            function(*args, **kwargs)
        except FileNotFoundError:
            self._require_ownership()  # else it was deleted meanwhile
            raise

    def _require_ownership(self) -> None:
        """Raises OwnershipLost when the conversation is another's, or is being let go or deleted. Blocking."""
        if self._store.is_closed:
            raise OwnershipLost
        self._fence.check()
