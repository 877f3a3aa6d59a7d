"""Webhook posts that come with their body, and dead letters that are posted again.

A letter is tried as often as configured and is then a dead letter, which a full disk delays. Those of one conversation
to one receiver keep their order. What waits here is lost with the process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from uuid import UUID

import structlog

from service.errors import ConversationNotFound
from service.runner.full_disk import once_stored
from service.runner.webhooks.event_delivery import as_array, letter_events
from service.runner.webhooks.receiver import Receiver
from service.runner.workers import Workers
from service.store.dead_letters import DeadLetters, Letter
from service.store.event_log import ByteCache, EventLog
from service.store.layout import ConversationsRoot
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 2.0
_WAITING_LETTERS = 1000
"""Of one conversation to one receiver; the oldest are dropped. Guess: clients change a conversation rarely."""


class Letters:
    """Methods of the runner's loop."""

    def __init__(
        self, receivers: list[Receiver], root: ConversationsRoot, dead_letters: DeadLetters, workers: Workers
    ) -> None:
        self._receivers = {receiver.id: receiver for receiver in receivers}
        self._root = root
        self._dead_letters = dead_letters
        self._workers = workers
        self._waiting: dict[tuple[str, UUID], deque[Letter]] = {}
        """By receiver and conversation: what comes after the one that is being posted."""
        self._tasks = TaskSet()

    def put(self, letter: Letter) -> None:
        """Post a letter that has its body, after those put before."""
        key = letter.receiver_id, letter.conversation_id
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(letter)
            return
        self._waiting[key] = deque([letter], _WAITING_LETTERS)
        self._tasks.start(self._post_all(key), f"letters {letter.conversation_id}")

    async def redeliver(self, delivery_ids: list[str]) -> dict[str, str | None]:
        """Try these dead letters once, oldest first; after a failure no more to that receiver.

        Returns for each that exists why it did not arrive, None for one that did.
        """
        outcomes: dict[str, str | None] = {}
        broken: dict[str, str] = {}
        for dead in await self._workers.call(self._dead_letters.find, delivery_ids):
            letter = dead.letter
            reason = broken.get(letter.receiver_id) or await self._redeliver(letter)
            if reason is not None:
                broken[letter.receiver_id] = reason
            outcomes[letter.delivery_id] = reason
        return outcomes

    async def close(self) -> None:
        """What is not on its way after a moment is lost."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._tasks.wait()
        except TimeoutError:
            _log.error("webhook_letters_lost", count=sum(1 + len(waiting) for waiting in self._waiting.values()))
        await self._tasks.stop()

    async def _post_all(self, key: tuple[str, UUID]) -> None:
        waiting = self._waiting[key]
        try:
            while waiting:
                letter = waiting.popleft()
                try:
                    await self._post(self._receivers[letter.receiver_id], letter)
                except OSError:  # nothing that passes: those behind it must not be lost, too
                    _log.exception("webhook_letter_lost", delivery_id=letter.delivery_id)
        finally:
            del self._waiting[key]

    async def _post(self, receiver: Receiver, letter: Letter) -> None:
        for failures in range(1, receiver.spec.num_retries + 2):
            reason = await receiver.post(letter, lambda: self._body(letter))
            if reason is None:
                return
            _log.warning("webhook_not_delivered", delivery_id=letter.delivery_id, failures=failures, reason=reason)
            if failures <= receiver.spec.num_retries:
                await asyncio.sleep(receiver.pause_seconds(failures))
        add = partial(self._workers.call, self._dead_letters.add, letter, reason or "")
        await once_stored(add, "dead_letter_not_stored", delivery_id=letter.delivery_id)

    async def _redeliver(self, letter: Letter) -> str | None:
        receiver = self._receivers.get(letter.receiver_id)
        if receiver is None:
            return "This receiver is not configured any more"
        try:
            reason = await receiver.post(letter, lambda: self._body(letter))
        except ConversationNotFound:
            reason = None  # nobody can have it any more
        if reason is None:
            await self._workers.call(self._dead_letters.remove, letter.delivery_id)
        return reason

    async def _body(self, letter: Letter) -> bytes:
        if letter.body is not None:
            return letter.body.encode()
        log = EventLog(self._root.directory(letter.conversation_id), ByteCache(0))
        return as_array(await letter_events(log, letter))
