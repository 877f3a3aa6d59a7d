"""Making the index from the disk, and finding what dead owners left undone on the way."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple
from uuid import UUID

import structlog

from service.catalog.catalog import Catalog
from service.catalog.index import RUNNING, IndexEntry
from service.runner.webhooks.receiver import receiver_ids
from service.runner.workers import Workers
from service.settings import Settings
from service.store.goal_record import has_active_goal
from service.store.inbox import waiting_files
from service.store.layout import ConversationDirectory, ConversationsRoot
from service.store.scan import Found, scan
from service.store.webhook_cursor import has_untold_events

_log = structlog.get_logger(__name__)

_BATCH = 200


class _Seen(NamedTuple):
    """Some conversations as they are on disk."""

    entries: list[IndexEntry]
    left: list[UUID]
    """In the middle of a run or a goal, or with commands that were accepted and not applied."""
    goals: list[UUID]
    untold: list[UUID]


class IndexBuilding:
    """Of one runner. Methods of its loop; the disk is looked at by workers, some conversations at a time."""

    def __init__(self, settings: Settings, catalog: Catalog, workers: Workers) -> None:
        self._root = ConversationsRoot(settings.conversations_path)
        self._receiver_ids = receiver_ids(settings.webhooks)
        self._catalog = catalog
        self._workers = workers
        self._has_looked = False
        self._losses = 0
        """Of Redis, noticed until now."""
        self._mended = 0
        """Of those, what was seen to."""

    def look_again(self) -> None:
        """Redis has lost something, and may have come back with an index of a while ago."""
        self._losses += 1

    async def run(self) -> list[UUID]:
        """Make the index if nobody has; returns the conversations that were left in the middle of something.

        Those are found by looking at the disk: the first time, and when this runner makes the index or, after
        `look_again`, brings it up to what the disk says. Else there are none.

        Raises:
            BrokerUnavailable: Redis does not answer; this can be repeated.
        """
        left: list[UUID] = []
        losses = self._losses  # one that is noticed later may have taken what this run has put in
        must_look = losses > self._mended
        is_made = await self._catalog.index_build.run(self._look(left), again=must_look)
        if not is_made and not self._has_looked:
            left.clear()
            async for entries in self._look(left):
                await self._catalog.index.add(entries)
        if not self._has_looked or (is_made and must_look):
            await self._forget_vanished()
        self._has_looked = True
        self._mended = losses  # if it is not made, another is at it
        return left

    async def _forget_vanished(self) -> None:
        """What the index has and the disk has not. A disk without anything is taken for one that is not mounted."""
        there = set(await self._workers.call(self._root.ids))
        if there:
            await self._forget_deleted([each for each in await self._catalog.index.ids() if each not in there])

    async def _look(self, left: list[UUID]) -> AsyncIterator[list[IndexEntry]]:
        """What is on disk; adds to `left`. Whoever takes the next entries has put those before into the index."""
        batches = itertools.batched(scan(self._root), _BATCH)
        while batch := await self._workers.call(next, batches, ()):
            seen = await self._workers.call(self._see, batch)
            yield seen.entries
            await self._catalog.untold.add(seen.untold)
            await self._catalog.goals.add(seen.goals)
            await self._forget_deleted([found.conversation_id for found in batch])
            left += seen.left

    def _see(self, batch: tuple[Found, ...]) -> _Seen:
        seen = _Seen([IndexEntry(*found) for found in batch], [], [], [])
        for found in batch:
            directory = self._root.directory(found.conversation_id)
            has_goal = _says(directory, has_active_goal)
            if has_goal:
                seen.goals.append(found.conversation_id)
            if has_goal or found.status == RUNNING or _says(directory, _has_commands):
                seen.left.append(found.conversation_id)
            if _says(directory, lambda directory: has_untold_events(directory, self._receiver_ids)):
                seen.untold.append(found.conversation_id)
        return seen

    async def _forget_deleted(self, conversation_ids: list[UUID]) -> None:
        """Of those: who deletes one may have been done with it before it was put in."""
        directories = [self._root.directory(each) for each in conversation_ids]
        deleted = await self._workers.call(lambda: [each for each in directories if _says(each, _is_deleted)])
        for directory in deleted:
            await self._catalog.index.remove(directory.conversation_id)
            await self._catalog.untold.remove(directory.conversation_id)
            await self._catalog.goals.remove(directory.conversation_id)


def _has_commands(directory: ConversationDirectory) -> bool:
    return bool(waiting_files(directory.inbox))


def _is_deleted(directory: ConversationDirectory) -> bool:
    return not directory.base_state.exists()


def _says(directory: ConversationDirectory, look: Callable[[ConversationDirectory], bool]) -> bool:
    """What a look at a conversation's files says; False where they cannot be read, which is logged."""
    try:
        return look(directory)
    except OSError as error:
        _log.error("unreadable_conversation", conversation_id=str(directory.conversation_id), error=repr(error))
        return False
