"""One runner, in this process: what it keeps doing whatever else it is at."""

from __future__ import annotations

from redis.asyncio import Redis

from service.catalog.catalog import Catalog
from service.catalog.keys import Keys
from service.redis_source import RedisSource
from service.runner.process import running_runner
from service.settings import Settings
from tests.held_file import HeldFile
from tests.unit.store.conversation_files import make_conversation
from tests.waiting import wait_until_async


async def test_heartbeat_does_not_wait_for_the_index(
    settings: Settings, source: RedisSource, redis: Redis, keys: Keys
) -> None:
    """While the disk is looked at, the runner shows that it lives; then lists can be trusted."""
    settings = settings.model_copy(update={"redis_namespace": source.namespace, "enable_vscode": False})
    index = Catalog(redis, keys, settings.lease_ttl_seconds).index
    with HeldFile(make_conversation(settings.conversations_path).snapshot, b"") as file:
        async with running_runner(settings, source) as runner_id:
            for _ in range(2):
                await redis.delete(keys.runner(runner_id))
                await wait_until_async(lambda: redis.exists(keys.runner(runner_id)), "the next heartbeat")
            assert not await index.is_complete()
            file.release()
            await wait_until_async(index.is_complete, "the index is complete")
    assert await index.count(None) == 1
