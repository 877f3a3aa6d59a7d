"""One conversation's commands, applied one after the other in the order of their arrival.

A command takes this way: it gets its place; if it may have to wait, it is written to the durable inbox; its turn comes
and it is applied in a worker thread; the client is answered. The client is answered earlier when the turn does not
come at once (a tool holds the conversation) and the command is safe on disk; a disk that takes nothing more only delays
what was answered so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any

import structlog
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.utils.cipher import Cipher
from pydantic import SecretStr

from service.errors import FanoutError, OwnershipLost, RequestFailed
from service.runner.conversation.command import ENCRYPTED_KINDS, Command
from service.runner.conversation.commands import APPLY, Apply
from service.runner.conversation.event_tree import is_in_log, newest_of
from service.runner.conversation.opening import Opened
from service.runner.full_disk import once_stored
from service.runner.wire.request_models import PostMessageRequest
from service.runner.workers import Workers
from service.store.disk import is_refusal
from service.store.inbox import InboxEntry
from service.tasks import TaskSet
from service.tracing import traced, traceparent

_log = structlog.get_logger(__name__)

_IN_HAND_SECONDS = 2.0
"""For the commands that are being stored or applied when the queue stops."""

_TOLD_STEP_BY_STEP = {"condense"}
"""It waits for the LLM after its first event."""

_ENDED = (ConversationExecutionStatus.FINISHED, ConversationExecutionStatus.STUCK)
"""What a message ends, as `send_message` of the SDK has it."""

_WITHOUT_KEY = {"secrets": b'{"secrets": {}}', "switch_llm": b"{}"}
"""What is left of an encrypted command when its key is lost: nothing, or an error."""


class CommandQueue:
    """Methods of the runner's loop."""

    def __init__(
        self,
        opened: Opened,
        workers: Workers,
        cipher: Cipher,
        applied: Callable[[Command], Awaitable[None]],
        failed: Callable[[], None],
        apply_more: Mapping[str, Apply],
    ) -> None:
        """`applied` is awaited after each command, before its client is answered; what it raises is the answer.
        `failed` is called after one that was not applied to its end.

        `apply_more`: commands beside `APPLY`, which need more than the SDK's conversation.
        """
        self._apply_table = {**APPLY, **apply_more}
        self._conversation = opened.conversation
        self._conversation_id = opened.directory.conversation_id
        self._store = opened.store
        self._outbox = opened.outbox
        self._inbox = opened.inbox
        self._workers = workers
        self._cipher = cipher
        self._applied = applied
        self._failed = failed
        self._commands: deque[Command] = deque()
        self._news = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._tasks = TaskSet()
        self._storing = TaskSet()
        self._in_hand: Command | None = None
        self._is_stopped = False

    @property
    def is_empty(self) -> bool:
        return not self._commands

    @property
    def owes_run(self) -> bool:
        """Whether a message that is still to begin its run is in the log and not in the inbox."""
        return any(
            command.starts_run and command.entry is None and self._is_in_log(command.event_id)
            for command in self._commands
        )

    async def wait_empty(self) -> None:
        """Until everything that was submitted is applied."""
        await self._emptied.wait()

    async def start(self) -> None:
        """Begin to apply; what a crash left in the inbox comes first."""
        for entry, content in await self._workers.call(self._left_in_inbox):
            self._enqueue(self._recovered(entry, content))
        self._tasks.start(self._run(), f"commands {self._conversation_id}")

    async def stop(self) -> None:
        """Apply nothing more. What waits in the inbox stays there and is accepted; what is not in it did not happen."""
        if self._is_stopped and not self._commands:
            return
        self._is_stopped = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_IN_HAND_SECONDS):
                for command in list(self._commands):
                    await command.stored.wait()
        in_hand = self._in_hand
        if in_hand is not None:
            await asyncio.wait([in_hand.outcome], timeout=_IN_HAND_SECONDS)
        await self._tasks.stop()
        waiting = await self._workers.call(self._inbox.close)
        for command in self._commands:
            if command.entry is not None or command.number in waiting or self._is_in_log(command.event_id):
                command.answer()
            elif command.stored.is_set() and (command is not in_hand or self._store.is_closed):
                command.answer(OwnershipLost())

    async def submit(self, command: Command, patience_seconds: float | None) -> None:
        """Apply a command in its turn.

        With `patience_seconds` it is made durable first, and when its turn takes longer than that this returns
        before it is applied. Without, this returns when it is applied.

        A command with a key that was used before is not applied again.

        Raises:
            OwnershipLost: the conversation is no longer here; nothing happened.
            FanoutError: why it was not done to its end. It is not tried again; what it had appended by then stays.
        """
        if self._is_stopped:
            raise OwnershipLost
        if self.knows(command.key):
            return
        command.traceparent = traceparent()
        command.number = self._inbox.reserve()
        self._enqueue(command)
        if patience_seconds is None:
            command.stored.set()
        else:
            # In a task of its own: who has asked for it may go away, and those behind it wait for this.
            self._storing.start(self._store_command(command), f"store command {self._conversation_id}")
            await command.stored.wait()
        await asyncio.wait([command.outcome], timeout=patience_seconds)
        if command.has_failed:
            await asyncio.wait([command.outcome])
        if command.outcome.done():
            command.outcome.result()
        else:
            command.is_acknowledged = True

    def knows(self, key: str | None) -> bool:
        """Whether a command with this key was submitted before."""
        if key is None:
            return False
        return any(command.key == key for command in self._commands) or self._inbox.is_done(key)

    def _enqueue(self, command: Command) -> None:
        self._commands.append(command)
        self._emptied.clear()
        self._news.set()

    async def _store_command(self, command: Command) -> None:
        try:
            content = self._sealed(command)
            put = self._inbox.put
            command.entry = await self._workers.call(put, command.number, command.kind, content, command.key)
        except (OSError, OwnershipLost) as error:
            self._commands.remove(command)
            refused = RequestFailed(f"The command could not be stored: {error}")
            command.answer(error if isinstance(error, OwnershipLost) else refused)
        finally:
            command.stored.set()

    def _sealed(self, command: Command) -> bytes:
        """The command as it may lie on disk: secrets only encrypted."""
        if command.kind not in ENCRYPTED_KINDS:
            return command.content
        return str(self._cipher.encrypt(SecretStr(command.content.decode()))).encode()

    def _left_in_inbox(self) -> list[tuple[InboxEntry, bytes]]:
        newest = newest_of(self._conversation.state)
        left = []
        for entry in self._inbox.entries():
            content = entry.read()
            is_unanswered = entry.event_id == newest and _starts_run(entry.kind, content)
            if self._is_in_log(entry.event_id) and not is_unanswered:
                self._inbox.finish(entry)
            else:
                left.append((entry, content))
        return left

    def _recovered(self, entry: InboxEntry, content: bytes) -> Command:
        if entry.kind in ENCRYPTED_KINDS:
            secret = self._cipher.decrypt(content.decode())
            content = _WITHOUT_KEY[entry.kind] if secret is None else secret.get_secret_value().encode()
        starts_run = _starts_run(entry.kind, content)
        command = Command(
            entry.kind, content, starts_run, entry.key, entry.number, entry, entry.event_id, is_acknowledged=True
        )
        command.stored.set()
        return command

    def _is_in_log(self, event_id: str | None) -> bool:
        return is_in_log(self._conversation.state, event_id)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._commands and not self._is_stopped:
                command = self._commands[0]
                await command.stored.wait()
                if self._commands and self._commands[0] is command and not self._is_stopped:
                    self._in_hand = command
                    await self._apply(command)
                    self._in_hand = None
                    self._commands.popleft()
                if not self._commands:
                    self._emptied.set()

    async def _apply(self, command: Command) -> None:
        try:
            await self._apply_and_answer(command)
        except Exception:  # noqa: BLE001  supervisor: what became of a command may be untold, those behind it go on
            _log.exception("command_end_untold", kind=command.kind, conversation_id=str(self._conversation_id))

    async def _apply_and_answer(self, command: Command) -> None:
        try:
            with traced(f"apply {command.kind}", parent=command.traceparent):
                await self._until_stored(command, self._apply_in_worker, command)
                await self._applied(command)
                if command.starts_run:
                    await self._until_stored(command, self._finish, command)
        except Exception as error:  # noqa: BLE001  supervisor: a command that fails must not stop those behind it
            await self._fail(command, error)
        else:
            command.answer()

    async def _until_stored(self, command: Command, function: Callable[..., None], *args: Any) -> None:
        """Call what writes; again and again for an acknowledged command, of which a full disk is not the end, and for
        a message that is in the log, whose state must follow.
        """
        await once_stored(
            lambda: self._workers.call_that_waits(function, *args),
            "command_not_stored",
            is_passing=lambda error: is_refusal(error) and self._is_accepted(command),
            kind=command.kind,
            conversation_id=str(self._conversation_id),
        )

    def _is_accepted(self, command: Command) -> bool:
        """Whether it is to be gone on with; a message that is in the log is, and its client need not wait for more."""
        if self._is_in_log(command.event_id):
            command.is_acknowledged = True
            command.answer()
        return command.is_acknowledged

    def _apply_in_worker(self, command: Command) -> None:
        if self._is_in_log(command.event_id):
            # Its event was stored, then the disk refused the state, or the process died: leaving the block writes that.
            # A run that went on meanwhile may have answered it.
            with self._conversation.state as state:
                if state.execution_status in _ENDED and command.event_id == newest_of(state):
                    state.execution_status = ConversationExecutionStatus.IDLE
        else:
            self._apply_to_conversation(command)
        self._store.sync_names()
        if not command.starts_run:
            self._finish(command)

    def _finish(self, command: Command) -> None:
        """What has no run to begin, or has begun it, needs no repetition."""
        if command.entry is not None:
            self._inbox.finish(command.entry)

    def _apply_to_conversation(self, command: Command) -> None:
        with nullcontext() if command.kind in _TOLD_STEP_BY_STEP else self._outbox.together():
            with self._store.applying(command):
                self._apply_table[command.kind](self._conversation, command.content)
            if self._store.is_closed and command.kind != "message":
                raise OwnershipLost  # what changes state only has vanished; a message would have been refused

    async def _fail(self, command: Command, error: Exception) -> None:
        self._failed()
        known = error if isinstance(error, FanoutError) else RequestFailed(f"{type(error).__name__}: {error}")
        if known is not error:
            _log.error("command_failed", kind=command.kind, conversation_id=str(self._conversation_id), exc_info=error)
        is_left = command.entry is not None or self._is_in_log(command.event_id)
        if isinstance(error, OwnershipLost) and is_left:
            command.answer()  # the next owner finds it in the inbox or in the log; its client must not send it again
            return
        command.has_failed = True
        try:
            if command.is_acknowledged:
                # Its client has its answer: the conversation itself says what became of it, then the inbox forgets it.
                event = ConversationErrorEvent(source="environment", code=type(error).__name__, detail=str(known))
                await self._until_stored(command, self._append, event)
            if command.starts_run and self._is_in_log(command.event_id):
                await self._workers.call(self._finish, command)
            elif command.entry is not None:
                await self._workers.call(self._inbox.remove, command.entry)
        finally:
            command.answer(None if command.is_acknowledged else known)

    def _append(self, event: ConversationErrorEvent) -> None:
        with self._conversation.state as state:
            if not is_in_log(state, event.id):
                state.append_event(event)


def _starts_run(kind: str, content: bytes) -> bool:
    """Whether a command that was left asks for a run, by what is stored of it."""
    return kind == "message" and PostMessageRequest.model_validate_json(content).run
