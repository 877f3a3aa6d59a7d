"""When somebody last did something: what `idle_time` counts from."""

from __future__ import annotations

import time

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.redis_source import redis_errors


class Activity:
    """One time stamp for the whole deployment. All methods raise BrokerUnavailable without Redis."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def note(self) -> None:
        """Something happened now."""
        with redis_errors():
            await self._redis.set(self._keys.activity, repr(time.time()))

    async def last_at(self) -> float | None:
        """Unix time of the last activity; None when nothing happened yet."""
        with redis_errors():
            noted = await self._redis.get(self._keys.activity)
        return None if noted is None else float(noted)
