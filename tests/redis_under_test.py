"""A Redis as the service knows it: the embedded one, or a `redis-server` of the tests' own. Both can be away."""

from __future__ import annotations

import re
from typing import Protocol

from service import embedded_redis
from service.catalog.keys import Keys
from service.redis_source import RedisSource, text
from tests.redis_process import RedisProcess
from tests.server_process import REPOSITORY


class RedisUnderTest(Protocol):
    """One deployment's Redis."""

    @property
    def source(self) -> RedisSource: ...

    def take_down(self) -> None:
        """From now on nobody is answered."""

    def bring_back(self) -> None:
        """Answer again; what the real one held is lost."""


class EmbeddedRedis:
    """fakeredis in this process; an outage ends no subscription, since there is no connection to break."""

    def __init__(self, namespace: str) -> None:
        self._embedded = embedded_redis.EmbeddedRedis()
        self.source = RedisSource(None, namespace, self._embedded)

    def take_down(self) -> None:
        self._embedded.server.connected = False

    def bring_back(self) -> None:
        self._embedded.server.connected = True


class RealRedis:
    """A process; an outage is its death."""

    def __init__(self, process: RedisProcess, namespace: str) -> None:
        self._process = process
        self.source = RedisSource(process.url, namespace)

    def take_down(self) -> None:
        self._process.process.kill()

    def bring_back(self) -> None:
        self._process.start()


_TYPES = {"sorted set": "zset", "set": "set", "string": "string", "hash": "hash"}


class KnownKey:
    """One row of the table of keys in docs/redis.md."""

    def __init__(self, pattern: str, kind: str, expires: str) -> None:
        self.kind = _TYPES[kind]
        self.expires = not expires.startswith("never")
        self._pattern = re.compile(re.sub(r"<[^>]+>", ".+", pattern))

    def matches(self, name: str) -> bool:
        """Whether a key, namespace left out, is one of this row."""
        return self._pattern.fullmatch(name) is not None


def known_keys() -> list[KnownKey]:
    """The table's rows."""
    page = (REPOSITORY / "docs" / "redis.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `(.+?)` \| ({'|'.join(_TYPES)}) \| (.+?) \|", page, re.MULTILINE)
    return [KnownKey(*row) for row in rows]


async def leaks(source: RedisSource) -> list[str]:
    """What lies on Redis and should not: one line a key."""
    redis = source.commands()
    prefix = Keys(source.namespace).control.removesuffix("control")
    found: list[str] = []
    try:
        for raw in await redis.keys("*"):
            name = text(raw)
            known = [each for each in known_keys() if each.matches(name.removeprefix(prefix))]
            if not name.startswith(prefix) or not known:
                found.append(f"{name}: in no row of the table")
                continue
            kind, ttl_ms = text(await redis.type(raw)), await redis.pttl(raw)
            if (kind, ttl_ms > 0) != (known[0].kind, known[0].expires):
                found.append(f"{name}: {kind} with {ttl_ms} ms to live")
    finally:
        await redis.aclose()
    return found
