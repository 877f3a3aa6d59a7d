"""Who owns a conversation now: a lease per conversation, renewed by its runner."""

from __future__ import annotations

from uuid import UUID

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.identity import RunnerId
from service.redis_source import redis_errors, text


class Owners:
    """Leases on conversations. All methods raise BrokerUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys, lease_ttl_seconds: float) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl_ms = int(lease_ttl_seconds * 1000)

    async def find(self, conversation_id: UUID) -> RunnerId | None:
        """The runner whose lease stands, if any."""
        with redis_errors():
            owner = await self._redis.get(self._keys.owner(conversation_id))
        return None if owner is None else RunnerId(text(owner))

    async def acquire(self, conversation_id: UUID, runner_id: RunnerId) -> RunnerId:
        """Take the lease if it is free; returns who holds it now."""
        key = self._keys.owner(conversation_id)
        with redis_errors():
            if await self._redis.set(key, runner_id, nx=True, px=self._ttl_ms):
                return runner_id
            holder = await self._redis.get(key)
        return await self.acquire(conversation_id, runner_id) if holder is None else RunnerId(text(holder))

    async def renew(self, conversation_ids: list[UUID], runner_id: RunnerId) -> None:
        """Hold the leases of these conversations for another TTL, in one round trip."""
        if not conversation_ids:
            return
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for conversation_id in conversation_ids:
                    pipeline.set(self._keys.owner(conversation_id), runner_id, px=self._ttl_ms)
                await pipeline.execute()

    async def release(self, conversation_id: UUID) -> None:
        """Give the lease back; only its holder calls this."""
        with redis_errors():
            await self._redis.delete(self._keys.owner(conversation_id))
