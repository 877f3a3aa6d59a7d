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
from service.redis_source import RedisSource
from service.runner.process import running_runner
from service.settings import Settings
from tests.held_file import HeldFile
from tests.unit.runner.rig import Rig, ScriptedLLM
from tests.unit.store.conversation_files import make_conversation
from tests.waiting import wait_until_async


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
    with HeldFile(make_conversation(settings.conversations_path).snapshot, b"") as file:
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

        async def is_owned() -> bool:
            return await catalog.owners.find(other) == runner_id

        await wait_until_async(is_owned, "the other is taken over")
