"""What `POST /api/init` said, for every process of a deployment whose start is deferred.

First it is *initializing*: runners start with it and say how that went. Then it is *ready*, and web workers follow.
Redis is told again by every process that is ready, so that it may forget; once none is left, the deployment is dormant.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple, Self

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.catalog.script import script
from service.redis_source import redis_errors, text

RECORD_SECONDS = 60
"""How long it outlives the last process that was ready."""


class InitRecord(NamedTuple):
    """One answer to `POST /api/init`, as far as it has come."""

    token: str
    """Unlike that of any other."""
    sealed: bytes
    """As `service.settings.sealed.seal` leaves it."""
    is_ready: bool
    is_started: bool
    """Some runner serves with it."""
    failure: str | None
    """Why some runner could not."""

    @classmethod
    def new(cls, sealed: bytes) -> Self:
        return cls(uuid.uuid4().hex, sealed, is_ready=False, is_started=False, failure=None)


class Initialization:
    """All methods raise BrokerUnavailable without Redis."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._key = keys.init
        self._failure_key = keys.init_failure
        self._tell = script(redis, "tell_init")

    async def read(self) -> InitRecord | None:
        """None: the deployment is dormant."""
        with redis_errors():
            stored = await self._redis.hgetall(self._key)
        if not stored:
            return None
        failure = stored.get(b"failure")
        return InitRecord(
            text(stored[b"token"]),
            text(stored[b"sealed"]).encode(),
            is_ready=b"ready" in stored,
            is_started=b"started" in stored,
            failure=None if failure is None else text(failure),
        )

    async def current(self, record: InitRecord) -> InitRecord | None:
        """How far this one has come; None: it was withdrawn, forgotten or replaced."""
        found = await self.read()
        return found if found is not None and found.token == record.token else None

    async def propose(self, record: InitRecord, seconds: float) -> bool:
        """Begin, unless somebody has begun already; forgotten after `seconds` if it does not get ready."""
        return await self._say(record, seconds, "new", "sealed", record.sealed)

    async def started(self, record: InitRecord) -> None:
        """A runner serves with it."""
        await self._say(record, 0, "own", "started", "1")

    async def failed(self, record: InitRecord, reason: str) -> None:
        """A runner cannot serve with it."""
        await self._say(record, 0, "own", "failure", reason)

    async def keep(self, record: InitRecord) -> bool:
        """It is ready, and stays so for another while. False: another one has taken its place."""
        return await self._say(record, RECORD_SECONDS, "any", "sealed", record.sealed, "ready", "1")

    async def withdraw(self, record: InitRecord, reason: str) -> None:
        """Be dormant again, and say why."""
        with redis_errors():
            await self._redis.set(self._failure_key, reason)
            if await self.current(record) is not None:
                await self._redis.delete(self._key)

    async def last_failure(self) -> str | None:
        """Why the last attempt came to nothing."""
        with redis_errors():
            stored = await self._redis.get(self._failure_key)
        return None if stored is None else text(stored)

    async def forget_failure(self) -> None:
        with redis_errors():
            await self._redis.delete(self._failure_key)

    async def _say(self, record: InitRecord, ttl_seconds: float, condition: str, *fields: str | bytes) -> bool:
        """As `tell_init.lua` has it."""
        arguments = [record.token, int(ttl_seconds * 1000), condition, *fields]
        with redis_errors():
            return bool(await self._tell(keys=[self._key], args=arguments))
