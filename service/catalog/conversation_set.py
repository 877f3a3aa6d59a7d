"""Conversations with something left to do beside a run: receivers of webhooks to be told, or a goal to be reached.

Should their owner die, another runner goes on with them. Made from the disk, so it may be lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.redis_source import redis_errors, text


class ConversationSet:
    """All methods raise BrokerUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys, key: str) -> None:
        """`key`: of the set."""
        self._redis = redis
        self._key = key
        self._keys = keys

    async def add(self, conversation_ids: Iterable[UUID]) -> None:
        names = [conversation_id.hex for conversation_id in conversation_ids]
        if names:
            with redis_errors():
                await self._redis.sadd(self._key, *names)

    async def remove(self, conversation_id: UUID) -> None:
        with redis_errors():
            await self._redis.srem(self._key, conversation_id.hex)

    async def without_owner(self) -> list[UUID]:
        """Those whose lease nobody holds."""
        with redis_errors():
            found = [UUID(hex=text(name)) for name in await self._redis.smembers(self._key)]
            if not found:
                return []
            owners = await self._redis.mget([self._keys.owner(conversation_id) for conversation_id in found])
        return [conversation_id for conversation_id, owner in zip(found, owners, strict=True) if owner is None]
