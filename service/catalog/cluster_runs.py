"""How many runs may go on in the whole deployment."""

from __future__ import annotations

import sys
from uuid import UUID

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.catalog.script import script
from service.redis_source import redis_errors


class ClusterRuns:
    """Slots in Redis, held by renewing. All methods raise BrokerUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys, slot_ttl_seconds: float) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl_ms = int(slot_ttl_seconds * 1000)
        self._take = script(redis, "take_run")

    async def take(self, conversation_id: UUID, limit: int) -> bool:
        """Take a slot, or hold the one this conversation has, for the TTL; False when all are taken."""
        with redis_errors():
            arguments: list[str | int] = [conversation_id.hex, limit, self._ttl_ms]
            return bool(await self._take(keys=[self._keys.runs], args=arguments))

    async def renew(self, conversation_ids: list[UUID]) -> None:
        """Hold these slots for another TTL, whatever the limit is by now."""
        for conversation_id in conversation_ids:
            await self.take(conversation_id, sys.maxsize)

    async def give_back(self, conversation_id: UUID) -> None:
        with redis_errors():
            await self._redis.zrem(self._keys.runs, conversation_id.hex)
