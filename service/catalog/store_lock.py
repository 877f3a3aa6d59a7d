"""The right to change settings and profiles: one at a time in the whole deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import LockError, RedisError

from service.catalog.keys import Keys
from service.errors import Unavailable
from service.redis_source import redis_errors

LOCK_SECONDS = 30
"""Far more than a change takes; a runner that dies in the middle of one blocks the others no longer than this."""
_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.02


class StoreLock:
    """Hosts that share a disk need not agree about the locks of its files, but they share Redis."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._key = keys.store_lock

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the lock for the length of the block.

        Raises:
            Unavailable: others held it for too long.
            BrokerUnavailable: Redis does not answer.
        """
        lock = self._redis.lock(self._key, timeout=LOCK_SECONDS, blocking_timeout=_WAIT_SECONDS, sleep=_POLL_SECONDS)
        with redis_errors():
            taken = await lock.acquire()
        if not taken:
            raise Unavailable("Profile store is busy. Please retry.")
        try:
            yield
        finally:
            # The change is on disk whatever becomes of the lock, which runs out by itself.
            with suppress(LockError, RedisError, OSError):
                await lock.release()
