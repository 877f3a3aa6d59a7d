"""Both kinds of Redis, and what is made on them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from service.catalog.keys import Keys
from service.redis_source import RedisSource
from tests.redis_process import RedisProcess
from tests.redis_under_test import EmbeddedRedis, RealRedis, RedisUnderTest, leaks

NAMESPACE = "under-test"


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """One `redis-server` for each worker process of the test run."""
    if shutil.which("redis-server") is None:
        reason = "redis-server is not installed (scripts/install_test_packages.sh installs it)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture(params=["embedded", "redis-server"])
def any_redis(request: pytest.FixtureRequest) -> Iterator[RedisUnderTest]:
    """Each kind in turn, empty."""
    if request.param == "embedded":
        yield EmbeddedRedis(NAMESPACE)
        return
    process: RedisProcess = request.getfixturevalue("redis_process")
    # A test may have taken it down, or have had servers of its own on it.
    if not process.process.is_running:
        process.start()
    process.client.flushall()
    yield RealRedis(process, NAMESPACE)


@pytest.fixture
async def key_leak(any_redis: RedisUnderTest) -> AsyncIterator[None]:
    """Fails the test that leaves a key outside of the namespace, in no documented row, or with another kind or TTL."""
    yield
    assert await leaks(any_redis.source) == []


@pytest.fixture
def source(any_redis: RedisUnderTest, key_leak: None) -> RedisSource:
    """Where the code under test gets its clients."""
    return any_redis.source


@pytest.fixture
async def redis(source: RedisSource) -> AsyncIterator[Redis]:
    """A client to look behind the catalog."""
    client = source.commands()
    yield client
    await client.aclose()


@pytest.fixture
def keys(source: RedisSource) -> Keys:
    """The names of the deployment under test."""
    return Keys(source.namespace)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Lets go, at the end of the test, of what the test has entered."""
    async with AsyncExitStack() as stack:
        yield stack
