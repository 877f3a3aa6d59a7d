"""The record of a deferred start, on both kinds of Redis."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from service.catalog.init_record import Initialization, InitRecord
from service.catalog.keys import Keys


@pytest.fixture
def initialization(redis: Redis, keys: Keys) -> Initialization:
    return Initialization(redis, keys)


async def test_from_proposed_to_ready(initialization: Initialization) -> None:
    record = InitRecord.new(b"\x00sealed")
    assert await initialization.read() is None
    assert await initialization.propose(record, 5.0)
    assert await initialization.read() == record
    await initialization.started(record)
    assert await initialization.read() == record._replace(is_started=True)
    assert await initialization.keep(record)
    assert await initialization.read() == record._replace(is_started=True, is_ready=True)


async def test_there_is_one_at_a_time(initialization: Initialization) -> None:
    first, second = InitRecord.new(b"1"), InitRecord.new(b"2")
    assert await initialization.propose(first, 5.0)
    assert not await initialization.propose(second, 5.0)
    assert not await initialization.keep(second)
    await initialization.failed(second, "not asked")
    assert await initialization.read() == first


async def test_failure_is_kept_when_it_is_withdrawn(initialization: Initialization) -> None:
    record, next_one = InitRecord.new(b"1"), InitRecord.new(b"2")
    await initialization.propose(record, 5.0)
    await initialization.failed(record, "no disk")
    assert await initialization.read() == record._replace(failure="no disk")
    await initialization.withdraw(record, "no disk")
    assert await initialization.read() is None
    assert await initialization.last_failure() == "no disk"
    assert await initialization.propose(next_one, 5.0)
    await initialization.withdraw(record, "too late")
    assert await initialization.read() == next_one
    await initialization.forget_failure()
    assert await initialization.last_failure() is None


async def test_what_redis_forgot_is_put_back_by_who_is_ready(initialization: Initialization, redis: Redis) -> None:
    record = InitRecord.new(b"1")
    await initialization.propose(record, 5.0)
    await initialization.keep(record)
    await redis.flushall()
    await initialization.started(record)
    assert await initialization.read() is None
    assert await initialization.keep(record)
    assert await initialization.read() == record._replace(is_ready=True)


async def test_it_is_forgotten_when_nobody_gets_ready(initialization: Initialization, redis: Redis, keys: Keys) -> None:
    record = InitRecord.new(b"1")
    await initialization.propose(record, 5.0)
    assert 0 < await redis.pttl(keys.init) <= 5_000
    await initialization.started(record)
    assert 0 < await redis.pttl(keys.init) <= 5_000
    await initialization.keep(record)
    assert await redis.pttl(keys.init) > 50_000
