"""Which conversations exist, in the orders that lists want. Made from the disk, so it may be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.catalog.script import script
from service.errors import Unavailable
from service.redis_source import redis_errors, text

if TYPE_CHECKING:
    from service.embedded_redis import Touched

_CHUNK = 500
RUNNING = "running"
_COMPLETE = "complete"
"""An entry of both orders, after all others, once every conversation of the disk is in. Who loses them loses it."""
_INCOMPLETE = "The index of conversations is being built. Retry the request."


class SortOrder(Enum):
    """The contract's names."""

    CREATED_AT = "CREATED_AT"
    UPDATED_AT = "UPDATED_AT"
    CREATED_AT_DESC = "CREATED_AT_DESC"
    UPDATED_AT_DESC = "UPDATED_AT_DESC"


class IndexEntry(NamedTuple):
    """What lists sort and filter by."""

    conversation_id: UUID
    created_at: str
    """UTC, ISO-8601 with offset or `Z`."""
    updated_at: str
    status: str


class Page(NamedTuple):
    """Some ids in order, and the one that follows them."""

    ids: list[UUID]
    next_id: UUID | None


class ConversationIndex:
    """The index on Redis. All methods raise BrokerUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys, touched: Touched | None = None) -> None:
        """`touched`: where a time that has changed waits until the order is asked for, in an index of one process."""
        self._redis = redis
        self._keys = keys
        self._touched = touched
        self._add = script(redis, "add_entries")
        self._mark_complete = script(redis, "mark_complete")

    async def put(self, entries: Iterable[IndexEntry]) -> None:
        """Add or replace entries, in one round trip."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                for entry in entries:
                    name, score = entry.conversation_id.hex, _score(entry.updated_at)
                    if self._touched is not None:
                        self._touched.note(name, score)  # in place of what may wait
                    pipeline.zadd(self._keys.index_created, {name: _score(entry.created_at)})
                    pipeline.zadd(self._keys.index_updated, {name: score})
                    pipeline.hset(self._keys.index_status, name, entry.status)
                    note = pipeline.sadd if entry.status == RUNNING else pipeline.srem
                    note(self._keys.index_running, name)
                if len(pipeline):
                    await pipeline.execute()

    async def add(self, entries: Iterable[IndexEntry]) -> None:
        """Add what the disk says, in one round trip. An entry that changed later than that stays as it is."""
        keys = [self._keys.index_created, self._keys.index_updated, self._keys.index_status, self._keys.index_running]
        arguments: list[str | int] = [RUNNING]
        for entry in entries:
            arguments += [entry.conversation_id.hex, _score(entry.created_at), _score(entry.updated_at), entry.status]
        with redis_errors():
            await self._add(keys=keys, args=arguments)

    async def touch(self, conversation_id: UUID, updated_at: str) -> None:
        """An entry of which nothing else has changed; one that Redis has lost is put back by the rebuild."""
        name, score = conversation_id.hex, _score(updated_at)
        if self._touched is not None:
            self._touched.note(name, score)
            return
        with redis_errors():
            await self._redis.zadd(self._keys.index_updated, {name: score})

    async def remove(self, conversation_id: UUID) -> None:
        """Forget a deleted conversation."""
        name = conversation_id.hex
        if self._touched is not None:
            self._touched.forget(name)
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.zrem(self._keys.index_created, name)
                pipeline.zrem(self._keys.index_updated, name)
                pipeline.hdel(self._keys.index_status, name)
                pipeline.srem(self._keys.index_running, name)
                await pipeline.execute()

    async def ids(self) -> list[UUID]:
        """All there are, in no order."""
        with redis_errors():
            names = map(text, await self._redis.zrange(self._keys.index_created, 0, -1))
            return [UUID(hex=name) for name in names if name != _COMPLETE]

    async def running(self) -> list[UUID]:
        """The conversations that are running, or were when their owner died."""
        with redis_errors():
            return [UUID(hex=text(name)) for name in await self._redis.smembers(self._keys.index_running)]

    async def mark_complete(self, builder: str) -> bool:
        """Every conversation of the disk is in here; False where the builder's mark is gone, and with it the rest."""
        with redis_errors():
            keys = [self._keys.index_created, self._keys.index_updated, self._keys.index_building]
            return bool(await self._mark_complete(keys=keys, args=[builder, _COMPLETE]))

    async def is_complete(self) -> bool:
        """Whether lists can be trusted."""
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in (self._keys.index_created, self._keys.index_updated):
                    pipeline.zscore(key, _COMPLETE)
                return None not in await pipeline.execute()

    async def count(self, status: str | None) -> int:
        """How many there are, in a status if given.

        Raises:
            Unavailable: the index is not complete.
        """
        await self._require_complete()
        with redis_errors():
            if status is None:
                return int(await self._redis.zcard(self._keys.index_created)) - 1
            return sum(text(found) == status for found in await self._redis.hvals(self._keys.index_status))

    async def page(self, order: SortOrder, status: str | None, start_id: UUID | None, limit: int) -> Page | None:
        """Up to `limit` ids from `start_id` on (inclusive), and the id after them; None for an unknown `start_id`.

        Raises:
            Unavailable: the index is not complete.
        """
        key = self._keys.index_created if "CREATED" in order.value else self._keys.index_updated
        descending = order.value.endswith("_DESC")
        if start_id is not None or not descending:
            await self._require_complete()
        with redis_errors():
            if self._touched is not None and key == self._keys.index_updated and (touched := self._touched.take()):
                await self._redis.zadd(key, touched, xx=True)  # not those that were removed meanwhile
            rank = 0
            if start_id is not None:
                start = await (self._redis.zrevrank if descending else self._redis.zrank)(key, start_id.hex)
                if start is None:
                    return None
                rank = int(str(start))
            found: list[UUID] = []
            async for conversation_id in self._walk(key, descending, status, rank, limit + 1):
                found.append(conversation_id)
                if len(found) > limit:
                    return Page(found[:limit], found[limit])
            return Page(found, None)

    async def _require_complete(self) -> None:
        if not await self.is_complete():
            raise Unavailable(_INCOMPLETE)

    async def _walk(self, key: str, descending: bool, status: str | None, rank: int, first: int) -> AsyncIterator[UUID]:
        chunk = first + 1 if status is None else _CHUNK
        while True:
            names = [text(name) for name in await self._redis.zrange(key, rank, rank + chunk - 1, desc=descending)]
            if descending and rank == 0 and names[:1] != [_COMPLETE]:  # it costs nothing to be seen here
                raise Unavailable(_INCOMPLETE)
            if not names:
                return
            rank += chunk
            chunk = _CHUNK
            names = [name for name in names if name != _COMPLETE]
            statuses = await self._redis.hmget(self._keys.index_status, names) if status and names else names
            for name, found in zip(names, statuses, strict=True):
                if status is None or (found is not None and text(found) == status):
                    yield UUID(hex=name)


def _score(timestamp: str) -> int:
    """Microseconds since 1970; exact as a double until the year 2255."""
    return int(datetime.fromisoformat(timestamp).timestamp() * 1_000_000)
