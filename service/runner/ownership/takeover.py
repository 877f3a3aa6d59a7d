"""Going on with what is left: conversations that no living runner holds, which are opened some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

import structlog

from service.catalog.catalog import Catalog
from service.catalog.liveness import dead_among
from service.errors import BrokerUnavailable, ConversationNotFound, OwnerMoving, RequestFailed
from service.identity import RunnerId
from service.runner.ownership.host import Host
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_AT_ONCE = 8
"""One that is slow to open delays no other, and workers are left for what clients ask."""
_AGAIN_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
"""Before one that could not be opened is tried again: at first, and at most, each pause being twice the one before."""


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
        """Or tried a moment ago."""
        self._pauses_seconds: dict[UUID, float] = {}
        """The next, after each that could not be opened when it was last tried."""
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks = TaskSet()

    async def begin(self, candidates: Iterable[UUID]) -> None:
        """Begin to open those that nobody alive holds: they were running, or something of theirs waits to be done.

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
        pause_seconds = self._pauses_seconds.pop(conversation_id, _AGAIN_SECONDS)
        try:
            async with self._turns:
                await self._host.open(conversation_id)
        except (ConversationNotFound, OwnerMoving):
            pass  # deleted, or another was faster
        except BrokerUnavailable:
            self._candidates.add(conversation_id)
        except RequestFailed as error:
            _log.error("conversation_not_recovered", conversation_id=str(conversation_id), error=str(error))
            self._pauses_seconds[conversation_id] = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause_seconds)
        finally:
            self._opening.discard(conversation_id)
