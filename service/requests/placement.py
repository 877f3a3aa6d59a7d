"""Which runner a request goes to: the owner of its conversation, or one of the least loaded.

What was found stays known for a moment, so that calls in quick succession do not each ask Redis the same. That is safe:
a runner that is asked for what is no longer its own refuses, and one that is gone does not hear the request.
"""

from __future__ import annotations

import random
import time
from uuid import UUID

from cachetools import TTLCache

from service.catalog.owners import Owners
from service.catalog.runners import RunnerRecord, Runners
from service.errors import NoRunner
from service.identity import RunnerId

_REMEMBER_OWNER_SECONDS = 1.0
"""As long as a runner that is stopped in this very moment may seem to be there, too: it beats once a second."""
_REMEMBERED_OWNERS = 10_000
_REMEMBER_RUNNERS_SECONDS = 0.25


class Placement:
    """All methods on one event loop."""

    def __init__(self, runners: Runners, owners: Owners) -> None:
        self._runners = runners
        self._owners = owners
        self._known_owners: TTLCache[UUID, RunnerId] = TTLCache(_REMEMBERED_OWNERS, _REMEMBER_OWNER_SECONDS)
        self._known_able: list[RunnerRecord] = []
        self._known_able_until = 0.0

    async def find(self, conversation_id: UUID | None, unheard: RunnerId | None = None) -> RunnerId:
        """The owner, or one of the least loaded runners; not the one that did not hear the request just now.

        Raises:
            NoRunner: no other is able.
            BrokerUnavailable: Redis does not answer.
        """
        if unheard is not None:
            self.forget(conversation_id)
        if conversation_id is not None:
            owner = self._known_owners.get(conversation_id) or await self._owners.find(conversation_id)
            if owner is not None and owner != unheard:
                self._known_owners.setdefault(conversation_id, owner)
                return owner
        able = [runner for runner in await self._able() if runner.runner_id != unheard]
        if not able:
            raise NoRunner
        # Loads are a heartbeat old: a burst must not land on one runner because it was the idlest a second ago.
        return random.choice([runner for runner in able if runner.load == able[0].load]).runner_id

    def forget(self, conversation_id: UUID | None) -> None:
        """What was known has proved wrong: ask Redis the next time."""
        self._known_able_until = 0.0
        if conversation_id is not None:
            self._known_owners.pop(conversation_id, None)

    async def _able(self) -> list[RunnerRecord]:
        """The runners that may be given something: they say how they are once a second."""
        if time.monotonic() > self._known_able_until:
            self._known_able = await self._runners.able()
            self._known_able_until = time.monotonic() + _REMEMBER_RUNNERS_SECONDS
        return self._known_able
