"""Who watches a conversation: what each web worker says of its own clients, added up on Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.catalog.script import script
from service.redis_source import redis_errors

WATCHERS_TTL_SECONDS = 15.0
"""The watchers of a worker that was killed are gone after this."""

_NOBODY = b'{"count":0,"names":[]}'


class LocalWatchers(NamedTuple):
    """Those at one worker."""

    number: int
    names: tuple[str, ...] = ()
    """Of those that gave one."""


class Watchers:
    """All methods raise BrokerUnavailable without Redis."""

    def __init__(self, redis: Redis, keys: Keys, ttl_seconds: float = WATCHERS_TTL_SECONDS) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl_ms = int(ttl_seconds * 1000)
        self._watch = script(redis, "watch")

    async def announce(self, worker_id: str, watchers: Mapping[UUID, LocalWatchers]) -> dict[UUID, bytes]:
        """Say who watches which conversation here, for one TTL, in one round trip.

        Returns what `of` says now of those where that has changed; whoever is told of a change tells the readers.
        """
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for conversation_id, local in watchers.items():
                    names = "\n".join(json.dumps(name) for name in local.names)
                    await self._watch(
                        keys=[self._keys.watchers(conversation_id)],
                        args=[worker_id, local.number, names, self._ttl_ms],
                        client=pipeline,
                    )
                news = await pipeline.execute()
        return {conversation_id: told for conversation_id, told in zip(watchers, news, strict=True) if told is not None}

    async def of(self, conversation_id: UUID) -> bytes:
        """Everybody: `{"count": ..., "names": [...]}`."""
        with redis_errors():
            told = await self._redis.hget(self._keys.watchers(conversation_id), "")
        return told if isinstance(told, bytes) else _NOBODY
