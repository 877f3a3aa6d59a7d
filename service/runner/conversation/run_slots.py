"""How many runs may go on at once: in this runner, and in the whole deployment where that is limited too."""

from __future__ import annotations

import contextlib
from uuid import UUID

from service.catalog.cluster_runs import ClusterRuns
from service.errors import BrokerUnavailable, RunLimitReached
from service.tasks import TaskSet


class RunSlots:
    """Methods of the runner's loop."""

    def __init__(self, limit: int, cluster: ClusterRuns, cluster_limit: int | None) -> None:
        self._limit = limit
        self._cluster = cluster
        self._cluster_limit = cluster_limit
        self._taken: set[UUID] = set()
        self._tasks = TaskSet()

    @property
    def taken(self) -> int:
        return len(self._taken)

    @property
    def is_full(self) -> bool:
        return self.taken >= self._limit

    async def take(self, conversation_id: UUID) -> None:
        """Take a slot for a conversation's run.

        Raises:
            RunLimitReached: none is free, here or in the deployment.
            BrokerUnavailable: the deployment's slots cannot be asked for.
        """
        if self.is_full:
            raise RunLimitReached
        self._taken.add(conversation_id)
        try:
            if self._cluster_limit and not await self._cluster.take(conversation_id, self._cluster_limit):
                raise RunLimitReached
        except BaseException:
            self._taken.discard(conversation_id)
            raise

    def give_back(self, conversation_id: UUID) -> None:
        """The run is over; no effect after `leave`."""
        if conversation_id not in self._taken:
            return
        self._taken.discard(conversation_id)
        if self._cluster_limit:
            self._tasks.start(self._give_back_to_cluster(conversation_id), f"give back slot {conversation_id}")

    def leave(self, conversation_id: UUID) -> None:
        """The next owner goes on with the run, and takes its slot in the deployment over."""
        self._taken.discard(conversation_id)

    async def renew(self) -> None:
        """Hold the deployment's slots for another while. Raises BrokerUnavailable."""
        if self._cluster_limit:
            await self._cluster.renew(list(self._taken))

    async def _give_back_to_cluster(self, conversation_id: UUID) -> None:
        with contextlib.suppress(BrokerUnavailable):  # it runs out by itself
            await self._cluster.give_back(conversation_id)
