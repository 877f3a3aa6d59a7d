"""Who watches: added up over web workers, told when it changes, and forgotten with its worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.catalog.watchers import LocalWatchers, Watchers
from service.pubsub.broker import Channel
from service.redis_source import RedisSource
from tests.integration.listening import Listening
from tests.waiting import wait_until_async

ONE = UUID(int=1)
HEAD = b"\x00\xff\n"
SHORT_SECONDS = 0.2


@pytest.fixture
def watchers(redis: Redis, keys: Keys) -> Watchers:
    return Watchers(redis, keys)


@asynccontextmanager
async def listening(source: RedisSource, keys: Keys) -> AsyncIterator[Listening]:
    """To the conversation's channel."""
    async with Listening(source) as listener:
        await listener.broker.subscribe(Channel(keys.events(ONE)))
        yield listener


async def test_watchers_of_all_workers_are_added_up(watchers: Watchers) -> None:
    """The names are sorted, and each is there once."""
    assert await watchers.of(ONE) == b'{"count":0,"names":[]}'
    await watchers.announce("a", {ONE: LocalWatchers(2, ("Bob", 'Ada "A"'))}, HEAD)
    await watchers.announce("b", {ONE: LocalWatchers(10, ("Bob",))}, HEAD)
    assert await watchers.of(ONE) == rb'{"count":12,"names":["Ada \"A\"","Bob"]}'
    await watchers.announce("a", {ONE: LocalWatchers(0)}, HEAD)
    assert await watchers.of(ONE) == b'{"count":10,"names":["Bob"]}'


async def test_only_changes_are_told(watchers: Watchers, source: RedisSource, keys: Keys) -> None:
    """To all workers, the one that made the change included; a renewal is no news."""
    async with listening(source, keys) as listener:
        for number in (1, 1, 2, 2, 0):
            await watchers.announce("a", {ONE: LocalWatchers(number)}, HEAD)
        await listener.receives(3)
    assert listener.payloads == [HEAD + b'{"count":%d,"names":[]}' % number for number in (1, 2, 0)]


async def test_nothing_is_kept_of_who_has_gone(watchers: Watchers, redis: Redis, keys: Keys) -> None:
    """A conversation that nobody watches has no key."""
    await watchers.announce("a", {ONE: LocalWatchers(1, ("Ada",))}, HEAD)
    assert await redis.pttl(keys.watchers(ONE)) > 0
    await watchers.announce("a", {ONE: LocalWatchers(0)}, HEAD)
    assert not await redis.exists(keys.watchers(ONE))


async def test_watchers_of_a_silent_worker_are_dropped_and_the_rest_is_told(
    redis: Redis, source: RedisSource, keys: Keys
) -> None:
    """As after its death: by whoever renews next, and without one by Redis itself."""
    watchers = Watchers(redis, keys, SHORT_SECONDS)
    await watchers.announce("silent", {ONE: LocalWatchers(3, ("Ada",))}, HEAD)
    async with listening(source, keys) as listener:

        async def is_told() -> bool:
            await watchers.announce("alive", {ONE: LocalWatchers(1)}, HEAD)
            return listener.payloads[-1:] == [HEAD + b'{"count":1,"names":[]}']

        await wait_until_async(is_told, "the silent worker's watchers are dropped")

    async def is_gone() -> bool:
        return not await redis.exists(keys.watchers(ONE))

    await wait_until_async(is_gone, "the key has expired")
