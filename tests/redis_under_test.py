"""A Redis as the service knows it: the embedded one, or a `redis-server` of the tests' own. Both can be away."""

from __future__ import annotations

import re
from typing import Protocol

from service import embedded_redis
from service.catalog import keys as keys_module
from service.catalog.keys import Keys
from service.redis_source import RedisSource, text
from tests.redis_process import RedisProcess


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


class KnownKey:
    """One row of the table in `service.catalog.keys`."""

    def __init__(self, pattern: str, kind: str, ttl: str) -> None:
        self.kind = kind
        self.expires = not ttl.startswith("none")
        self._pattern = re.compile(re.sub(r"<[^>]+>", ".+", pattern))

    def matches(self, name: str) -> bool:
        """Whether a key, namespace left out, is one of this row."""
        return self._pattern.fullmatch(name) is not None


def known_keys() -> list[KnownKey]:
    """The table's rows, one for each name in the first column."""
    documented = keys_module.__doc__ or ""
    rows = re.findall(r"^\| (\S.*?) +\| (zset|set|string|hash) +\| (\S.*?) +\|", documented, re.MULTILINE)
    return [KnownKey(name, kind, ttl) for names, kind, ttl in rows for name in names.split(", ")]


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
