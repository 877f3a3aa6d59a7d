"""Making the index from the disk, and finding what dead owners left undone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import pytest
from redis.asyncio import Redis

from service.catalog.catalog import Catalog
from service.catalog.index import IndexEntry
from service.catalog.keys import Keys
from service.runner.ownership import index_building
from service.runner.ownership.index_building import IndexBuilding
from service.runner.webhooks.receiver import receiver_ids
from service.runner.workers import Workers
from service.settings import Settings
from service.settings.values import WebhookSpec
from service.store.goal_record import GOAL_FILE
from service.store.layout import ConversationDirectory
from service.store.webhook_cursor import Cursor, write_cursor
from tests.held_file import HeldFile
from tests.integration.complete_index import complete
from tests.unit.store.conversation_files import make_conversation, put_event
from tests.waiting import wait_until_async

LEASE_SECONDS = 30.0
WEBHOOK = WebhookSpec.model_validate({"base_url": "http://127.0.0.1:1/"})
[RECEIVER_ID] = receiver_ids([WEBHOOK])
ACTIVE_GOAL = json.dumps({"status": {"active": True}}).encode()


@pytest.fixture
def catalog(redis: Redis, keys: Keys) -> Catalog:
    return Catalog(redis, keys, LEASE_SECONDS)


@pytest.fixture
def root(settings: Settings) -> Path:
    """Where the conversations are."""
    return settings.conversations_path


@pytest.fixture
def building(settings: Settings, catalog: Catalog) -> IndexBuilding:
    """Of a runner with one receiver of webhooks."""
    return IndexBuilding(settings.model_copy(update={"webhooks": [WEBHOOK]}), catalog, Workers())


def with_goal(root: Path, content: bytes = ACTIVE_GOAL) -> UUID:
    """A conversation with this `goal.json`."""
    directory = make_conversation(root)
    (directory.path / GOAL_FILE).write_bytes(content)
    return directory.conversation_id


def untold(root: Path) -> ConversationDirectory:
    """A conversation with an event that the receiver was not told."""
    directory = make_conversation(root)
    put_event(directory, 0)
    write_cursor(directory, RECEIVER_ID, Cursor(0), fsync=False)
    return directory


async def test_all_are_found_in_several_batches(building: IndexBuilding, catalog: Catalog, root: Path) -> None:
    """However many there are in the last."""
    goals = {with_goal(root) for _ in range(5)}
    with patch.object(index_building, "_BATCH", 2):
        assert set(await building.run()) == goals
    assert await catalog.index.count(None) == 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"status":1}'])
async def test_torn_goal_concerns_one_conversation(building: IndexBuilding, root: Path, content: bytes) -> None:
    """Nobody works for it; the others are found."""
    with_goal(root, content)
    other = with_goal(root)
    assert await building.run() == [other]


async def test_unreadable_files_concern_one_conversation(building: IndexBuilding, catalog: Catalog, root: Path) -> None:
    """There is nothing to do in it; it is in the index all the same."""
    bad, other = untold(root), untold(root)
    cursor = bad.webhooks / f"{RECEIVER_ID}.json"
    cursor.unlink()
    for path in (bad.path / GOAL_FILE, cursor):
        path.mkdir()  # read as a file it is an error
    assert await building.run() == []
    assert await catalog.untold.without_owner() == [other.conversation_id]
    assert await catalog.index.count(None) == 2


async def test_conversation_that_is_deleted_meanwhile_is_left_nowhere(
    building: IndexBuilding, catalog: Catalog, root: Path
) -> None:
    """Who deletes it has forgotten it before it was put in."""
    directory = untold(root)

    def list_too_late(path: Path) -> list[str]:
        if path == directory.events:
            shutil.rmtree(directory.path)
        return list_directory(path)

    list_directory = os.listdir
    with patch.object(os, "listdir", list_too_late):
        assert await building.run() == []
    assert await catalog.untold.without_owner() == []
    assert await catalog.index.count(None) == 0


async def test_goals_and_untold_events_are_known_again_after_redis_was_emptied(
    building: IndexBuilding, catalog: Catalog, redis: Redis, root: Path
) -> None:
    """Their owners said so once."""
    goal, receivers = with_goal(root), untold(root).conversation_id
    for _ in range(2):
        assert await building.run() == [goal]
        assert await building.run() == []
        assert await catalog.goals.without_owner() == [goal]
        assert await catalog.untold.without_owner() == [receivers]
        await redis.flushall()


async def test_only_who_makes_the_index_looks_at_the_disk(
    building: IndexBuilding, catalog: Catalog, redis: Redis, keys: Keys, root: Path
) -> None:
    """The disk would not answer anybody else."""
    await building.run()
    await redis.flushall()
    await redis.set(keys.index_building, "1", ex=60)
    with HeldFile(make_conversation(root).snapshot):
        async with asyncio.timeout(5):
            assert await building.run() == []
    await redis.delete(keys.index_building)
    assert await building.run() == []
    assert await catalog.index.count(None) == 1


@pytest.fixture
async def old_index(catalog: Catalog, root: Path) -> dict[str, UUID]:
    """An index of a while ago: of what is in it one conversation ran, one is deleted since, and one is not in it."""
    ids = {name: make_conversation(root).conversation_id for name in ("ran", "new")} | {"deleted": UUID(int=1)}
    long_ago = "2020-01-01T00:00:00Z"
    await catalog.index.put(
        [IndexEntry(ids["ran"], long_ago, long_ago, "running"), IndexEntry(ids["deleted"], long_ago, long_ago, "idle")]
    )
    await complete(catalog)
    return ids


async def test_index_of_a_redis_that_came_back_old_is_mended(
    building: IndexBuilding, catalog: Catalog, root: Path, old_index: dict[str, UUID]
) -> None:
    """By a runner that starts then, and by one that notices it later."""
    await building.run()
    assert set(await catalog.index.ids()) == {old_index["ran"], old_index["new"]}
    assert await catalog.index.running() == []
    shutil.rmtree(root / old_index["new"].hex)
    await building.run()
    assert await catalog.index.count(None) == 2  # it does not look at the disk without a reason
    building.look_again()
    await building.run()
    assert await catalog.index.ids() == [old_index["ran"]]


@pytest.mark.parametrize("is_first", [True, False])
async def test_loss_that_is_noticed_while_another_is_mended_is_mended_too(
    building: IndexBuilding, catalog: Catalog, root: Path, old_index: dict[str, UUID], *, is_first: bool
) -> None:
    """Redis comes back twice with the index of a while ago."""
    if not is_first:
        await building.run()
        building.look_again()
    with HeldFile(make_conversation(root).snapshot) as file:
        mending = asyncio.create_task(building.run())
        await wait_until_async(lambda: file.is_waited_for, "the disk is looked at")
        building.look_again()
    await mending
    stale = "2020-01-01T00:00:00Z"
    await catalog.index.put([IndexEntry(old_index["deleted"], stale, stale, "running")])
    await building.run()
    assert await catalog.index.running() == []


async def test_one_runner_is_enough_to_look_again(
    building: IndexBuilding, catalog: Catalog, redis: Redis, keys: Keys, root: Path
) -> None:
    """All notice at the same time that Redis was away."""
    await building.run()
    make_conversation(root)
    await redis.set(keys.index_building, "another", ex=60)
    building.look_again()
    await building.run()
    await redis.delete(keys.index_building)
    await building.run()
    assert await catalog.index.count(None) == 0  # that is for the other to put in


async def test_disk_without_any_conversation_takes_nothing_from_the_index(
    building: IndexBuilding, catalog: Catalog, root: Path, old_index: dict[str, UUID]
) -> None:
    """It may just not be mounted."""
    await asyncio.to_thread(root.rename, root.with_name("elsewhere"))
    await building.run()
    assert await catalog.index.count(None) == 2


@pytest.mark.parametrize("name", ["snapshot.jsonl", GOAL_FILE])
async def test_loop_does_not_wait_for_the_disk(building: IndexBuilding, root: Path, name: str) -> None:
    """However long that takes."""
    file = HeldFile(make_conversation(root).path / name)
    with file, ThreadPoolExecutor(1) as pool:
        looking = asyncio.create_task(building.run())
        is_free = pool.submit(file.release_after, asyncio.get_running_loop())
        assert await looking == []
    assert is_free.result()
