"""One runner, in this process: what it keeps doing whatever else it is at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service.catalog.catalog import Catalog
from service.catalog.index import RUNNING, IndexEntry
from service.catalog.keys import Keys
from service.identity import RunnerId
from service.pubsub.broker import Channel
from service.redis_source import RedisSource
from service.runner.process import running_runner
from service.settings import Settings
from tests.held_file import HeldFile
from tests.integration.listening import Listening
from tests.shortages import assert_own_threads_go_on, no_more_descriptors
from tests.unit.runner.rig import Rig, ScriptedLLM
from tests.unit.store.conversation_files import make_conversation
from tests.waiting import wait_until_async

LEASE_SECONDS = 600.0
OTHER = RunnerId("elsewhere.aaaaaaaa.1.other")
RUNS = 200


@pytest.fixture
def settings(settings: Settings, source: RedisSource) -> Settings:
    """Of a runner on the Redis under test."""
    return settings.model_copy(update={"redis_namespace": source.namespace, "enable_vscode": False})


@pytest.fixture
def catalog(settings: Settings, redis: Redis, keys: Keys) -> Catalog:
    return Catalog(redis, keys, settings.lease_ttl_seconds)


async def test_heartbeat_does_not_wait_for_the_index(
    settings: Settings, source: RedisSource, redis: Redis, keys: Keys, catalog: Catalog
) -> None:
    """While the disk is looked at, the runner shows that it lives; then lists can be trusted."""
    index = catalog.index
    with HeldFile(make_conversation(settings.conversations_path).snapshot) as file:
        async with running_runner(settings, source) as runner_id:
            for _ in range(2):
                await redis.delete(keys.runner(runner_id))
                await wait_until_async(lambda: redis.exists(keys.runner(runner_id)), "the next heartbeat")
            assert not await index.is_complete()
            file.release()
            await wait_until_async(index.is_complete, "the index is complete")
    assert await index.count(None) == 1


def as_running(conversation_id: UUID) -> list[IndexEntry]:
    now = datetime.now(UTC).isoformat()
    return [IndexEntry(conversation_id, now, now, RUNNING)]


def left_running(root: Path) -> UUID:
    """A conversation that nobody owns, with nothing left to do in it."""
    directory = Rig(root).create(ScriptedLLM.of()).directory
    directory.owner.unlink()
    return directory.conversation_id


async def wait_owner(catalog: Catalog, conversation_id: UUID, runner_id: RunnerId) -> None:
    async def is_owned() -> bool:
        return await catalog.owners.find(conversation_id) == runner_id

    await wait_until_async(is_owned, "the conversation is taken over")


async def test_unreadable_owner_keeps_nobody_from_being_taken_over(
    settings: Settings, source: RedisSource, catalog: Catalog, tmp_path: Path
) -> None:
    """Its conversation waits for somebody to look; the next one is opened."""
    bad, other = make_conversation(settings.conversations_path), left_running(tmp_path)
    bad.owner.touch()
    async with running_runner(settings, source) as runner_id:
        with capture_logs() as lines:
            await catalog.index.put(as_running(bad.conversation_id))
            await wait_until_async(lambda: [line for line in lines if "exc_info" in line], "it was tried in vain")
        await catalog.index.put(as_running(other))
        await wait_owner(catalog, other, runner_id)


async def test_runner_goes_on_where_the_machine_gives_no_more_threads(settings: Settings, source: RedisSource) -> None:
    async with running_runner(settings, source):
        await assert_own_threads_go_on()


async def test_runner_without_descriptors_is_given_nothing_new(
    settings: Settings, source: RedisSource, catalog: Catalog
) -> None:
    """Until it has some again."""

    async def is_able() -> bool:
        return bool(await catalog.runners.able())

    async def is_only_alive() -> bool:
        return not await is_able() and bool(await catalog.runners.alive())

    async with running_runner(settings, source):
        await wait_until_async(is_able, "it is able")
        with no_more_descriptors():
            await wait_until_async(is_only_alive, "it says that it is not")
        await wait_until_async(is_able, "it is able again")


async def test_slow_conversation_delays_no_other(
    settings: Settings, source: RedisSource, catalog: Catalog, tmp_path: Path
) -> None:
    """What comes while it is being opened is opened beside it."""
    slow, other = make_conversation(settings.conversations_path), left_running(tmp_path)
    async with running_runner(settings, source) as runner_id:
        with HeldFile(slow.meta) as file:
            await catalog.index.put(as_running(slow.conversation_id))
            await wait_until_async(lambda: file.is_waited_for, "it is being opened")
            await catalog.index.put(as_running(other))
            await wait_owner(catalog, other, runner_id)


@pytest.mark.parametrize("any_redis", ["redis-server"], indirect=True)
async def test_runs_of_a_living_runner_are_asked_about_together(
    settings: Settings, source: RedisSource, redis: Redis, keys: Keys
) -> None:
    """However many there are, a look at them is a few commands."""
    catalog = Catalog(redis, keys, LEASE_SECONDS)
    ids = [make_conversation(settings.conversations_path).conversation_id for _ in range(RUNS)]
    for conversation_id in ids:
        await catalog.owners.acquire(conversation_id, OTHER)
        await catalog.index.put(as_running(conversation_id))

    async def calls(command: str = "") -> int:
        statistics = await redis.info("commandstats")
        return sum(each["calls"] for name, each in statistics.items() if name.startswith(f"cmdstat_{command}"))

    async with Listening(source) as listening, running_runner(settings, source):
        await listening.broker.subscribe(Channel(keys.inbox(OTHER)))
        await wait_until_async(catalog.index.is_complete, "the index is complete")
        looks, before = await calls("smembers"), await calls()

        async def has_looked() -> bool:
            return await calls("smembers") > looks + 3

        await wait_until_async(has_looked, "the runner has looked for what runs")
        assert await calls() - before < RUNS
        assert set((await catalog.owners.find_all(ids)).values()) == {OTHER}
