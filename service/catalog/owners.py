"""Who owns a conversation now: a lease per conversation, renewed by its runner."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from uuid import UUID

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.catalog.script import script
from service.identity import RunnerId
from service.redis_source import redis_errors, text

_BATCH = 500


class Owners:
    """Leases on conversations, each a Lua script, so atomic. All methods raise BrokerUnavailable without Redis.

    A lease says who should write. What keeps a deposed owner from writing is the fence on disk
    (`service.store.owner_record`).
    """

    def __init__(self, redis: Redis, keys: Keys, lease_ttl_seconds: float) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl_ms = int(lease_ttl_seconds * 1000)
        self._renew = script(redis, "renew_lease")
        self._take = script(redis, "take_lease")
        self._release = script(redis, "release_lease")

    async def find(self, conversation_id: UUID) -> RunnerId | None:
        """The runner whose lease stands, if any."""
        with redis_errors():
            owner = await self._redis.get(self._keys.owner(conversation_id))
        return None if owner is None else RunnerId(text(owner))

    async def find_all(self, conversation_ids: Iterable[UUID]) -> dict[UUID, RunnerId]:
        """Of those with a lease that stands, the runner that holds it; hundreds are asked for in one round trip."""
        found: dict[UUID, RunnerId] = {}
        for batch in itertools.batched(conversation_ids, _BATCH):
            with redis_errors():
                owners = await self._redis.mget([self._keys.owner(each) for each in batch])
            held = ((each, owner) for each, owner in zip(batch, owners, strict=True) if owner is not None)
            found.update((each, RunnerId(text(owner))) for each, owner in held)
        return found

    async def acquire(self, conversation_id: UUID, runner_id: RunnerId, dead: RunnerId | None = None) -> RunnerId:
        """Take the lease if it is free, or held by a runner that is `dead`; returns who holds it now."""
        arguments: list[str | int] = [runner_id, self._ttl_ms, dead or ""]
        with redis_errors():
            holder = await self._take(keys=[self._keys.owner(conversation_id)], args=arguments)
        return RunnerId(text(holder))

    async def renew(self, conversation_ids: list[UUID], runner_id: RunnerId) -> list[UUID]:
        """Hold the leases of these conversations for another TTL, in one round trip; returns those that are lost."""
        if not conversation_ids:
            return []
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for conversation_id in conversation_ids:
                    lease = self._keys.owner(conversation_id)
                    await self._renew(keys=[lease], args=[runner_id, self._ttl_ms], client=pipeline)
                held = await pipeline.execute()
        return [each for each, is_held in zip(conversation_ids, held, strict=True) if not int(is_held)]

    async def release(self, conversation_id: UUID, runner_id: RunnerId) -> None:
        """Give the lease back, unless another runner has taken it meanwhile."""
        with redis_errors():
            await self._release(keys=[self._keys.owner(conversation_id)], args=[runner_id])
