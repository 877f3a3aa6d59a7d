"""What exists and who runs it, on the embedded Redis and on a real one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from unittest.mock import patch
from uuid import UUID

import pytest
from redis.asyncio import Redis

from service.catalog import index as index_module
from service.catalog import owners as owners_module
from service.catalog import runners as runners_module
from service.catalog.catalog import Catalog
from service.catalog.cluster_runs import ClusterRuns
from service.catalog.index import IndexEntry, SortOrder
from service.catalog.keys import Keys
from service.catalog.owners import Owners
from service.catalog.runners import RunnerRecord
from service.errors import BrokerUnavailable, Unavailable
from service.identity import RunnerId
from service.pubsub.broker import Channel
from service.redis_source import RedisSource
from tests.integration.complete_index import complete
from tests.integration.listening import Listening
from tests.redis_under_test import RedisUnderTest
from tests.waiting import wait_until_async

LEASE_SECONDS = 30.0
SHORT_SECONDS = 0.05
ONE, OTHER = RunnerId("host.aaaa.1.one"), RunnerId("host.aaaa.2.other")


@pytest.fixture
def catalog(redis: Redis, keys: Keys, source: RedisSource) -> Catalog:
    return Catalog(redis, keys, LEASE_SECONDS, source.touched)


# The index


def entry(number: int, created: int = 0, updated: int = 0, status: str = "idle") -> IndexEntry:
    """Times in microseconds after the same second."""
    times = [f"2026-01-01T00:00:00.{moment:06}Z" for moment in (created, updated)]
    return IndexEntry(UUID(int=number), times[0], times[1], status)


TIED = [
    entry(1, created=5, updated=1),
    entry(2, created=5, updated=9, status="running"),
    entry(3, created=5, updated=9),
    entry(4, created=2, updated=9, status="running"),
    entry(5, created=7, updated=3),
    entry(6, created=7, updated=3, status="running"),
    entry(7, created=0, updated=0),
]


def in_order(entries: list[IndexEntry], order: SortOrder) -> list[UUID]:
    """As lists want them: by time, and those of the same time by id."""
    by_created = "CREATED" in order.value
    found = sorted(entries, key=lambda each: (each.created_at if by_created else each.updated_at, each[0].hex))
    return [each.conversation_id for each in (reversed(found) if order.value.endswith("DESC") else found)]


async def fill(catalog: Catalog, entries: list[IndexEntry]) -> None:
    """As a rebuild from a disk with these."""
    await catalog.index.put(entries)
    await complete(catalog)


async def walk(catalog: Catalog, order: SortOrder, status: str | None, limit: int) -> list[UUID]:
    """All pages, each begun where the one before says."""
    found: list[UUID] = []
    start_id: UUID | None = None
    while True:
        page = await catalog.index.page(order, status, start_id, limit)
        assert page is not None
        assert len(page.ids) <= limit
        found += page.ids
        if page.next_id is None:
            return found
        start_id = page.next_id


@pytest.mark.parametrize("order", SortOrder)
@pytest.mark.parametrize("status", [None, "running"])
async def test_pages_are_complete_in_every_order(catalog: Catalog, order: SortOrder, status: str | None) -> None:
    """Whatever the size of a page, each conversation is on one, ties included."""
    await fill(catalog, TIED)
    expected = in_order([each for each in TIED if status in (None, each.status)], order)
    with patch.object(index_module, "_CHUNK", 2):
        for limit in range(1, 9):
            assert await walk(catalog, order, status, limit) == expected


async def test_a_page_begins_with_the_conversation_asked_for(catalog: Catalog) -> None:
    """Inclusive, also when that one does not pass the filter (any more)."""
    await fill(catalog, TIED)
    page = await catalog.index.page(SortOrder.CREATED_AT, None, UUID(int=3), 2)
    assert page == ([UUID(int=3), UUID(int=5)], UUID(int=6))
    page = await catalog.index.page(SortOrder.CREATED_AT, "running", UUID(int=3), 2)
    assert page == ([UUID(int=6)], None)


@pytest.mark.parametrize("order", SortOrder)
@pytest.mark.parametrize("status", [None, "running"])
@pytest.mark.parametrize("start_id", [None, TIED[0].conversation_id])
async def test_an_incomplete_index_is_not_listed(
    catalog: Catalog, order: SortOrder, status: str | None, start_id: UUID | None
) -> None:
    """Owners put what they change in at any time, also after Redis has lost the rest."""
    await catalog.index.put(TIED)
    with pytest.raises(Unavailable):
        await catalog.index.page(order, status, start_id, 5)
    with pytest.raises(Unavailable):
        await catalog.index.count(status)


async def test_unknown_page_is_none(catalog: Catalog) -> None:
    """Not the first page."""
    await fill(catalog, [])
    assert await catalog.index.page(SortOrder.CREATED_AT, None, UUID(int=99), 5) is None
    await fill(catalog, TIED)
    assert await catalog.index.page(SortOrder.UPDATED_AT_DESC, "running", UUID(int=99), 5) is None


async def test_empty_index_has_an_empty_page(catalog: Catalog) -> None:
    """And counts nothing; putting nothing is allowed."""
    await fill(catalog, [])
    assert await catalog.index.page(SortOrder.CREATED_AT, None, None, 5) == ([], None)
    assert await catalog.index.count(None) == 0
    assert await catalog.index.count("idle") == 0


async def test_times_are_compared_as_moments(catalog: Catalog) -> None:
    """Whatever form a server wrote them in, down to the microsecond."""
    texts = ["2026-01-01T01:00:00.000002+01:00", "2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00+00:00"]
    await fill(catalog, [IndexEntry(UUID(int=number), text, text, "idle") for number, text in enumerate(texts)])
    assert await walk(catalog, SortOrder.CREATED_AT, None, 5) == [UUID(int=2), UUID(int=1), UUID(int=0)]


async def test_an_entry_is_replaced_and_counted_by_its_newest_status(catalog: Catalog) -> None:
    """A conversation is in the index once."""
    await fill(catalog, TIED)
    await catalog.index.put([entry(1, created=5, updated=99, status="finished")])
    assert await catalog.index.count(None) == 7
    counts = {status: await catalog.index.count(status) for status in ("idle", "running", "finished", "paused")}
    assert counts == {"idle": 3, "running": 3, "finished": 1, "paused": 0}
    newest = await catalog.index.page(SortOrder.UPDATED_AT_DESC, None, None, 1)
    assert newest is not None
    assert newest.ids == [UUID(int=1)]


async def test_a_removed_conversation_leaves_nothing(catalog: Catalog, redis: Redis) -> None:
    """Not in any order, not in any count, no key when it was the last."""
    await catalog.index.put(TIED[:1])
    await catalog.index.remove(TIED[0].conversation_id)
    await catalog.index.remove(UUID(int=99))
    assert await redis.keys("*") == []


# Making the index from the disk


async def test_index_is_built_once(catalog: Catalog) -> None:
    """Whoever comes later does not look at the disk."""
    assert not await catalog.index.is_complete()
    assert await catalog.index_build.run(in_batches(TIED))
    assert await catalog.index.is_complete()
    assert await catalog.index.count(None) == 7
    assert not await catalog.index_build.run(_must_not_be_read())


async def test_index_is_built_by_one_process_at_a_time(catalog: Catalog, redis: Redis, keys: Keys) -> None:
    """The others leave it to that one."""
    builds = [Catalog(redis, keys, LEASE_SECONDS).index_build for _ in range(5)]
    readers: list[int] = []

    async def batches(reader: int) -> AsyncIterator[list[IndexEntry]]:
        for batch in (TIED[:3], TIED[3:]):
            readers.append(reader)
            yield batch

    done = await asyncio.gather(*(build.run(batches(reader)) for reader, build in enumerate(builds)))

    [builder] = set(readers)
    assert [reader for reader in range(5) if done[reader]] == [builder]
    assert len(readers) == 2
    assert await catalog.index.count(None) == 7


async def test_builder_that_is_killed_is_replaced_in_time(catalog: Catalog, redis: Redis, keys: Keys) -> None:
    """Its mark runs out, and is prolonged while it is at work."""
    marks: list[int] = []

    async def watched() -> AsyncIterator[list[IndexEntry]]:
        for batch in (TIED[:3], TIED[3:]):
            marks.append(await redis.ttl(keys.index_building))
            await redis.expire(keys.index_building, 5)
            yield batch
            marks.append(await redis.ttl(keys.index_building))

    assert await catalog.index_build.run(watched())
    assert all(0 < seconds <= 60 for seconds in marks)
    assert marks[1] > 5
    assert not await redis.exists(keys.index_building)


async def test_builder_that_is_told_to_stop_is_replaced_at_once(catalog: Catalog, redis: Redis, keys: Keys) -> None:
    """As a runner is whose configuration was withdrawn, whatever it is waiting for; its mark may just be on its way."""
    for attempt in itertools.count():
        builder = asyncio.create_task(catalog.index_build.run(in_batches(TIED)))
        for _ in range(attempt // 4):  # turns of the loop; how far they get with Redis differs
            await asyncio.sleep(0)
        builder.cancel()
        await asyncio.wait([builder])
        assert await catalog.index.is_complete() or not await redis.exists(keys.index_building)
        if not builder.cancelled():
            break
    assert await catalog.index.is_complete()


async def test_builder_goes_on_under_a_mark_that_it_could_not_take_back(
    catalog: Catalog, any_redis: RedisUnderTest
) -> None:
    """Redis was away for a moment, and has it still."""

    async def batches() -> AsyncIterator[list[IndexEntry]]:
        any_redis.take_down()
        yield TIED[:3]

    with pytest.raises(BrokerUnavailable):
        await catalog.index_build.run(batches())
    any_redis.bring_back()
    assert await catalog.index_build.run(in_batches(TIED))


async def test_builder_that_fails_can_be_replaced(catalog: Catalog) -> None:
    """At once, and the index is not taken for complete."""

    async def broken() -> AsyncIterator[list[IndexEntry]]:
        yield TIED[:3]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        await catalog.index_build.run(broken())
    assert not await catalog.index.is_complete()
    assert await catalog.index_build.run(in_batches(TIED))
    assert await catalog.index.count(None) == 7


async def test_what_owners_say_during_the_build_stays(catalog: Catalog) -> None:
    """The disk was looked at before; an owner says its status once, and then only when it has changed something."""
    begun, ended = entry(1, updated=8, status="running"), entry(2, updated=9, status="finished")
    await catalog.index.put([begun, ended])
    await catalog.index.touch(UUID(int=3), entry(3, updated=7).updated_at)
    before = [entry(1), entry(2, status="running"), entry(3, status="running"), entry(4, status="running")]
    await catalog.index_build.run(in_batches(before))
    assert set(await catalog.index.running()) == {UUID(int=1), UUID(int=3), UUID(int=4)}
    assert [await catalog.index.count(status) for status in (None, "running", "finished", "idle")] == [4, 3, 1, 0]
    assert await walk(catalog, SortOrder.UPDATED_AT, None, 5) == [UUID(int=number) for number in (4, 3, 1, 2)]


async def test_order_is_that_of_the_last_changes(
    catalog: Catalog, redis: Redis, keys: Keys, source: RedisSource
) -> None:
    """Whoever is asked for it, and whatever else was said of a conversation that had been touched."""
    await fill(catalog, [entry(number, updated=number) for number in (1, 2, 3, 4)])
    for number, updated in ((1, 5), (2, 6), (3, 7), (4, 8)):
        await catalog.index.touch(UUID(int=number), entry(number, updated=updated).updated_at)
    await catalog.index.remove(UUID(int=4))
    await catalog.index.put([entry(2, updated=9, status="running")])
    another = Catalog(redis, keys, LEASE_SECONDS, source.touched)
    assert await walk(another, SortOrder.UPDATED_AT, None, 5) == [UUID(int=number) for number in (1, 3, 2)]
    await catalog.index.touch(UUID(int=1), entry(1, updated=10).updated_at)
    assert await walk(another, SortOrder.UPDATED_AT, None, 5) == [UUID(int=number) for number in (3, 2, 1)]
    assert await walk(another, SortOrder.CREATED_AT, None, 5) == [UUID(int=number) for number in (1, 2, 3)]


async def test_deleted_conversation_leaves_nothing_that_waits(catalog: Catalog, source: RedisSource) -> None:
    """Where nobody asks for the order, many would be made and deleted."""
    await fill(catalog, [entry(1), entry(2)])
    await catalog.index.touch(UUID(int=1), entry(1, updated=5).updated_at)
    await catalog.index.remove(UUID(int=1))
    assert source.touched is None or list(source.touched.take()) == [UUID(int=2).hex]


async def test_emptied_redis_has_no_index(catalog: Catalog, redis: Redis) -> None:
    """It must be built again before lists can be trusted."""
    await catalog.index_build.run(in_batches(TIED))
    await redis.flushall()
    assert not await catalog.index.is_complete()


async def test_what_the_disk_has_newer_is_taken_from_it(catalog: Catalog) -> None:
    """A Redis that came back with the data of a while ago has an index of that time."""
    await catalog.index_build.run(in_batches([entry(1), entry(2, status="running"), entry(3, updated=9)]))
    await catalog.index.add([entry(1, updated=8, status="running"), entry(2, updated=8, status="finished"), entry(3)])
    assert await catalog.index.running() == [UUID(int=1)]
    assert await catalog.index.count("finished") == 1
    assert await walk(catalog, SortOrder.UPDATED_AT, None, 5) == [UUID(int=number) for number in (1, 2, 3)]


@pytest.mark.parametrize("lost", ["index_created", "index_updated"])
async def test_index_that_lost_one_of_its_orders_is_made_again(
    catalog: Catalog, redis: Redis, keys: Keys, lost: str
) -> None:
    """As a Redis with another memory policy than is asked for may have it; an owner has said something since."""
    await catalog.index_build.run(in_batches(TIED))
    await redis.delete(getattr(keys, lost))
    await catalog.index.touch(TIED[0].conversation_id, TIED[0].updated_at)
    assert not await catalog.index.is_complete()
    assert await catalog.index_build.run(in_batches(TIED))
    assert await catalog.index.count(None) == 7
    for order in SortOrder:
        assert len(await walk(catalog, order, None, 5)) == 7


@pytest.mark.parametrize("is_another_at_it", [False, True])
@pytest.mark.parametrize("rest", [TIED[3:], []])
async def test_index_that_is_lost_during_its_build_is_not_complete(
    catalog: Catalog, redis: Redis, keys: Keys, is_another_at_it: bool, rest: list[IndexEntry]
) -> None:
    """What was put in before is missing, be it all; the next build puts all in."""

    async def interrupted() -> AsyncIterator[list[IndexEntry]]:
        yield TIED[:3]
        await redis.flushall()
        if is_another_at_it:
            await redis.set(keys.index_building, "another")
        if rest:
            yield rest

    assert not await catalog.index_build.run(interrupted())
    assert await redis.exists(keys.index_building) == is_another_at_it
    await redis.delete(keys.index_building)
    assert not await catalog.index.is_complete()
    assert await catalog.index_build.run(in_batches(TIED))
    assert await catalog.index.count(None) == 7


async def in_batches(entries: list[IndexEntry]) -> AsyncIterator[list[IndexEntry]]:
    """As they come from the disk."""
    for batch in itertools.batched(entries, 2):
        yield list(batch)


async def _must_not_be_read() -> AsyncIterator[list[IndexEntry]]:
    yield pytest.fail("somebody else builds the index")


# Runners


def record(runner_id: RunnerId, load: int = 0) -> RunnerRecord:
    return RunnerRecord(runner_id, load, {"sdk_version": "1.58.0", "pid": 7}, is_able=True)


async def test_live_runners_are_listed_by_load(catalog: Catalog) -> None:
    """What each says of itself comes with it; its newest heartbeat counts."""
    assert await catalog.runners.alive() == []
    await catalog.runners.beat(record(ONE, load=1))
    await catalog.runners.beat(record(OTHER, load=2))
    assert await catalog.runners.alive() == [record(ONE, 1), record(OTHER, 2)]
    await catalog.runners.beat(record(ONE, load=3))
    assert await catalog.runners.alive() == [record(OTHER, 2), record(ONE, 3)]


async def test_runner_that_is_not_able_is_given_nothing_new(catalog: Catalog) -> None:
    """And is asked about what it owns."""
    records = [record(ONE), record(OTHER)._replace(is_able=False)]
    for each in records:
        await catalog.runners.beat(each)
    assert await catalog.runners.able() == records[:1]
    assert await catalog.runners.alive() == records


async def test_heartbeat_says_whether_it_is_the_first(catalog: Catalog, redis: Redis) -> None:
    """A runner learns from it that Redis was emptied, or that it was silent for too long."""
    assert [await catalog.runners.beat(record(ONE)) for _ in range(3)] == [False, True, True]
    await redis.flushall()
    assert not await catalog.runners.beat(record(ONE))


async def test_silent_runner_is_dropped(catalog: Catalog, redis: Redis, keys: Keys) -> None:
    """Its heartbeat runs out, and the list is tidied on the way."""
    await catalog.runners.beat(record(OTHER))
    with patch.object(runners_module, "HEARTBEAT_TTL_SECONDS", SHORT_SECONDS):
        await catalog.runners.beat(record(ONE))

    async def is_alone() -> bool:
        return await catalog.runners.alive() == [record(OTHER)]

    await wait_until_async(is_alone, "the heartbeat has run out")
    assert await redis.zcard(keys.runners) == 1


async def test_runner_that_leaves_is_gone_at_once(catalog: Catalog, redis: Redis) -> None:
    """Nothing of it is left."""
    await catalog.runners.beat(record(ONE))
    await catalog.runners.leave(ONE)
    assert await redis.keys("*") == []


async def test_runner_is_silent_without_heartbeat_and_listener(
    catalog: Catalog, source: RedisSource, keys: Keys
) -> None:
    """Either is a sign of life: a busy process may miss heartbeats, and one may begin before the other."""
    assert await catalog.runners.is_silent(ONE)
    async with Listening(source) as listening:
        await listening.broker.subscribe(Channel(keys.inbox(ONE)))
        assert not await catalog.runners.is_silent(ONE)
        await listening.broker.unsubscribe(Channel(keys.inbox(ONE)))
    await catalog.runners.beat(record(ONE))
    assert not await catalog.runners.is_silent(ONE)
    await catalog.runners.leave(ONE)

    async def is_silent() -> bool:
        return await catalog.runners.is_silent(ONE)

    await wait_until_async(is_silent, "nobody listens any more")


# Leases

ID, SECOND_ID = UUID(int=1), UUID(int=2)


async def test_a_lease_is_held_by_the_first_to_take_it(catalog: Catalog) -> None:
    """The next one learns who holds it; taking it again holds it on."""
    owners = catalog.owners
    assert await owners.find(ID) is None
    assert await owners.acquire(ID, ONE) == ONE
    assert await owners.acquire(ID, OTHER) == ONE
    assert await owners.acquire(ID, ONE) == ONE
    assert await owners.find(ID) == ONE
    assert await owners.find(SECOND_ID) is None


async def test_holders_of_many_leases_are_found_together(catalog: Catalog) -> None:
    """Those that nobody holds are left out."""
    ids = [UUID(int=number) for number in range(5)]
    await catalog.owners.acquire(ids[1], ONE)
    await catalog.owners.acquire(ids[4], OTHER)
    with patch.object(owners_module, "_BATCH", 2):
        assert await catalog.owners.find_all(ids) == {ids[1]: ONE, ids[4]: OTHER}
        assert await catalog.owners.find_all([]) == {}


async def test_one_of_many_gets_the_lease(catalog: Catalog) -> None:
    """However many ask at once."""
    runner_ids = [RunnerId(f"runner {number}") for number in range(20)]
    holders = await asyncio.gather(*(catalog.owners.acquire(ID, runner_id) for runner_id in runner_ids))
    assert len(set(holders)) == 1


async def test_lease_of_a_dead_runner_can_be_taken(catalog: Catalog) -> None:
    """Of that one only: another may have taken it meanwhile."""
    await catalog.owners.acquire(ID, ONE)
    assert await catalog.owners.acquire(ID, OTHER, dead=RunnerId("somebody else")) == ONE
    assert await catalog.owners.acquire(ID, OTHER, dead=ONE) == OTHER
    assert await catalog.owners.acquire(ID, ONE, dead=ONE) == OTHER


async def test_lease_runs_out(redis: Redis, keys: Keys) -> None:
    """An owner that is gone does not hold it for ever."""
    owners = Owners(redis, keys, SHORT_SECONDS)
    await owners.acquire(ID, ONE)

    async def is_free() -> bool:
        return await owners.find(ID) is None

    await wait_until_async(is_free, "the lease has run out")


async def test_renewing_holds_leases_for_another_term(catalog: Catalog, redis: Redis, keys: Keys) -> None:
    """Those that Redis has lost are taken again; none is lost."""
    await catalog.owners.acquire(ID, ONE)
    await redis.pexpire(keys.owner(ID), 5000)
    assert await catalog.owners.renew([ID, SECOND_ID], ONE) == []
    assert await catalog.owners.find(SECOND_ID) == ONE
    assert all([await redis.pttl(keys.owner(each)) > 20_000 for each in (ID, SECOND_ID)])
    assert await catalog.owners.renew([], ONE) == []


async def test_renewing_takes_nothing_from_the_next_owner(catalog: Catalog) -> None:
    """A runner that was held up learns which conversations it has lost."""
    await catalog.owners.acquire(ID, OTHER)
    assert await catalog.owners.renew([SECOND_ID, ID], ONE) == [ID]
    assert await catalog.owners.find(ID) == OTHER


async def test_lease_is_given_back_by_its_holder_only(catalog: Catalog) -> None:
    """A deposed owner that closes late must not take it from its successor."""
    await catalog.owners.acquire(ID, ONE)
    await catalog.owners.release(ID, OTHER)
    assert await catalog.owners.find(ID) == ONE
    await catalog.owners.release(ID, ONE)
    await catalog.owners.release(ID, ONE)
    assert await catalog.owners.find(ID) is None


# Run slots


async def test_runs_of_the_deployment_are_limited(catalog: Catalog) -> None:
    """A slot comes free when it is given back; a conversation holds one, however often it asks."""
    slots = catalog.cluster_runs
    ids = [UUID(int=number) for number in range(3)]
    assert [await slots.take(each, 2) for each in (ids[0], ids[1], ids[2], ids[0])] == [True, True, False, True]
    await slots.give_back(ids[0])
    await slots.give_back(ids[0])
    assert await slots.take(ids[2], 2)


async def test_slot_that_is_not_renewed_comes_back(redis: Redis, keys: Keys) -> None:
    """A runner that died holds none."""
    slots = ClusterRuns(redis, keys, 0.2)
    assert await slots.take(ID, 1)
    assert not await slots.take(SECOND_ID, 1)

    async def is_taken_over() -> bool:
        return await slots.take(SECOND_ID, 1)

    await wait_until_async(is_taken_over, "the slot has come back")


async def test_renewed_slots_are_held(redis: Redis, keys: Keys) -> None:
    """Also when the limit is lower by now."""
    await ClusterRuns(redis, keys, SHORT_SECONDS).take(ID, 5)
    slots = ClusterRuns(redis, keys, LEASE_SECONDS)
    await slots.renew([ID, SECOND_ID])
    assert not await slots.take(UUID(int=3), 2)


# Activity


async def test_activity_is_the_last_one_anywhere(catalog: Catalog) -> None:
    """Unix time; None before the first."""
    assert await catalog.activity.last_at() is None
    before = time.time()
    await catalog.activity.note()
    noted = await catalog.activity.last_at()
    assert noted is not None
    assert before <= noted <= time.time()


# Without Redis

CALLS: dict[str, Callable[[Catalog], Awaitable[object]]] = {
    "index.put": lambda catalog: catalog.index.put(TIED),
    "index.add": lambda catalog: catalog.index.add(TIED),
    "index.remove": lambda catalog: catalog.index.remove(ID),
    "index.count": lambda catalog: catalog.index.count(None),
    "index.count of a status": lambda catalog: catalog.index.count("idle"),
    "index.page": lambda catalog: catalog.index.page(SortOrder.CREATED_AT, None, None, 5),
    "index.page from an id": lambda catalog: catalog.index.page(SortOrder.CREATED_AT_DESC, None, ID, 5),
    "index.is_complete": lambda catalog: catalog.index.is_complete(),
    "index_build.run": lambda catalog: catalog.index_build.run(in_batches(TIED)),
    "runners.beat": lambda catalog: catalog.runners.beat(record(ONE)),
    "runners.leave": lambda catalog: catalog.runners.leave(ONE),
    "runners.alive": lambda catalog: catalog.runners.alive(),
    "runners.is_silent": lambda catalog: catalog.runners.is_silent(ONE),
    "owners.find": lambda catalog: catalog.owners.find(ID),
    "owners.find_all": lambda catalog: catalog.owners.find_all([ID]),
    "owners.acquire": lambda catalog: catalog.owners.acquire(ID, ONE),
    "owners.renew": lambda catalog: catalog.owners.renew([ID], ONE),
    "owners.release": lambda catalog: catalog.owners.release(ID, ONE),
    "cluster_runs.take": lambda catalog: catalog.cluster_runs.take(ID, 1),
    "cluster_runs.renew": lambda catalog: catalog.cluster_runs.renew([ID]),
    "cluster_runs.give_back": lambda catalog: catalog.cluster_runs.give_back(ID),
    "activity.note": lambda catalog: catalog.activity.note(),
    "activity.last_at": lambda catalog: catalog.activity.last_at(),
}


async def test_without_redis_every_call_raises_the_one_error(catalog: Catalog, any_redis: RedisUnderTest) -> None:
    """The driver's errors do not get past the catalog, and all is well again afterwards."""
    any_redis.take_down()
    outcomes = await asyncio.gather(*(call(catalog) for call in CALLS.values()), return_exceptions=True)
    assert {name: type(outcome) for name, outcome in zip(CALLS, outcomes, strict=True)} == dict.fromkeys(
        CALLS, BrokerUnavailable
    )
    any_redis.bring_back()
    await complete(catalog)
    for call in CALLS.values():
        await call(catalog)


async def test_deployments_on_one_redis_do_not_see_each_other(catalog: Catalog, source: RedisSource) -> None:
    """The namespace is part of every key."""
    redis = RedisSource(source.url, "another", source.embedded).commands()
    theirs = Catalog(redis, Keys("another"), LEASE_SECONDS)
    await catalog.index.put(TIED)
    await complete(catalog)
    await catalog.runners.beat(record(ONE))
    await catalog.owners.acquire(ID, ONE)
    await catalog.cluster_runs.take(ID, 1)
    await catalog.activity.note()
    try:
        assert not await theirs.index.is_complete()
        assert await theirs.index.running() == []
        assert await theirs.runners.alive() == []
        assert await theirs.owners.find(ID) is None
        assert await theirs.activity.last_at() is None
    finally:
        await redis.aclose()
