"""How many runs may go on at once: in this runner, and in the whole deployment where that is limited too.

A conversation has one slot, while a run goes on in it and while it is worked for a goal, between the runs of that too.
"""

from __future__ import annotations

import contextlib
from typing import Literal
from uuid import UUID

from service.catalog.cluster_runs import ClusterRuns
from service.errors import BrokerUnavailable, RunLimitReached
from service.tasks import TaskSet

Holder = Literal["run", "goal"]

ASK_AGAIN_SECONDS = 0.5
"""How often what is to be gone on with asks for a slot that it did not get."""


class RunSlots:
    """Methods of the runner's loop."""

    def __init__(self, limit: int, cluster: ClusterRuns, cluster_limit: int | None) -> None:
        self._limit = limit
        self._cluster = cluster
        self._cluster_limit = cluster_limit
        self._taken: dict[UUID, set[Holder]] = {}
        """By nobody while the deployment is asked."""
        self._tasks = TaskSet()

    @property
    def taken(self) -> int:
        return len(self._taken)

    @property
    def is_full(self) -> bool:
        return self.taken >= self._limit

    async def take(self, conversation_id: UUID, holder: Holder) -> None:
        """Take a slot for a conversation, or hold the one that it has.

        Raises:
            RunLimitReached: none is free, here or in the deployment.
            BrokerUnavailable: the deployment's slots cannot be asked for.
        """
        if not self._taken.get(conversation_id):
            await self._reserve(conversation_id)
        self._taken.setdefault(conversation_id, set()).add(holder)

    def give_back(self, conversation_id: UUID, holder: Holder) -> None:
        """The run or the goal is over, and with the last of them the slot is free; no effect after `leave`."""
        holders = self._taken.get(conversation_id, set())
        if holders != {holder}:
            holders.discard(holder)
            return
        del self._taken[conversation_id]
        if self._cluster_limit:
            self._tasks.start(self._give_back_to_cluster(conversation_id), f"give back slot {conversation_id}")

    def leave(self, conversation_id: UUID) -> None:
        """The next owner goes on with the run, and takes its slot in the deployment over."""
        self._taken.pop(conversation_id, None)

    async def renew(self) -> None:
        """Hold the deployment's slots for another while. Raises BrokerUnavailable."""
        if self._cluster_limit:
            await self._cluster.renew(list(self._taken))

    async def _reserve(self, conversation_id: UUID) -> None:
        """Two that ask for one conversation at once are both told what the deployment says."""
        if conversation_id not in self._taken and self.is_full:
            raise RunLimitReached
        self._taken.setdefault(conversation_id, set())
        try:
            if self._cluster_limit and not await self._cluster.take(conversation_id, self._cluster_limit):
                raise RunLimitReached
        except BaseException:
            if not self._taken.get(conversation_id):
                self._taken.pop(conversation_id, None)
            raise

    async def _give_back_to_cluster(self, conversation_id: UUID) -> None:
        with contextlib.suppress(BrokerUnavailable):  # it runs out by itself
            await self._cluster.give_back(conversation_id)
