"""How far authorizations at MCP servers have come: any web worker tells, the runner that drives one writes."""

from __future__ import annotations

import json

from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.errors import JsonObject
from service.redis_source import redis_errors

JOB_SECONDS = 900
"""How long one may take, and is told of; as long as the published server remembers."""


class OAuthJobs:
    """Records by job id. Tokens in them are encrypted. All methods raise BrokerUnavailable without Redis."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def put(self, job_id: str, record: JsonObject) -> None:
        """Replace the record."""
        with redis_errors():
            await self._redis.set(self._keys.oauth_job(job_id), json.dumps(record), ex=JOB_SECONDS)

    async def get(self, job_id: str) -> JsonObject | None:
        """The record; None for one that is unknown or too old."""
        with redis_errors():
            stored = await self._redis.get(self._keys.oauth_job(job_id))
        return None if stored is None else dict(json.loads(stored))
