"""Going on with what dead runners left: which conversations those are, and opening them, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

import structlog

from service.catalog.catalog import Catalog
from service.catalog.liveness import dead_among
from service.errors import BrokerUnavailable, ConversationNotFound, OwnerMoving, RequestFailed
from service.identity import RunnerId
from service.runner.host import Host
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_AT_ONCE = 8
"""One that is slow to open delays no other, and workers are left for what clients ask."""


class Takeover:
    """Of one runner. Methods of its loop."""

    def __init__(self, host: Host, runner_id: RunnerId, catalog: Catalog) -> None:
        self._host = host
        self._runner_id = runner_id
        self._owners = catalog.owners
        self._runners = catalog.runners
        self._candidates: set[UUID] = set()
        """Of which it is still to be asked who holds them."""
        self._opening: set[UUID] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks = TaskSet()

    async def begin(self, candidates: Iterable[UUID]) -> None:
        """Begin to open those whose owner is dead: they were running, or something of theirs waits to be done.

        Raises:
            BrokerUnavailable: Redis does not answer; the next call asks about these, too.
        """
        self._candidates.update(candidates)
        self._candidates -= self._host.claimed | self._opening
        asked = set(self._candidates)
        left = await self._left(asked)
        self._candidates -= asked
        for conversation_id in left - self._opening:  # another call may have been faster
            self._opening.add(conversation_id)
            self._tasks.start(self._open(conversation_id), f"take over {conversation_id}")

    async def stop(self) -> None:
        """Open no more."""
        await self._tasks.stop()

    async def _left(self, conversation_ids: set[UUID]) -> set[UUID]:
        """Those that no living runner but this one holds."""
        holders = await self._owners.find_all(conversation_ids)
        others = set(holders.values()) - {self._runner_id}
        living = others - await dead_among(others, self._runners, self._host.pulse)
        return {each for each in conversation_ids if holders.get(each) not in living}

    async def _open(self, conversation_id: UUID) -> None:
        try:
            async with self._turns:
                await self._host.open(conversation_id)
        except (ConversationNotFound, OwnerMoving):
            pass  # deleted, or another was faster
        except BrokerUnavailable:
            self._candidates.add(conversation_id)
        except RequestFailed as error:
            _log.error("conversation_not_recovered", conversation_id=str(conversation_id), error=str(error))
        finally:
            self._opening.discard(conversation_id)
