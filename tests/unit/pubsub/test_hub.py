"""Local fan-out: one subscription per channel, a bounded backlog per reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from service.identity import UNKNOWN_STREAM_EPOCH
from service.pubsub.broker import Channel
from service.pubsub.envelope import Envelope, Kind, encode
from service.pubsub.hub import Arrival, Hub, Subscriber
from tests.unit.pubsub.memory_broker import MemoryBroker
from tests.unit.pubsub.memory_log import durable
from tests.waiting import wait_until_async

NEWS = Channel("t:events:1")
OTHER = Channel("t:events:2")
LIMIT_BYTES = 1000


def message(seq: int, payload: bytes = b"{}") -> bytes:
    """One event as it is published."""
    return encode(Envelope(Kind.DURABLE, seq, UNKNOWN_STREAM_EPOCH, payload))


async def taken(subscriber: Subscriber) -> list[int]:
    """The seqs of what comes next."""
    await subscriber.wait(5)
    return [arrival.envelope.seq for arrival in subscriber.take()]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def hub(broker: MemoryBroker) -> AsyncIterator[Hub]:
    """A hub that gives up a channel as soon as nobody reads it."""
    async with Hub(broker, linger_seconds=0) as hub:
        yield hub


# A reader's backlog


def test_backlog_is_taken_in_order_of_arrival() -> None:
    """What was offered first is taken first, and once."""
    subscriber = Subscriber(LIMIT_BYTES)
    for seq in range(3):
        subscriber.offer(durable(seq))
    assert [arrival.envelope.seq for arrival in subscriber.take()] == [0, 1, 2]
    assert subscriber.take() == []


def test_backlog_is_bounded_in_bytes() -> None:
    """What does not fit throws all of it away, and the reader learns that it lags, once."""
    subscriber = Subscriber(backlog_limit_bytes=20)
    sizes = []
    for seq in range(3):
        subscriber.offer(durable(seq))
        sizes.append(subscriber.backlog_bytes)
    assert sizes == [9, 18, 0]
    assert subscriber.take() == []
    assert subscriber.take_lagging()
    assert not subscriber.take_lagging()


def test_backlog_that_is_just_full_is_kept() -> None:
    """The limit itself is allowed."""
    subscriber = Subscriber(backlog_limit_bytes=18)
    subscriber.offer(durable(0))
    subscriber.offer(durable(1))
    assert len(subscriber.take()) == 2
    assert subscriber.backlog_bytes == 0
    assert not subscriber.take_lagging()


def test_arrivals_after_a_loss_are_kept() -> None:
    """A lagging reader is not cut off from what comes next."""
    subscriber = Subscriber(backlog_limit_bytes=20)
    for seq in range(4):
        subscriber.offer(durable(seq))
    assert [arrival.envelope.seq for arrival in subscriber.take()] == [3]


async def test_wait_ends_with_news_of_either_kind() -> None:
    """An arrival ends it, a loss ends it, and silence ends it in time."""
    subscriber = Subscriber(LIMIT_BYTES)
    assert not await subscriber.wait(0)
    subscriber.offer(durable(0))
    assert await subscriber.wait(5)
    subscriber.take()
    assert not await subscriber.wait(0)
    subscriber.miss()
    assert await subscriber.wait(5)


def test_frame_is_built_once_for_all_readers() -> None:
    """However many sockets ask, the work is done once for each way of building."""
    built = []

    def build(envelope: Envelope) -> bytes:
        built.append(envelope.seq)
        return b"frame"

    arrival = Arrival(Envelope(Kind.DURABLE, 7, UNKNOWN_STREAM_EPOCH, b"{}"))
    assert [arrival.frame(build) for _ in range(3)] == [b"frame"] * 3
    assert arrival.frame(lambda envelope: envelope.payload) == b"{}"
    assert built == [7]


# The hub


async def test_readers_of_a_channel_share_one_subscription(hub: Hub, broker: MemoryBroker) -> None:
    """Every reader gets the very same arrival; the broker is asked once."""
    async with AsyncExitStack() as stack:
        readers = await asyncio.gather(
            *(stack.enter_async_context(hub.subscribe(NEWS, LIMIT_BYTES)) for _ in range(5)),
        )
        broker.deliver(NEWS, message(0))
        for reader in readers:
            await reader.wait(5)
        arrivals = {id(arrival) for reader in readers for arrival in reader.take()}
    assert broker.subscribed == [NEWS]
    assert len(arrivals) == 1


async def test_what_arrives_together_is_handed_over_together(hub: Hub, broker: MemoryBroker) -> None:
    """A reader that waits is called once; each channel has its own."""
    taken: list[list[int]] = []

    def take(arrivals: Sequence[Arrival]) -> bool:
        taken.append([arrival.envelope.seq for arrival in arrivals])
        return True

    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader, hub.subscribe(OTHER, LIMIT_BYTES):
        waiting = asyncio.create_task(reader.wait(60, take))
        await asyncio.sleep(0)
        for seq in range(3):
            broker.deliver(NEWS, message(seq))
            broker.deliver(OTHER, message(seq))
        await wait_until_async(lambda: taken, "the reader is called")
        waiting.cancel()
    assert taken == [[0, 1, 2]]


async def test_reader_that_fails_is_alone_with_it(hub: Hub, broker: MemoryBroker) -> None:
    """It is told to look at the log; the others go on, and so does the hub."""

    def fail(arrivals: Sequence[Arrival]) -> bool:
        raise ZeroDivisionError

    async with hub.subscribe(NEWS, LIMIT_BYTES) as failing, hub.subscribe(NEWS, LIMIT_BYTES) as reader:
        waiting = asyncio.create_task(failing.wait(60, fail))
        await asyncio.sleep(0)
        with capture_logs() as logs:
            broker.deliver(NEWS, message(0))
            assert await taken(reader) == [0]
            assert await waiting
        assert failing.take_lagging()
        assert [(log["event"], log["exc_info"]) for log in logs] == [("reader_failed", True)]
        broker.deliver(NEWS, message(1))
        assert await taken(reader) == await taken(failing) == [1]
    assert hub.is_listening


async def test_readers_get_only_their_channel(hub: Hub, broker: MemoryBroker) -> None:
    """Two conversations on one worker do not mix."""
    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader, hub.subscribe(OTHER, LIMIT_BYTES) as other:
        broker.deliver(OTHER, message(1))
        broker.deliver(NEWS, message(2))
        assert await taken(reader) == [2]
        assert await taken(other) == [1]


async def test_slow_reader_does_not_touch_the_others(hub: Hub, broker: MemoryBroker) -> None:
    """Publishers never wait: one reader's full backlog is its own loss."""
    async with hub.subscribe(NEWS, 10) as slow, hub.subscribe(NEWS, LIMIT_BYTES) as reader:
        for seq in range(3):
            broker.deliver(NEWS, message(seq, b"12345678"))
        assert await taken(reader) == [0, 1, 2]
        assert slow.take_lagging()
        assert not reader.take_lagging()


async def test_unreadable_message_is_skipped(hub: Hub, broker: MemoryBroker) -> None:
    """A newer version's message stops nobody."""
    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader:
        broker.deliver(NEWS, b"?")
        broker.deliver(NEWS, message(3))
        assert await taken(reader) == [3]
    assert hub.is_listening


async def test_channel_without_readers_is_given_up_after_the_linger(hub: Hub, broker: MemoryBroker) -> None:
    """Nothing grows with the conversations that were once watched."""
    async with hub.subscribe(NEWS, LIMIT_BYTES), hub.subscribe(NEWS, LIMIT_BYTES):
        assert hub.channels == [NEWS]
    await wait_until_async(lambda: broker.unsubscribed == [NEWS], "the channel is given up")
    await wait_until_async(lambda: hub.channels == [], "the hub has forgotten it")
    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader:
        broker.deliver(NEWS, message(0))
        assert await taken(reader) == [0]
    assert broker.subscribed == [NEWS, NEWS]


async def test_reader_that_comes_back_within_the_linger_finds_the_channel_open(broker: MemoryBroker) -> None:
    """A client that reconnects costs the broker nothing."""
    async with Hub(broker, linger_seconds=60) as hub:
        for _ in range(3):
            async with hub.subscribe(NEWS, LIMIT_BYTES):
                assert hub.channels == [NEWS]
        assert hub.channels == [NEWS]
    assert broker.subscribed == [NEWS]
    assert broker.unsubscribed == []


async def test_reader_that_joins_keeps_the_channel_open(hub: Hub, broker: MemoryBroker) -> None:
    """The last one out closes it, not the first."""
    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader:
        async with hub.subscribe(NEWS, LIMIT_BYTES):
            pass
        async with hub.subscribe(OTHER, LIMIT_BYTES):
            pass
        await wait_until_async(lambda: broker.unsubscribed, "the other channel's linger is over")
        broker.deliver(NEWS, message(0))
        assert await taken(reader) == [0]
    assert broker.unsubscribed == [OTHER]


@pytest.mark.parametrize("turns", range(8))
async def test_reader_that_comes_back_at_any_moment_receives(hub: Hub, broker: MemoryBroker, turns: int) -> None:
    """Also while the channel is just being given up."""
    async with hub.subscribe(NEWS, LIMIT_BYTES):
        pass
    for _ in range(turns):
        await asyncio.sleep(0)
    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader:
        for _ in range(8):
            await asyncio.sleep(0)
        broker.deliver(NEWS, message(0))
        assert await taken(reader) == [0]


async def test_reader_that_gives_up_while_subscribing_leaves_nothing(hub: Hub, broker: MemoryBroker) -> None:
    """A cancelled client's channel is given up like any other."""

    async def read() -> None:
        async with hub.subscribe(NEWS, LIMIT_BYTES):
            raise AssertionError("it was cancelled before")

    task = asyncio.create_task(read())
    await wait_until_async(lambda: broker.subscribed, "it is subscribing")
    task.cancel()
    await asyncio.wait([task])
    await wait_until_async(lambda: broker.unsubscribed == [NEWS], "the channel is given up")
    assert hub.channels == []


async def test_reader_lags_when_the_broker_is_away(hub: Hub, broker: MemoryBroker) -> None:
    """No error: it lives off the log, and gets what is published once the broker is back."""
    broker.is_away = True
    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader:
        assert reader.take() == []
        assert reader.take_lagging()
        broker.come_back()
        await reader.wait(5)
        assert reader.take_lagging()
        reader.take()
        broker.deliver(NEWS, message(4))
        assert await taken(reader) == [4]


async def test_every_reader_lags_after_a_reconnection(hub: Hub, broker: MemoryBroker) -> None:
    """What was published meanwhile is lost, on all channels."""
    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader, hub.subscribe(OTHER, LIMIT_BYTES) as other:
        assert not reader.take_lagging()
        broker.come_back()
        await reader.wait(5)
        assert reader.take_lagging()
        assert other.take_lagging()


async def test_giving_up_a_channel_survives_an_absent_broker(hub: Hub, broker: MemoryBroker) -> None:
    """The hub goes on, and the channel can be read again."""
    async with hub.subscribe(NEWS, LIMIT_BYTES):
        broker.is_away = True
    await wait_until_async(lambda: broker.unsubscribed == [NEWS], "it tried to give up the channel")
    broker.is_away = False
    async with hub.subscribe(NEWS, LIMIT_BYTES) as reader:
        broker.deliver(NEWS, message(0))
        assert await taken(reader) == [0]


async def test_hub_leaves_no_task_behind(broker: MemoryBroker) -> None:
    """Its end ends the listener and whatever it was about to do."""
    before = asyncio.all_tasks()
    async with Hub(broker, linger_seconds=60) as hub, hub.subscribe(NEWS, LIMIT_BYTES):
        pass
    assert not hub.is_listening
    assert asyncio.all_tasks() == before
