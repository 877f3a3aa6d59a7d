"""Who watches: added up over web workers, told when it changes, and forgotten with its worker."""

from __future__ import annotations

from uuid import UUID

import pytest
from redis.asyncio import Redis

from service.blueprints.streams.presence import Presence
from service.catalog.keys import Keys
from service.catalog.watchers import LocalWatchers, Watchers
from service.redis_source import RedisSource
from tests.integration.listening import make_broker
from tests.waiting import wait_until_async

ONE = UUID(int=1)
SHORT_SECONDS = 0.2


@pytest.fixture
def watchers(redis: Redis, keys: Keys) -> Watchers:
    return Watchers(redis, keys)


async def test_watchers_of_all_workers_are_added_up(watchers: Watchers) -> None:
    """The names are sorted, and each is there once."""
    assert await watchers.of(ONE) == b'{"count":0,"names":[]}'
    await watchers.announce("a", {ONE: LocalWatchers(2, ("Bob", 'Ada "A"'))})
    await watchers.announce("b", {ONE: LocalWatchers(10, ("Bob",))})
    assert await watchers.of(ONE) == rb'{"count":12,"names":["Ada \"A\"","Bob"]}'
    await watchers.announce("a", {ONE: LocalWatchers(0)})
    assert await watchers.of(ONE) == b'{"count":10,"names":["Bob"]}'


async def test_only_changes_are_told(watchers: Watchers) -> None:
    """A renewal is no news."""
    news = [await watchers.announce("a", {ONE: LocalWatchers(number)}) for number in (1, 1, 2, 2, 0)]
    told = {number: {ONE: b'{"count":%d,"names":[]}' % number} for number in (1, 2, 0)}
    assert news == [told[1], {}, told[2], {}, told[0]]


async def test_nothing_is_kept_of_who_has_gone(watchers: Watchers, redis: Redis, keys: Keys) -> None:
    """A conversation that nobody watches has no key."""
    await watchers.announce("a", {ONE: LocalWatchers(1, ("Ada",))})
    assert await redis.pttl(keys.watchers(ONE)) > 0
    await watchers.announce("a", {ONE: LocalWatchers(0)})
    assert not await redis.exists(keys.watchers(ONE))


async def test_watchers_of_a_silent_worker_are_dropped_and_the_rest_is_told(redis: Redis, keys: Keys) -> None:
    """As after its death: by whoever renews next, and without one by Redis itself."""
    watchers = Watchers(redis, keys, SHORT_SECONDS)
    await watchers.announce("silent", {ONE: LocalWatchers(3, ("Ada",))})

    async def is_told() -> bool:
        news = await watchers.announce("alive", {ONE: LocalWatchers(1)})
        return news.get(ONE) == b'{"count":1,"names":[]}'

    await wait_until_async(is_told, "the silent worker's watchers are dropped")

    async def is_gone() -> bool:
        return not await redis.exists(keys.watchers(ONE))

    await wait_until_async(is_gone, "the key has expired")


async def test_names_of_who_has_gone_are_forgotten_while_others_stay(
    watchers: Watchers, source: RedisSource, keys: Keys
) -> None:
    broker = make_broker(source)
    presence = Presence(watchers, broker, keys)
    with presence.watching(ONE, "Ada"):
        for number in range(3):
            with presence.watching(ONE, f"visitor {number}"), presence.watching(ONE, "Ada"):
                pass
        assert list(presence._here[ONE]) == ["Ada"]
        await presence.announce()
        assert await watchers.of(ONE) == b'{"count":1,"names":["Ada"]}'
    assert presence._here == {}
    await broker.close()
