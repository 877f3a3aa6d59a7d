"""Telling the configured receivers: of each conversation's events, and of what clients do to conversations.

Nothing here is waited for by a request or a run. Events are told from the log by the conversation's owner
(`event_delivery`); a conversation's status, which has no log, in letters of its own (`letters`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID, uuid4

import httpx
import structlog
from pydantic_core import from_json, to_json

from service.catalog.conversation_set import ConversationSet
from service.errors import BrokerUnavailable
from service.runner.conversation.opening import Opened
from service.runner.webhooks.event_delivery import EventDelivery
from service.runner.webhooks.letters import Letters
from service.runner.webhooks.receiver import receivers
from service.runner.workers import Workers
from service.settings import Settings
from service.store.dead_letters import DeadLetters, Letter
from service.store.event_log import ByteCache, EventLog
from service.store.layout import ConversationsRoot
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_STATUS_PATH = "/conversations"


class Webhooks:
    """Of one runner. Methods of its loop."""

    def __init__(
        self, settings: Settings, untold: ConversationSet, workers: Workers, client: httpx.AsyncClient
    ) -> None:
        root = ConversationsRoot(settings.conversations_path)
        self._fsync = settings.fsync
        self._untold = untold
        self._workers = workers
        self._receivers = receivers(settings, client)
        self._dead_letters = DeadLetters(root.dead_letters, fsync=settings.fsync)
        self.letters = Letters(self._receivers, root, self._dead_letters, workers)

    def of(self, opened: Opened) -> ConversationWebhooks:
        """What tells of one conversation that was opened here."""
        log = EventLog(opened.directory, ByteCache(0))
        deliveries = [
            EventDelivery(opened, log, receiver, self._workers, self._dead_letters, fsync=self._fsync)
            for receiver in self._receivers
        ]
        return ConversationWebhooks(opened.directory.conversation_id, deliveries, self._untold)

    def tell_status(self, conversation_id: UUID, info: bytes, **changes: str) -> None:
        """Tell what a client did to a conversation; `info` is ConversationInfo as JSON, `changes` go over it."""
        if not self._receivers:
            return
        # Nobody has looked at the machine, as in the answer to a create.
        body = to_json(from_json(info) | {"runtime_info": None} | changes).decode()
        for receiver in self._receivers:
            self.letters.put(Letter(str(uuid4()), receiver.id, conversation_id, _STATUS_PATH, body=body))


class ConversationWebhooks:
    """One conversation's events to all receivers. Methods of the runner's loop, except `note`."""

    def __init__(self, conversation_id: UUID, deliveries: list[EventDelivery], untold: ConversationSet) -> None:
        self._conversation_id = conversation_id
        self._deliveries = deliveries
        self._untold = untold
        self._loop = asyncio.get_running_loop()
        self._registering = asyncio.Lock()
        self._is_registered = False
        self._moved = asyncio.Event()
        self._tasks = TaskSet()

    @property
    def is_done(self) -> bool:
        """Whether every receiver was told everything."""
        return all(delivery.is_done for delivery in self._deliveries)

    @property
    def waiting(self) -> int:
        """Events that receivers are still to be told, each counted for each receiver."""
        return sum(delivery.waiting for delivery in self._deliveries)

    async def start(self, log_length: int) -> None:
        """Begin to tell; receivers that are new here are told what happens from now on."""
        for delivery in self._deliveries:
            delivery.moved = self._note_moved
            await delivery.start(log_length)
        await self.register()

    def note(self, seq: int, size_bytes: int) -> None:
        """An event was appended; callable from any thread."""
        if self._deliveries:
            self._loop.call_soon_threadsafe(self._note, seq, size_bytes)

    def note_state(self, event: bytes) -> None:
        """Tell a full_state event after all that was appended so far."""
        for delivery in self._deliveries:
            delivery.note_state(event)

    async def register(self) -> None:
        """Let other runners know whether one of them must go on here should this one die."""
        async with self._registering:
            if self.is_done == self._is_registered:
                with suppress(BrokerUnavailable):  # the list is made again from the disk
                    if self._is_registered:
                        await self._untold.remove(self._conversation_id)
                    else:
                        await self._untold.add([self._conversation_id])
                    self._is_registered = not self._is_registered

    async def finish(self, timeout_seconds: float) -> None:
        """Tell what waits, as far as that is possible in this time; then `stop`."""
        for delivery in self._deliveries:
            delivery.hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not self.is_done:
                    self._moved.clear()
                    await self._moved.wait()
        await self.stop()

    async def stop(self) -> None:
        """Leave the rest to the next owner."""
        for delivery in self._deliveries:
            await delivery.stop()
        await self._tasks.stop()

    async def take_rest(self) -> list[Letter]:
        """Stop, and give away what was not told of a conversation that is about to be deleted."""
        await self.stop()
        return [letter for delivery in self._deliveries for letter in await delivery.take_rest()]

    def _note(self, seq: int, size_bytes: int) -> None:
        for delivery in self._deliveries:
            delivery.note(seq, size_bytes)
        self._register_soon()

    def _note_moved(self) -> None:
        self._moved.set()
        self._register_soon()

    def _register_soon(self) -> None:
        if self.is_done == self._is_registered:
            self._tasks.start(self.register(), f"untold {self._conversation_id}")
