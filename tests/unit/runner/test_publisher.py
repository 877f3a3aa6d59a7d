"""From the threads that append to the broker: in order, without making them wait, with a bound."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from unittest.mock import patch

import pytest

from service.pubsub.broker import Channel
from service.runner import publisher as publisher_module
from service.runner.publisher import Publisher
from tests.unit.pubsub.memory_broker import MemoryBroker
from tests.waiting import wait_until_async

NEWS = Channel("t:events:1")


@pytest.fixture(autouse=True)
def _impatient() -> Iterator[None]:
    """A failed publication is repeated at once."""
    with patch.object(publisher_module, "_RETRY_SECONDS", 0):
        yield


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[None]:
    """The publisher's task, for the length of the block."""
    task = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def payloads(broker: MemoryBroker) -> list[bytes]:
    return [data for _, data in broker.published]


async def published(broker: MemoryBroker, count: int) -> None:
    await wait_until_async(lambda: len(broker.published) >= count, f"{count} messages are published")


async def test_messages_are_published_in_order(broker: MemoryBroker) -> None:
    """However many there are at once, and from whichever thread."""
    publisher = Publisher(broker)

    def put() -> None:
        for number in numbers(1000):
            publisher.put(NEWS, number)

    async with running(publisher):
        thread = threading.Thread(target=put)
        thread.start()
        await published(broker, 1000)
        thread.join()
    assert payloads(broker) == numbers(1000)


async def test_one_round_trip_carries_a_bounded_number(broker: MemoryBroker) -> None:
    """A long queue does not become one giant command."""
    publisher = Publisher(broker)
    sizes: list[int] = []
    publish = broker.publish

    async def note_size(messages: list[tuple[Channel, bytes]]) -> list[int]:
        sizes.append(len(messages))
        return await publish(messages)

    for number in numbers(600):
        publisher.put(NEWS, number)
    with patch.object(broker, "publish", note_size):
        async with running(publisher):
            await published(broker, 600)
    assert sizes == [256, 256, 88]


async def test_nothing_is_lost_while_the_broker_is_away(broker: MemoryBroker) -> None:
    """What could not be published stays first in the queue."""
    publisher = Publisher(broker)
    broker.is_away = True
    async with running(publisher):
        publisher.put(NEWS, b"0")
        await asyncio.sleep(0)
        for number in numbers(5)[1:]:
            publisher.put(NEWS, number)
            await asyncio.sleep(0)
        assert broker.published == []
        broker.is_away = False
        await published(broker, 5)
    assert payloads(broker) == numbers(5)


async def test_queue_without_a_broker_is_bounded(broker: MemoryBroker) -> None:
    """The oldest go: readers have the log."""
    publisher = Publisher(broker)
    with patch.object(publisher_module, "_QUEUE_LIMIT_BYTES", 5):
        for number in numbers(9):
            publisher.put(NEWS, number)
    async with running(publisher):
        await published(broker, 5)
    assert payloads(broker) == numbers(9)[4:]


async def test_room_in_the_queue_comes_back(broker: MemoryBroker) -> None:
    """What is published no longer counts."""
    publisher = Publisher(broker)
    with patch.object(publisher_module, "_QUEUE_LIMIT_BYTES", 5):
        async with running(publisher):
            for round_number in range(1, 4):
                for number in numbers(5):
                    publisher.put(NEWS, number)
                await published(broker, 5 * round_number)
    assert payloads(broker) == numbers(5) * 3


async def test_what_is_taken_back_counts_again(broker: MemoryBroker) -> None:
    """A broker that is away for long does not make the queue outgrow its bound."""
    publisher = Publisher(broker)
    broker.is_away = True
    with patch.multiple(publisher_module, _QUEUE_LIMIT_BYTES=5, _RETRY_SECONDS=600):
        publisher.put(NEWS, b"abc")
        async with running(publisher):
            for _ in range(10):
                await asyncio.sleep(0)
            publisher.put(NEWS, b"def")
            broker.is_away = False
            await publisher.flush()
    assert payloads(broker) == [b"def"]


async def test_flush_publishes_what_waits(broker: MemoryBroker) -> None:
    """At the end of a runner, without its task."""
    publisher = Publisher(broker)
    for number in numbers(300):
        publisher.put(NEWS, number)
    await publisher.flush()
    assert payloads(broker) == numbers(300)


async def test_flush_does_not_wait_for_an_absent_broker(broker: MemoryBroker) -> None:
    """The runner must end."""
    publisher = Publisher(broker)
    publisher.put(NEWS, b"0")
    broker.is_away = True
    async with asyncio.timeout(5):
        await publisher.flush()
    assert broker.published == []


async def test_what_cannot_be_made_holds_nothing_up(broker: MemoryBroker) -> None:
    """Neither what is in its batch nor what comes later."""
    publisher = Publisher(broker)

    def make() -> bytes:
        raise ValueError

    async with running(publisher):
        publisher.put(NEWS, make, b"0")
        await published(broker, 1)
        publisher.put(NEWS, *[make] * 256, b"1")
        await published(broker, 2)
    assert payloads(broker) == numbers(2)


async def test_publishing_goes_on_after_an_unexpected_error(broker: MemoryBroker) -> None:
    """Whoever runs it again need not wait for news: what waits is more than one round trip carries."""
    publisher = Publisher(broker)
    for number in numbers(600):
        publisher.put(NEWS, number)
    with patch.object(broker, "publish", side_effect=RuntimeError), pytest.raises(RuntimeError):
        await publisher.run()
    async with running(publisher):
        await published(broker, 344)
    assert payloads(broker) == numbers(600)[256:]  # readers have the log for the rest
