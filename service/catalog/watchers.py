"""Who watches a conversation: what each web worker says of its own clients, added up on Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.redis_source import redis_errors

WATCHERS_TTL_SECONDS = 15.0
"""The watchers of a worker that was killed are gone after this."""

_SCRIPT = files("service.catalog") / "lua" / "watch.lua"
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
        self._watch = redis.register_script(_SCRIPT.read_text())

    async def announce(self, worker_id: str, watchers: Mapping[UUID, LocalWatchers], message_head: bytes) -> None:
        """Say who watches which conversation here, for one TTL, in one round trip.

        Where that changes the whole, it is published on the conversation's channel: `message_head`, then the JSON.
        """
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for conversation_id, local in watchers.items():
                    names = "\n".join(json.dumps(name) for name in local.names)
                    channel = self._keys.events(conversation_id)
                    await self._watch(
                        keys=[self._keys.watchers(conversation_id)],
                        args=[worker_id, local.number, names, self._ttl_ms, channel, message_head],
                        client=pipeline,
                    )
                await pipeline.execute()

    async def of(self, conversation_id: UUID) -> bytes:
        """Everybody: `{"count": ..., "names": [...]}`."""
        with redis_errors():
            told = await self._redis.hget(self._keys.watchers(conversation_id), "")
        return told if isinstance(told, bytes) else _NOBODY
