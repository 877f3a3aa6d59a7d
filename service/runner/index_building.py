"""Making the index from the disk, and finding what dead owners left undone on the way."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import structlog

from service.catalog.catalog import Catalog
from service.catalog.index import IndexEntry
from service.catalog.rebuild import in_batches
from service.runner.webhook_receiver import receiver_ids
from service.runner.workers import Workers
from service.settings import Settings
from service.store.goal_record import has_active_goal
from service.store.inbox import waiting_files
from service.store.layout import ConversationDirectory, ConversationsRoot
from service.store.scan import Found, scan
from service.store.webhook_cursor import has_untold_events

_log = structlog.get_logger(__name__)


class IndexBuilding:
    """Of one runner."""

    def __init__(self, settings: Settings, catalog: Catalog, workers: Workers) -> None:
        self._root = ConversationsRoot(settings.conversations_path)
        self._receiver_ids = receiver_ids(settings.webhooks)
        self._catalog = catalog
        self._workers = workers

    async def run(self) -> list[UUID]:
        """Make the index if nobody has; returns the conversations that were left in the middle of something.

        Raises:
            BrokerUnavailable: Redis does not answer; this can be repeated.
        """
        found = await self._workers.call(lambda: list(scan(self._root)))
        entries = (IndexEntry(*conversation) for conversation in found)
        await self._catalog.index_build.run(in_batches(entries))
        await self._catalog.untold.add(await self._workers.call(self._untold, found))
        return [conversation.conversation_id for conversation in found if self._is_interrupted(conversation)]

    def _is_interrupted(self, found: Found) -> bool:
        directory = self._root.directory(found.conversation_id)
        return (
            found.status == "running"
            or bool(waiting_files(directory.inbox))
            or _says(directory, lambda: has_active_goal(directory))
        )

    def _untold(self, found: list[Found]) -> list[UUID]:
        return [each.conversation_id for each in found if self._is_untold(self._root.directory(each.conversation_id))]

    def _is_untold(self, directory: ConversationDirectory) -> bool:
        return _says(directory, lambda: has_untold_events(directory, self._receiver_ids))


def _says(directory: ConversationDirectory, look: Callable[[], bool]) -> bool:
    """What a look at a conversation's files says; False where they cannot be read, which is logged."""
    try:
        return look()
    except OSError as error:
        _log.error("unreadable_conversation", conversation_id=str(directory.conversation_id), error=repr(error))
        return False
