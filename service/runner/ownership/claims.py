"""The leases that this runner holds: taken on demand, kept by renewing, given back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import structlog

from service.catalog.catalog import Catalog
from service.catalog.liveness import Pulse, has_let_lease_lapse, is_dead
from service.errors import BrokerUnavailable, OwnerMoving, RequestFailed
from service.identity import RunnerId
from service.metrics import metrics
from service.runner.workers import Workers
from service.settings import Settings
from service.store.layout import ConversationsRoot
from service.store.owner_record import NOBODY, OwnerRecord, read_owner

_log = structlog.get_logger(__name__)


class Claims:
    """Methods of the runner's loop."""

    def __init__(
        self, settings: Settings, runner_id: RunnerId, catalog: Catalog, workers: Workers, pulse: Pulse
    ) -> None:
        self.held: set[UUID] = set()
        """Of conversations that are hosted here, being opened or being let go."""
        self._root = ConversationsRoot(settings.conversations_path)
        self._ttl_seconds = settings.lease_ttl_seconds
        self._runner_id = runner_id
        self._owners = catalog.owners
        self._runners = catalog.runners
        self._workers = workers
        self._pulse = pulse

    async def renew(self) -> list[UUID]:
        """Hold all for another TTL; returns, and forgets, those that another runner has taken over."""
        lost = await self._owners.renew(list(self.held), self._runner_id)
        self.held.difference_update(lost)
        return lost

    @contextlib.asynccontextmanager
    async def claiming(self, conversation_id: UUID) -> AsyncIterator[None]:
        """The lease is taken, and given back if the block fails or is cancelled.

        Raises:
            OwnerMoving: another runner holds it.
            RequestFailed: the record of the last owner cannot be read.
        """
        await self._claim(conversation_id)
        try:
            yield
        except BaseException:
            await self.release(conversation_id)
            raise

    async def release(self, conversation_id: UUID) -> None:
        """Give the lease back."""
        self.held.discard(conversation_id)
        with contextlib.suppress(BrokerUnavailable):  # it runs out by itself
            await self._owners.release(conversation_id, self._runner_id)

    async def _claim(self, conversation_id: UUID) -> None:
        """Take the lease; from another runner only if that is dead for certain.

        Redis may have lost the lease of a living owner, so the record on disk is asked as well.
        """
        record = await self._last_claim(conversation_id)
        if record is not None and record.runner_id not in (NOBODY, self._runner_id):
            await self._require_lost(conversation_id, record.runner_id)
        holder = await self._owners.acquire(conversation_id, self._runner_id)
        if holder != self._runner_id:
            await self._require_dead(conversation_id, holder)
            metrics().leases.labels("taken_over").inc()
            _log.warning("lease_taken_over", conversation_id=str(conversation_id), dead_runner_id=holder)
            holder = await self._owners.acquire(conversation_id, self._runner_id, dead=holder)
        if holder != self._runner_id:
            raise OwnerMoving(str(conversation_id))
        metrics().leases.labels("claimed").inc()
        self.held.add(conversation_id)

    async def _last_claim(self, conversation_id: UUID) -> OwnerRecord | None:
        """Raises RequestFailed when the record cannot be read."""
        try:
            return await self._workers.call(read_owner, self._root.directory(conversation_id))
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.exception("owner_record_unreadable", conversation_id=str(conversation_id))
            raise RequestFailed(f"Conversation {conversation_id} cannot be opened: {error}") from error

    async def _require_lost(self, conversation_id: UUID, runner_id: RunnerId) -> None:
        """Raises OwnerMoving unless the runner is dead, or no longer renews its lease."""
        is_free = await self._owners.find(conversation_id) is None
        if not (is_free and await has_let_lease_lapse(runner_id, self._runners, self._pulse, self._ttl_seconds)):
            await self._require_dead(conversation_id, runner_id)

    async def _require_dead(self, conversation_id: UUID, runner_id: RunnerId) -> None:
        if not await is_dead(runner_id, self._runners, self._pulse):
            raise OwnerMoving(str(conversation_id))
