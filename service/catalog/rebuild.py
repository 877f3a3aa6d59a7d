"""Making the index from the disk, by one process at a time."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable

from redis.asyncio import Redis

from service.catalog.index import ConversationIndex, IndexEntry
from service.catalog.keys import Keys
from service.catalog.script import script
from service.redis_source import redis_errors, text

_BUILDING_SECONDS = 60


class IndexBuild:
    """Making the index, if it was not made since Redis was last empty."""

    def __init__(self, redis: Redis, keys: Keys, index: ConversationIndex) -> None:
        self._redis = redis
        self._keys = keys
        self._index = index
        self._end = script(redis, "release_lease")
        self._builder = uuid.uuid4().hex

    async def run(self, batches: AsyncIterable[list[IndexEntry]], *, again: bool = False) -> bool:
        """Put every entry into the index, unless that is done or another process is at it; True when it was done here.

        Nothing is asked of `batches` unless it is. What owners put in meanwhile stays as it is. `again`: though it was
        done, since it may be of a while ago.

        Raises:
            BrokerUnavailable: Redis does not answer; the build can be run again.
        """
        if not again and await self._index.is_complete():
            return False
        try:
            return await self._begin() and await self._build(batches, again=again)
        finally:  # also when told to stop, even before Redis has answered: another would wait as long as the mark lasts
            with redis_errors():
                await self._end(keys=[self._keys.index_building], args=[self._builder])

    async def _begin(self) -> bool:
        """Mark that this process is at it, unless another is; one of its own marks may be left from an outage."""
        with redis_errors():
            is_free = await self._redis.set(self._keys.index_building, self._builder, nx=True, ex=_BUILDING_SECONDS)
            return bool(is_free) or await self._is_at_it()

    async def _build(self, batches: AsyncIterable[list[IndexEntry]], *, again: bool) -> bool:
        # By another, between the question before and its letting go of the mark.
        if not again and await self._index.is_complete():
            return False
        async for batch in batches:  # they come from the disk, whose errors are not Redis's
            await self._index.add(batch)
            with redis_errors():
                if not await self._is_at_it():
                    return False  # Redis was emptied once more, and what was put in is lost
                await self._redis.expire(self._keys.index_building, _BUILDING_SECONDS)
        return await self._index.mark_complete(self._builder)

    async def _is_at_it(self) -> bool:
        marked = await self._redis.get(self._keys.index_building)
        return marked is not None and text(marked) == self._builder
