"""Which runners live and how loaded they are: heartbeats with a TTL."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.identity import RunnerId
from service.redis_source import redis_errors, text

HEARTBEAT_SECONDS = 1.0
HEARTBEAT_TTL_SECONDS = 3 * HEARTBEAT_SECONDS


class RunnerRecord(NamedTuple):
    """What a runner says of itself with each heartbeat."""

    runner_id: RunnerId
    load: int
    """Runs in progress."""
    facts: dict[str, Any]
    """JSON: versions of the SDK and its tools, `usable_tools`, `host`, `pid`."""
    is_able: bool
    """Whether it can open files; one that cannot keeps what it owns, and is given nothing new."""


class Runners:
    """The live runners, as Redis knows them.

    All methods raise BrokerUnavailable when Redis does not answer.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def beat(self, record: RunnerRecord) -> bool:
        """Say that a runner lives, for the next three heartbeats; False when nothing was left of the one before."""
        content = json.dumps({"load": record.load, "facts": record.facts, "is_able": record.is_able})
        ttl_ms = int(HEARTBEAT_TTL_SECONDS * 1000)
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(self._keys.runner(record.runner_id), content, px=ttl_ms, get=True)
                pipeline.zadd(self._keys.runners, {record.runner_id: record.load})
                previous, _ = await pipeline.execute()
        return previous is not None

    async def leave(self, runner_id: RunnerId) -> None:
        """Say that a runner is gone."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.delete(self._keys.runner(runner_id))
                pipeline.zrem(self._keys.runners, runner_id)
                await pipeline.execute()

    async def alive(self) -> list[RunnerRecord]:
        """The live runners, least loaded first. The dead are struck off the list on the way."""
        with redis_errors():
            names = [RunnerId(text(name)) for name in await self._redis.zrange(self._keys.runners, 0, -1)]
            if not names:
                return []
            contents = await self._redis.mget([self._keys.runner(name) for name in names])
            dead = [name for name, content in zip(names, contents, strict=True) if content is None]
            if dead:
                await self._redis.zrem(self._keys.runners, *dead)
        return [_record(name, content) for name, content in zip(names, contents, strict=True) if content is not None]

    async def able(self) -> list[RunnerRecord]:
        """Those of the live that are given something new."""
        return [record for record in await self.alive() if record.is_able]

    async def is_silent(self, runner_id: RunnerId) -> bool:
        """Whether nobody listens to its inbox and its heartbeat has run out."""
        with redis_errors():
            [(_, listeners)] = await self._redis.pubsub_numsub(self._keys.inbox(runner_id))
        return not listeners and not await self.is_beating(runner_id)

    async def is_beating(self, runner_id: RunnerId) -> bool:
        """Whether its heartbeat has not run out."""
        with redis_errors():
            return bool(await self._redis.exists(self._keys.runner(runner_id)))


def _record(runner_id: RunnerId, content: bytes | str) -> RunnerRecord:
    said = json.loads(content)
    return RunnerRecord(runner_id, said["load"], said["facts"], said.get("is_able", True))  # older ones do not say
