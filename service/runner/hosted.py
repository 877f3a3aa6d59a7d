"""One conversation in the hands of this runner.

A command takes this way: it gets its place in the queue; if it may have to wait, it is written to the durable inbox;
its turn comes and it is applied in a worker thread; the snapshot is renewed; the client is answered. The client is
answered earlier when the turn does not come at once (a tool holds the conversation) and the command is safe on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from openhands.sdk.conversation.request import SendMessageRequest
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event import Event
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.event.conversation_state import ConversationStateUpdateEvent
from openhands.sdk.utils.cipher import Cipher
from pydantic import SecretStr

from service.catalog.index import ConversationIndex, IndexEntry
from service.errors import BrokerUnavailable, FanoutError, RequestFailed, RunLimitReached
from service.runner.command import Command
from service.runner.commands import APPLY
from service.runner.description import describe, full_state_event
from service.runner.meta import write_meta
from service.runner.opening import Opened
from service.runner.outbox import Hold
from service.runner.run_driver import RunDriver
from service.runner.workers import Workers
from service.store.inbox import InboxEntry
from service.store.snapshot import Snapshot, write_snapshot

_log = structlog.get_logger(__name__)

_BUSY_PATIENCE_SECONDS = 0.1
_IDLE_PATIENCE_SECONDS = 2.0
"""How long an answer waits for its command to be applied before it only says accepted: during a run, and otherwise
(the first message starts the agent's tools)."""

_SNAPSHOT_DELAY_SECONDS = 0.25
_DESCRIBE_TRIES = 5
_REPEAT_FULL_STATE_SECONDS = 0.5
"""The SDK's client begins to wait for the end of a run only after the reply to `POST run`, so the end of a quick run
is told once more; the client drops what it knows by event id."""


class HostedConversation:
    """Everything this runner does with one conversation. Methods of the runner's loop."""

    def __init__(
        self, opened: Opened, index: ConversationIndex, workers: Workers, *, cipher: Cipher | None, fsync: bool
    ) -> None:
        self.directory = opened.directory
        self.conversation = opened.conversation
        self.meta = opened.meta
        self.driver: RunDriver
        self._store = opened.store
        self._inbox = opened.inbox
        self._outbox = opened.outbox
        self._index = index
        self._workers = workers
        self._cipher = cipher
        self._fsync = fsync
        self._loop = asyncio.get_running_loop()
        self._commands: deque[Command] = deque()
        self._has_commands = asyncio.Event()
        self._writing_snapshot = asyncio.Lock()
        self._snapshot_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._error_hold: Hold | None = None
        self._is_warm = False
        """Whether the agent's tools are started; the first message starts them, which may take long."""

    @property
    def conversation_id(self) -> UUID:
        return self.directory.conversation_id

    @property
    def status(self) -> ConversationExecutionStatus:
        """What clients are told: a run counts as running from the moment it is accepted."""
        if self.driver.is_starting:
            return ConversationExecutionStatus.RUNNING
        return self.conversation.state.execution_status

    # Life

    def attach(self, driver: RunDriver) -> None:
        """Begin to watch the SDK's state; from here on what changes is told."""
        self.driver = driver
        self._store.on_append = self._on_append
        self.conversation.state.set_on_state_change(self._on_state_change)
        for llm in self.conversation.agent.get_all_llms():
            llm.telemetry.set_stats_update_callback(self._on_stats)

    def start(self) -> None:
        """Begin to apply commands; those left in the inbox by a crash come first."""
        for entry in self._inbox.entries():
            if self._is_applied(entry):
                self._inbox.remove(entry)
                continue
            self._enqueue(self._recovered(entry))
        self._keep(self._apply_commands(), "commands")

    def _is_applied(self, entry: InboxEntry) -> bool:
        try:
            return entry.event_id is not None and self.conversation.state.events.get_index(entry.event_id) >= 0
        except KeyError:
            return False

    async def close(self, drain_seconds: float) -> None:
        """Interrupt a run, save, let go of terminals and other resources. Waiting commands stay in the inbox."""
        await self.driver.interrupt()
        if not await self.driver.wait_ended(drain_seconds):
            _log.warning("run_does_not_end", conversation_id=str(self.conversation_id))
        await self._stop_tasks()
        await self.refresh_snapshot()
        await self._workers.call(self.conversation.close)

    async def abandon(self) -> None:
        """Let go without writing anything: it was deleted, or belongs to another runner."""
        self._store.discard_writes()
        await self._stop_tasks()
        await self.driver.interrupt()
        await self._workers.call(self.conversation.close)

    def tell_deleted(self) -> None:
        """Nothing is written or published after this, and readers know that it is gone."""
        self._store.discard_writes()
        self._outbox.deleted()

    # Commands

    async def submit(self, kind: str, content: bytes, *, starts_run: bool = False) -> None:
        """Apply a command in its turn; returns once it is applied, or safely stored where its turn takes long.

        Raises:
            RunLimitReached: the message is stored, its run was not started.
            RequestFailed: the SDK refused; nothing is left in the inbox.
        """
        command = Command(kind, content, starts_run)
        may_wait = self.driver.is_active or bool(self._commands) or (kind == "message" and not self._is_warm)
        number = self._inbox.reserve()
        self._enqueue(command)
        if may_wait:
            await self._store_command(command, number)
        else:
            command.stored.set()
        patience = _BUSY_PATIENCE_SECONDS if self.driver.is_active else _IDLE_PATIENCE_SECONDS
        await asyncio.wait([command.outcome], timeout=patience if may_wait else None)
        if command.outcome.done():
            command.outcome.result()
        else:
            command.is_acknowledged = True

    async def patch(self, title: str | None, tags: dict[str, str] | None) -> None:
        """Set the title and replace the tags, whichever is given; never waits for a tool."""
        changes: dict[str, Any] = {"updated_at": datetime.now(UTC)}
        if title is not None:
            changes["title"] = title
        if tags is not None:
            changes["tags"] = tags
        self.meta = self.meta.model_copy(update=changes)
        await self._save_meta()
        await self.refresh_snapshot()

    # Runs

    async def run(self) -> None:
        """Accept a run. When this returns every reader is told `running`.

        Raises:
            AlreadyRunning, RunLimitReached.
        """
        self.driver.start()
        await self.refresh_snapshot()

    async def interrupt(self) -> None:
        """Cancel what is in flight and pause; returns once that is so, or after 5 s."""
        if not await self.driver.interrupt():
            await self.submit("pause", b"{}")
        self.publish_full_state()

    async def settle(self) -> None:
        """A run has ended: readers get its result, and the message that it is over comes last."""
        await self._save_meta()
        snapshot = await self.refresh_snapshot()
        self._outbox.transient(snapshot.full_state)
        self._outbox.release_all()
        self._loop.call_later(_REPEAT_FULL_STATE_SECONDS, self._repeat, snapshot.full_state, self._outbox.last_seq)

    def publish_full_state(self) -> None:
        """Tell readers the state as it is."""
        self._outbox.transient(full_state_event(self.conversation.state, self.status))
        self._outbox.release_all()

    # Readers

    async def refresh_snapshot(self) -> Snapshot:
        """Renew what readers see on disk and in lists."""
        async with self._writing_snapshot:
            self._cancel_snapshot_timer()
            snapshot = self._describe()
            await self._workers.call(write_snapshot, self.directory, snapshot)
        header = snapshot.header
        entry = IndexEntry(self.conversation_id, header.created_at, header.updated_at, header.status)
        with contextlib.suppress(BrokerUnavailable):  # the index is made again from the snapshots
            await self._index.put([entry])
        return snapshot

    def _describe(self) -> Snapshot:
        for _ in range(_DESCRIBE_TRIES):
            with contextlib.suppress(RuntimeError):  # a dictionary changed size: the run goes on in another thread
                return describe(self.conversation.state, self.meta, self.status)
        return describe(self.conversation.state, self.meta, self.status)

    def _on_state_change(self, event: Event) -> None:
        """Called by the SDK on whatever thread changed the state."""
        assert isinstance(event, ConversationStateUpdateEvent)
        if event.key == "secret_registry":
            return  # set by `commands.update_secrets` only to have it saved
        if event.key == "execution_status":
            self._hold_for_status(event.value)
        self.conversation.state.append_event(event)

    def _hold_for_status(self, status: ConversationExecutionStatus) -> None:
        """Let the news of a status wait until REST answers tell it too.

        That of an error also waits for the event with the reason, which the SDK appends right after it.
        """
        if status is ConversationExecutionStatus.RUNNING:
            self.driver.note_running()
        hold = self._outbox.hold()
        if status is ConversationExecutionStatus.ERROR:
            self._error_hold = hold
        else:
            self._loop.call_soon_threadsafe(self._announce_status, hold)

    def _announce_status(self, hold: Hold) -> None:
        self._keep(self._refresh_and_release(hold), "announce")

    async def _refresh_and_release(self, hold: Hold) -> None:
        try:
            await self.refresh_snapshot()
        finally:
            self._outbox.release(hold)

    def _on_stats(self) -> None:
        state = self.conversation.state
        state.append_event(ConversationStateUpdateEvent(key="stats", value=state.stats))

    def _on_append(self, seq: int, event_id: str, data: bytes) -> None:
        """An event is on disk; on the appending thread."""
        self._outbox.durable(seq, data)
        if self._error_hold is not None and data.endswith(b'"kind":"ConversationErrorEvent"}'):
            self._loop.call_soon_threadsafe(self._announce_status, self._error_hold)
            self._error_hold = None
        is_state_update = data.endswith(b'"kind":"ConversationStateUpdateEvent"}')
        self._loop.call_soon_threadsafe(self._note_change, is_state_update)

    def _note_change(self, is_state_update: bool) -> None:
        if not is_state_update:
            self.meta = self.meta.model_copy(update={"updated_at": datetime.now(UTC)})
        if self._snapshot_timer is None:
            self._snapshot_timer = self._loop.call_later(_SNAPSHOT_DELAY_SECONDS, self._refresh_soon)

    def _refresh_soon(self) -> None:
        self._snapshot_timer = None
        self._keep(self.refresh_snapshot(), "snapshot")

    def _cancel_snapshot_timer(self) -> None:
        if self._snapshot_timer is not None:
            self._snapshot_timer.cancel()
            self._snapshot_timer = None

    def _repeat(self, full_state: bytes, last_seq: int) -> None:
        if not self.driver.is_active and self._outbox.last_seq == last_seq:
            self._outbox.transient(full_state)

    def _enqueue(self, command: Command) -> None:
        self._commands.append(command)
        self._has_commands.set()

    async def _store_command(self, command: Command, number: int) -> None:
        content = self._sealed(command)
        if content is not None:
            command.entry = await self._workers.call(self._inbox.put, number, command.kind, content)
        command.stored.set()

    def _sealed(self, command: Command) -> bytes | None:
        """The command as it may lie on disk; None for secrets that nothing can encrypt, which are never stored."""
        if command.kind != "secrets":
            return command.content
        if self._cipher is None:
            return None
        token = self._cipher.encrypt(SecretStr(command.content.decode()))
        return None if token is None else token.encode()

    def _recovered(self, entry: InboxEntry) -> Command:
        content = entry.read()
        if entry.kind == "secrets":
            content = self._unsealed(content)
        starts_run = entry.kind == "message" and SendMessageRequest.model_validate_json(content).run
        command = Command(entry.kind, content, starts_run, entry, is_acknowledged=True)
        command.stored.set()
        return command

    def _unsealed(self, content: bytes) -> bytes:
        secret = self._cipher.decrypt(content.decode()) if self._cipher is not None else None
        return b'{"secrets": {}}' if secret is None else secret.get_secret_value().encode()

    async def _apply_commands(self) -> None:
        while True:
            await self._has_commands.wait()
            self._has_commands.clear()
            while self._commands:
                command = self._commands[0]
                await command.stored.wait()
                await self._apply(command)
                self._commands.popleft()

    async def _apply(self, command: Command) -> None:
        try:
            await self._workers.call(self._apply_in_worker, command)
            self._is_warm = self._is_warm or command.kind == "message"
            await self.refresh_snapshot()
            if command.kind == "pause":
                self.publish_full_state()
            if command.starts_run:
                await self._start_run()
        except Exception as error:  # noqa: BLE001  supervisor: a command that fails must not stop those behind it
            await self._fail(command, error)
        else:
            command.outcome.set_result(None)

    def _apply_in_worker(self, command: Command) -> None:
        try:
            with self._store.applying(command):
                APPLY[command.kind](self.conversation, command.content)
            self._store.sync_names()
        finally:
            if command.entry is not None:
                self._inbox.remove(command.entry)

    async def _start_run(self) -> None:
        try:
            self.driver.start_or_repeat()
        except RunLimitReached:
            raise RunLimitReached(saved_in=str(self.conversation_id)) from None
        await self.refresh_snapshot()

    async def _fail(self, command: Command, error: Exception) -> None:
        known = error if isinstance(error, FanoutError) else RequestFailed(f"{type(error).__name__}: {error}")
        if known is not error:
            _log.error("command_failed", kind=command.kind, conversation_id=str(self.conversation_id), exc_info=error)
        if not command.is_acknowledged:
            command.outcome.set_exception(known)
            return
        command.outcome.set_result(None)
        event = ConversationErrorEvent(source="environment", code=type(error).__name__, detail=str(known))
        await self._workers.call(self._append_error, event)

    def _append_error(self, event: ConversationErrorEvent) -> None:
        with self.conversation.state as state:
            state.append_event(event)

    async def _save_meta(self) -> None:
        await self._workers.call(write_meta, self.directory, self.meta, fsync=self._fsync)

    def _keep(self, coroutine: Any, name: str) -> None:
        task = asyncio.create_task(coroutine, name=f"{name} {self.conversation_id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("conversation_task_died", task=task.get_name(), exc_info=task.exception())

    async def _stop_tasks(self) -> None:
        self._cancel_snapshot_timer()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
