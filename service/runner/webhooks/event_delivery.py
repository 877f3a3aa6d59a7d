"""One conversation's events on their way to one receiver of webhooks: in order, batch after batch, until each arrived.

The log is the queue. What is kept is how far it has been told (`store.webhook_cursor`), and that is on disk before a
batch is tried and after it has arrived. So whoever owns the conversation next goes on where this one stopped.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4, uuid5

import structlog

from service.errors import ConversationNotFound, OwnershipLost
from service.runner.conversation.opening import Opened
from service.runner.webhooks.receiver import Receiver
from service.runner.workers import Workers
from service.store.dead_letters import DeadLetters, Letter
from service.store.event_log import EventLog
from service.store.event_name import event_file_name
from service.store.webhook_cursor import Cursor, read_cursor, write_cursor
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_DELIVERIES = UUID("0d4f6b9e-6a53-4f0e-9f0c-2f4b8f1f7c55")
"""Namespace of the ids of deliveries (RFC 9562 section 5.5); random, and never to change."""
_AGAIN_SECONDS = 1.0
"""After the disk refused."""
_WAITING_STATES = 16
"""Of those that nobody takes the oldest are dropped: each says all that the one before it said."""


class State(NamedTuple):
    """A full_state event, which the log does not hold."""

    after_seq: int
    event: bytes
    at: float
    """Unix time."""


class Batch(NamedTuple):
    """What goes into one post."""

    letter: Letter
    states: tuple[State, ...]
    size_bytes: int
    """Of the log's events."""


class EventDelivery:
    """Methods of the runner's loop."""

    def __init__(
        self,
        opened: Opened,
        log: EventLog,
        receiver: Receiver,
        workers: Workers,
        dead_letters: DeadLetters,
        *,
        fsync: bool,
    ) -> None:
        self.moved: Callable[[], None] = lambda: None
        """Called whenever a batch is done with."""
        self._opened = opened
        self._directory = opened.directory
        self._log = log
        self._receiver = receiver
        self._workers = workers
        self._dead_letters = dead_letters
        self._fsync = fsync
        self._cursor = Cursor(0)
        self._end = 0
        """The length of the log."""
        self._waiting_bytes = 0
        self._states: deque[State] = deque(maxlen=_WAITING_STATES)
        self._is_hurried = False
        self._writing: asyncio.Future[None] | None = None
        self._news = asyncio.Event()
        self._tasks = TaskSet()

    @property
    def is_done(self) -> bool:
        """Whether everything has arrived, or was given up."""
        return self._cursor.next_seq >= self._end and not self._states

    @property
    def waiting(self) -> int:
        """How many events have neither arrived nor been given up."""
        return max(0, self._end - self._cursor.next_seq) + len(self._states)

    async def start(self, log_length: int) -> None:
        """Go on where the last owner stopped; a receiver that is new here is told what happens from now on."""
        self._end = log_length
        known = await self._workers.call(read_cursor, self._directory, self._receiver.id)
        if known is None:
            await self._move(Cursor(log_length))
        else:
            self._cursor = known
        self._tasks.start(self._run(), f"webhooks {self._directory.conversation_id}")

    def note(self, seq: int, size_bytes: int) -> None:
        """An event was appended."""
        self._end = max(self._end, seq + 1)
        self._waiting_bytes += size_bytes
        self._news.set()

    def note_state(self, event: bytes) -> None:
        """Tell a full_state event, after all that was appended so far."""
        self._states.append(State(self._end - 1, event, time.time()))
        self._news.set()

    def hurry(self) -> None:
        """Wait for no more events: what there is goes out."""
        self._is_hurried = True
        self._news.set()

    async def stop(self) -> None:
        """Leave the rest to the next owner."""
        await self._tasks.stop()
        if self._writing is not None:
            await asyncio.wait([self._writing])  # a thread is not cancelled, and the next owner reads what it writes

    async def take_rest(self) -> list[Letter]:
        """What was not told of a conversation that is about to be deleted, in letters that need no log; ends this.

        Of more than `max_queue_size` events or `max_queue_bytes` the newest.
        """
        await self.stop()
        spec = self._receiver.spec
        self._cursor = max(self._cursor, Cursor(self._end - spec.max_queue_size), key=lambda cursor: cursor.next_seq)
        letters: deque[Letter] = deque()
        size_bytes = 0
        while not self.is_done:
            batch = await self._next_batch()
            body = (await self._body(batch)).decode()
            letters.append(batch.letter._replace(body=body))
            size_bytes += len(body)
            while size_bytes > spec.max_queue_bytes:
                size_bytes -= len(letters.popleft().body or "")
            self._cursor = self._after(batch)
            self._forget(batch)
        return list(letters)

    async def _run(self) -> None:
        """Supervisor: whatever goes wrong with one batch, the conversation's events are told in the end."""
        while True:
            try:
                await self._wait_due()
                await self._deliver(await self._next_batch())
            except (OwnershipLost, ConversationNotFound):
                return  # the next owner goes on, or there is nothing to go on with
            except Exception as error:  # noqa: BLE001
                _log.exception("webhook_failed", conversation_id=str(self._directory.conversation_id), error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _wait_due(self) -> None:
        """Until there is a full batch, or something has waited for `flush_delay`."""
        spec = self._receiver.spec
        while True:
            self._news.clear()
            waiting = self._end - self._cursor.next_seq + len(self._states)
            if self._cursor.trying_through_seq is not None or waiting >= spec.event_buffer_size:
                return
            if waiting and (self._is_hurried or self._waiting_bytes >= spec.max_batch_bytes):
                return
            timeout = None if not waiting else await self._waiting_since() + spec.flush_delay - time.time()
            if timeout is not None and timeout <= 0:
                return
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                return

    async def _waiting_since(self) -> float:
        """Unix time from which on the first that waits has waited."""
        since = [self._states[0].at] if self._states else []
        if self._cursor.next_seq < self._end:
            since.append((await self._statuses(self._cursor.next_seq, 1))[0].st_mtime)
        return min(since)

    async def _next_batch(self) -> Batch:
        """The one that was tried when the last owner died, or as much of what waits as fits into one post."""
        first_seq, trying = self._cursor.next_seq, self._cursor.trying_through_seq
        if trying is not None:
            return Batch(self._letter(first_seq, trying), (), 0)
        spec = self._receiver.spec
        sizes = [status.st_size for status in await self._statuses(first_seq, spec.event_buffer_size)]
        waiting = deque(self._states)
        states: list[State] = []
        count = size_bytes = 0
        while len(states) + count < spec.event_buffer_size:
            if waiting and (count == len(sizes) or waiting[0].after_seq < first_seq + count):
                states.append(waiting.popleft())
            elif count < len(sizes) and (size_bytes + sizes[count] <= spec.max_batch_bytes or not count):
                size_bytes += sizes[count]
                count += 1
            else:
                break
        return Batch(self._letter(first_seq, first_seq + count - 1), tuple(states), size_bytes)

    def _letter(self, first_seq: int, last_seq: int) -> Letter:
        conversation_id = self._directory.conversation_id
        path = f"/events/{conversation_id.hex}"
        if last_seq < first_seq:
            return Letter(str(uuid4()), self._receiver.id, conversation_id, path)
        name = f"{self._receiver.id} {self._opened.claim.stream_epoch.hex()} {first_seq} {last_seq}"
        delivery_id = str(uuid5(_DELIVERIES, name))
        return Letter(delivery_id, self._receiver.id, conversation_id, path, first_seq, last_seq)

    async def _deliver(self, batch: Batch) -> None:
        if batch.letter.last_seq is not None and self._cursor.trying_through_seq is None:
            await self._move(Cursor(self._cursor.next_seq, batch.letter.last_seq))
        failures = 0
        while (reason := await self._receiver.post(batch.letter, partial(self._body, batch))) is not None:
            failures += 1
            _log.warning(
                "webhook_not_delivered",
                conversation_id=str(self._directory.conversation_id),
                delivery_id=batch.letter.delivery_id,
                failures=failures,
                reason=reason,
            )
            if failures > self._receiver.spec.num_retries and await self._is_too_old(batch):
                if batch.letter.last_seq is not None:
                    await self._workers.call(self._dead_letters.add, batch.letter, reason)
                break
            await asyncio.sleep(self._receiver.pause_seconds(failures))
        await self._move(self._after(batch))
        self._forget(batch)
        self.moved()

    async def _is_too_old(self, batch: Batch) -> bool:
        if batch.letter.first_seq is None:
            since = batch.states[0].at
        else:
            since = (await self._statuses(batch.letter.first_seq, 1))[0].st_mtime
        return time.time() - since >= self._receiver.spec.dead_letter_seconds

    def _after(self, batch: Batch) -> Cursor:
        """Where the cursor stands once a batch is done with."""
        last_seq = batch.letter.last_seq
        return Cursor(self._cursor.next_seq if last_seq is None else last_seq + 1)

    def _forget(self, batch: Batch) -> None:
        self._waiting_bytes = max(0, self._waiting_bytes - batch.size_bytes)
        while self._states and self._states[0] in batch.states:
            self._states.popleft()

    async def _move(self, cursor: Cursor) -> None:
        """Durably, and only while the conversation is this runner's. Raises OwnershipLost."""
        self._writing = asyncio.ensure_future(self._workers.call(self._write, cursor))
        await asyncio.shield(self._writing)
        self._cursor = cursor

    def _write(self, cursor: Cursor) -> None:
        self._opened.fence.check()
        write_cursor(self._directory, self._receiver.id, cursor, fsync=self._fsync)

    async def _body(self, batch: Batch) -> bytes:
        """A JSON array of the stored bytes, each full_state after what was appended before it."""
        items: list[bytes] = []
        states = deque(batch.states)
        for seq, event in enumerate(await letter_events(self._log, batch.letter), batch.letter.first_seq or 0):
            while states and states[0].after_seq < seq:
                items.append(states.popleft().event)
            items.append(event)
        return as_array([*items, *(state.event for state in states)])

    async def _statuses(self, first_seq: int, count: int) -> list[os.stat_result]:
        """Of up to so many files of waiting events."""
        if await self._log.length() is None:
            raise ConversationNotFound(str(self._directory.conversation_id))
        end = min(first_seq + count, self._end)
        names = [event_file_name(seq, self._log.id_of(seq)) for seq in range(first_seq, end)]
        return await self._workers.call(_stat_all, [self._directory.events / name for name in names])


async def letter_events(log: EventLog, letter: Letter) -> list[bytes]:
    """Stored bytes of exactly the events that a letter names.

    Raises:
        ConversationNotFound: it was deleted.
    """
    events: list[bytes] = []
    if letter.first_seq is None or letter.last_seq is None:
        return events
    await log.length()
    while letter.first_seq + len(events) <= letter.last_seq:
        events += await log.read(letter.first_seq + len(events), letter.last_seq + 1)
    return events


def as_array(items: list[bytes]) -> bytes:
    """JSON values as one JSON array."""
    return b"[" + b",".join(items) + b"]"


def _stat_all(paths: list[Path]) -> list[os.stat_result]:
    return [path.stat() for path in paths]
