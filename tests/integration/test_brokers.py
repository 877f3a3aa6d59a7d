"""What every broker promises (`service.pubsub.broker`), on the embedded server and on a real one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from unittest.mock import patch
from uuid import UUID

import pytest
from redis.asyncio import Redis

from service import redis_source
from service.catalog.keys import Keys
from service.errors import BrokerUnavailable
from service.identity import UNKNOWN_STREAM_EPOCH
from service.pubsub import embedded_broker
from service.pubsub.broker import Channel, Unconfirmed
from service.pubsub.envelope import Envelope, Kind, encode
from service.pubsub.hub import Hub
from service.redis_source import RedisSource
from tests.faults.owner import stopped
from tests.integration.listening import Listening, make_broker
from tests.redis_process import RedisProcess
from tests.redis_under_test import RedisUnderTest
from tests.waiting import wait_until_async

ID = UUID(int=5)
NEWS, OTHER = Channel("under-test:events:1"), Channel("under-test:events:2")
LIMIT_BYTES = 10_000

WITH_CONNECTIONS = pytest.mark.parametrize("any_redis", ["redis-server"], indirect=True)
"""Within a process no connection can break, and none is waited for."""


@pytest.fixture
async def listening(source: RedisSource, stack: AsyncExitStack) -> Listening:
    """A broker that is listened to."""
    return await stack.enter_async_context(Listening(source))


async def test_messages_arrive_in_the_order_of_publishing(listening: Listening) -> None:
    """On one channel, whether published one by one or several at once."""
    await listening.broker.subscribe(NEWS)
    numbers = [b"%d" % number for number in range(60)]
    for number in numbers[:20]:
        await listening.broker.publish([(NEWS, number)])
    await listening.broker.publish([(NEWS, number) for number in numbers[20:]])
    await listening.receives(60)
    assert listening.payloads == numbers


async def test_any_bytes_arrive_as_they_are(listening: Listening) -> None:
    """Nothing is decoded on the way."""
    payloads = [b"", bytes(range(256)), b"x" * 1_000_000]
    await listening.broker.subscribe(NEWS)
    await listening.broker.publish([(NEWS, payload) for payload in payloads])
    await listening.receives(3)
    assert listening.payloads == payloads


async def test_publish_tells_how_many_receive_each_message(
    listening: Listening, source: RedisSource, stack: AsyncExitStack
) -> None:
    """Nobody, one or several: how a caller learns that a runner is gone."""
    second = await stack.enter_async_context(Listening(source))
    await listening.broker.subscribe(NEWS)
    await listening.broker.subscribe(OTHER)
    await second.broker.subscribe(OTHER)
    nobody = Channel("under-test:events:3")
    assert await listening.broker.publish([(OTHER, b"a"), (nobody, b"b"), (NEWS, b"c")]) == [2, 0, 1]
    assert await listening.broker.publish([(nobody, b"d")]) == [0]


async def test_subscribe_returns_when_messages_will_be_received(
    listening: Listening, source: RedisSource, stack: AsyncExitStack
) -> None:
    """Whoever publishes right after it, on another connection, is heard."""
    publisher = make_broker(source)
    stack.push_async_callback(publisher.close)
    channels = [Channel(f"under-test:events:{number}") for number in range(40)]
    for channel in channels:
        await listening.broker.subscribe(channel)
        assert await publisher.publish([(channel, b"x")]) == [1]
    await listening.receives(40)
    assert [channel for channel, _ in listening.messages] == channels


@WITH_CONNECTIONS
async def test_subscribe_waits_for_the_confirmation(source: RedisSource, stack: AsyncExitStack) -> None:
    """That the command was sent is not enough: Redis may read other connections first."""
    broker = make_broker(source)
    stack.push_async_callback(broker.close)
    subscribing = asyncio.create_task(broker.subscribe(NEWS))

    async def is_subscribed() -> bool:
        return await broker.publish([(NEWS, b"x")]) == [1]

    await wait_until_async(is_subscribed, "Redis has seen the command")
    assert not subscribing.done(), "nobody has read the confirmation yet"
    deliveries = aiter(broker.deliveries())
    assert await anext(deliveries) == (NEWS, b"x")
    await subscribing


async def test_subscriptions_that_begin_at_once_all_receive(listening: Listening) -> None:
    """The listener and every subscriber find no connection yet, and must end up on the same one."""
    channels = [Channel(f"under-test:events:{number}") for number in range(5)]
    await asyncio.gather(*(listening.broker.subscribe(channel) for channel in channels))
    assert await listening.broker.publish([(channel, b"x") for channel in channels]) == [1] * 5
    await listening.receives(5)


async def test_subscribing_is_possible_while_messages_come(listening: Listening) -> None:
    """The reader and a subscriber share a connection without disturbing each other."""
    await listening.broker.subscribe(NEWS)

    async def publish() -> None:
        for _ in range(100):
            await listening.broker.publish([(NEWS, b"x")])

    async def subscribe() -> None:
        for number in range(20):
            await listening.broker.subscribe(Channel(f"under-test:more:{number}"))

    await asyncio.gather(publish(), subscribe())
    await listening.receives(100)
    assert listening.reconnections == 0


async def test_unsubscribed_channel_is_silent(listening: Listening) -> None:
    """Nobody receives on it any more; the others go on."""
    await listening.broker.subscribe(NEWS)
    await listening.broker.subscribe(OTHER)
    await listening.broker.unsubscribe(NEWS)

    async def receivers() -> bool:
        return await listening.broker.publish([(NEWS, b"x")]) == [0]

    await wait_until_async(receivers, "nobody receives on the channel")
    await listening.broker.publish([(OTHER, b"last")])
    await wait_until_async(lambda: (OTHER, b"last") in listening.messages, "the other channel goes on")


async def test_channel_can_be_subscribed_again(listening: Listening) -> None:
    """A conversation is watched, left and watched again."""
    for _ in range(3):
        await listening.broker.subscribe(NEWS)
        await listening.broker.unsubscribe(NEWS)
    await listening.broker.subscribe(NEWS)
    await listening.broker.publish([(NEWS, b"x")])
    await listening.receives(1)


async def test_cancelled_subscription_disturbs_nobody(listening: Listening) -> None:
    """A client may go away at any moment of it."""
    await listening.broker.subscribe(NEWS)
    for turns in range(8):
        task = asyncio.create_task(listening.broker.subscribe(OTHER))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await listening.broker.subscribe(OTHER)
        assert await listening.broker.publish([(NEWS, b"x"), (OTHER, b"y")]) == [1, 1]
    await listening.receives(16)
    assert listening.reconnections == 0


async def test_deployments_on_one_redis_do_not_hear_each_other(
    listening: Listening, source: RedisSource, stack: AsyncExitStack
) -> None:
    """The namespace is part of every channel."""
    channels = [Channel(Keys(namespace).events(ID)) for namespace in (source.namespace, "another")]
    await listening.broker.subscribe(channels[0])
    assert await listening.broker.publish([(channels[1], b"theirs"), (channels[0], b"ours")]) == [0, 1]
    await listening.receives(1)
    assert listening.payloads == [b"ours"]


async def test_closing_ends_the_subscriptions(source: RedisSource, stack: AsyncExitStack) -> None:
    """Nothing of a broker is left on Redis."""
    publisher = make_broker(source)
    stack.push_async_callback(publisher.close)
    async with Listening(source) as listening:
        await listening.broker.subscribe(NEWS)
        assert await publisher.publish([(NEWS, b"x")]) == [1]

    async def receivers() -> bool:
        return await publisher.publish([(NEWS, b"x")]) == [0]

    await wait_until_async(receivers, "the subscription has ended")


# Outages


@WITH_CONNECTIONS
async def test_publishing_without_a_broker_fails_with_one_error(
    listening: Listening, any_redis: RedisUnderTest
) -> None:
    """The driver's own error stays the cause."""
    await listening.broker.publish([(NEWS, b"x")])
    any_redis.take_down()
    for messages in ([(NEWS, b"x")], [(NEWS, b"x"), (OTHER, b"y")]):
        with pytest.raises(BrokerUnavailable) as raised:
            await listening.broker.publish(messages)
        assert raised.value.__cause__ is not None
    any_redis.bring_back()


@WITH_CONNECTIONS
async def test_publication_that_was_sent_and_not_answered_is_unconfirmed(
    source: RedisSource, any_redis: RedisUnderTest, redis_process: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still be made; one that found no connection is not."""
    monkeypatch.setattr(redis_source, "_COMMAND_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setitem(redis_source._OPTIONS, "socket_connect_timeout", 0.2)
    async with Listening(source) as listening:
        await listening.broker.subscribe(NEWS)
        await listening.broker.publish([(NEWS, b"before")])
        with stopped(redis_process.process.pid):
            with pytest.raises(Unconfirmed):
                await listening.broker.publish([(NEWS, b"sent")])
            with pytest.raises(BrokerUnavailable) as raised:
                await listening.broker.publish([(NEWS, b"not sent")])
            assert type(raised.value) is BrokerUnavailable
        await listening.broker.publish([(NEWS, b"after")])
        await listening.receives(3)
        assert listening.payloads == [b"before", b"sent", b"after"]


@WITH_CONNECTIONS
async def test_publication_that_redis_refuses_is_not_made(
    source: RedisSource, any_redis: RedisUnderTest, redis_process: RedisProcess
) -> None:
    """And the next one gets its own answer, not one that was still to come."""
    user = ["resetchannels", f"&{NEWS}", "on", "nopass", "+@all"]
    redis_process.client.execute_command("ACL", "SETUSER", "narrow", *user)  # type: ignore[no-untyped-call]
    async with Listening(RedisSource(source.url and source.url.replace("//", "//narrow:@"), "under-test")) as listening:
        await listening.broker.publish([(NEWS, b"x")])
        with pytest.raises(BrokerUnavailable) as raised:
            await listening.broker.publish([(OTHER, b"x"), (NEWS, b"y"), (NEWS, b"z")])
        assert type(raised.value) is BrokerUnavailable
        assert await listening.broker.publish([(NEWS, b"x")] * 3) == [0, 0, 0]


@WITH_CONNECTIONS
async def test_after_an_outage_everything_works_at_once(listening: Listening, any_redis: RedisUnderTest) -> None:
    """The first publication after it succeeds, and subscriptions made before it receive."""
    for channel in (NEWS, OTHER):
        await listening.broker.subscribe(channel)
    await listening.broker.publish([(NEWS, b"before")])
    await listening.receives(1)
    any_redis.take_down()
    with pytest.raises(BrokerUnavailable):
        await listening.broker.publish([(NEWS, b"during")])
    any_redis.bring_back()
    if await listening.broker.publish([(NEWS, b"early")]) == [0]:
        await listening.reconnects()
        listening.messages.clear()
        assert await listening.broker.publish([(NEWS, b"news"), (OTHER, b"other")]) == [1, 1]
        await listening.receives(2)


async def test_outage_that_nobody_noticed_costs_nothing(source: RedisSource, any_redis: RedisUnderTest) -> None:
    """Idle connections that Redis has closed meanwhile are not used again."""
    redis = source.commands()
    try:
        await asyncio.gather(*(redis.get("under-test:activity") for _ in range(5)))
        any_redis.take_down()
        for _ in range(10):  # for the loop to see that the connections are closed
            await asyncio.sleep(0)
        any_redis.bring_back()
        for _ in range(5):
            await redis.get("under-test:activity")
        await asyncio.gather(*(redis.get("under-test:activity") for _ in range(5)))
    finally:
        await redis.aclose()


@WITH_CONNECTIONS
async def test_listener_that_starts_during_an_outage_reconnects(source: RedisSource, any_redis: RedisUnderTest) -> None:
    """Subscribing fails, is made up for when Redis is back, and readers are told to look at the log."""
    any_redis.take_down()
    async with Listening(source) as listening:
        with pytest.raises(BrokerUnavailable):
            await listening.broker.subscribe(NEWS)
        any_redis.bring_back()
        await listening.reconnects()
        assert await listening.broker.publish([(NEWS, b"x")]) == [1]
        await listening.receives(1)


@WITH_CONNECTIONS
async def test_hub_without_a_broker_yields_a_lagging_reader(source: RedisSource, any_redis: RedisUnderTest) -> None:
    """It lives off the log meanwhile, and is told to look again when the broker is back."""
    any_redis.take_down()
    broker = make_broker(source)
    async with Hub(broker) as hub:
        async with hub.subscribe(NEWS, LIMIT_BYTES) as reader:
            assert reader.take() == []
            assert reader.take_lagging()
            any_redis.bring_back()
            await wait_until_async(reader.take_lagging, "the reader is told to look again")
            await broker.publish([(NEWS, encode(Envelope(Kind.TRANSIENT, 3, UNKNOWN_STREAM_EPOCH, b"{}")))])
            await wait_until_async(lambda: reader.backlog_bytes, "what is published arrives")
            assert [arrival.envelope.seq for arrival in reader.take()] == [3]
    await broker.close()


async def test_hub_has_one_subscription_for_all_its_readers(
    source: RedisSource, keys: Keys, stack: AsyncExitStack
) -> None:
    """However many watch, an event is sent to this process once, and not at all when the last has left."""
    channel = Channel(keys.events(ID))
    broker = make_broker(source)
    stack.push_async_callback(broker.close)
    news = [(channel, encode(Envelope(Kind.DURABLE, 0, UNKNOWN_STREAM_EPOCH, b"{}")))]

    async with Hub(broker, linger_seconds=0) as hub:
        async with AsyncExitStack() as readers:
            subscribers = [await readers.enter_async_context(hub.subscribe(channel, LIMIT_BYTES)) for _ in range(10)]
            assert await broker.publish(news) == [1]
            assert all([await subscriber.wait(5) for subscriber in subscribers])
            assert len({id(arrival) for subscriber in subscribers for arrival in subscriber.take()}) == 1

        async def is_given_up() -> bool:
            return await broker.publish(news) == [0]

        await wait_until_async(is_given_up, "the channel is given up")


# What only a real connection does


async def _kill_subscribing_connections(process: RedisProcess) -> None:
    redis = Redis.from_url(process.url)
    try:
        await redis.client_kill_filter(_type="pubsub")
    finally:
        await redis.aclose()


async def test_broken_connection_is_made_anew_with_all_its_channels(redis_process: RedisProcess) -> None:
    """As when Redis throws out a reader that is too slow; it shows once, when nothing is missed any more."""
    source = RedisSource(redis_process.url, "under-test")
    async with Listening(source) as listening:
        for channel in (NEWS, OTHER):
            await listening.broker.subscribe(channel)
        await _kill_subscribing_connections(redis_process)
        await listening.reconnects()
        assert await listening.broker.publish([(NEWS, b"x"), (OTHER, b"y")]) == [1, 1]
        await listening.receives(2)
        assert listening.reconnections == 1


async def test_subscriber_may_come_while_the_connection_is_broken(redis_process: RedisProcess) -> None:
    """Whoever notices first makes the new one; all channels end up on it."""
    source = RedisSource(redis_process.url, "under-test")
    async with Listening(source) as listening:
        await listening.broker.subscribe(NEWS)
        await _kill_subscribing_connections(redis_process)
        channels = [Channel(f"under-test:late:{number}") for number in range(5)]
        await asyncio.gather(*(listening.broker.subscribe(channel) for channel in channels), return_exceptions=True)
        await listening.reconnects()

        async def all_receive() -> bool:
            return await listening.broker.publish([(channel, b"x") for channel in (NEWS, *channels)]) == [1] * 6

        await wait_until_async(all_receive, "every channel is subscribed")


def test_redis_server_may_be_reached_by_unix_socket() -> None:
    """Its connections take no TCP options."""
    source = RedisSource("unix:///nowhere/redis.sock", "under-test")
    for client in (source.commands(), source.listener()):
        connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        assert connection.path == "/nowhere/redis.sock"


# What only the embedded one does


async def test_loop_that_is_far_behind_is_told_that_it_has_lost_something() -> None:
    """What waits for it is bounded, and what comes afterwards arrives."""
    async with Listening(RedisSource(None, "under-test")) as listening:
        await listening.broker.subscribe(NEWS)
        with patch.object(embedded_broker, "_BACKLOG_LIMIT_BYTES", 10):
            await listening.broker.publish([(NEWS, b"12345"), (NEWS, b"67890"), (NEWS, b"news"), (NEWS, b"more")])
        await listening.receives(2)
        assert (listening.payloads, listening.reconnections) == ([b"news", b"more"], 1)


async def test_messages_cross_threads() -> None:
    """A runner in a thread of its own publishes to the web role's loop, in order."""
    source = RedisSource(None, "under-test")
    numbers = [b"%d" % number for number in range(200)]

    async def publish() -> list[int]:
        broker = make_broker(source)
        return [(await broker.publish([(NEWS, number)]))[0] for number in numbers]

    async with Listening(source) as listening:
        await listening.broker.subscribe(NEWS)
        assert set(await asyncio.to_thread(asyncio.run, publish())) == {1}
        await listening.receives(len(numbers))
        assert listening.payloads == numbers


async def test_loop_that_has_ended_does_not_count_as_a_receiver() -> None:
    """As a caller learns that a runner is gone, however its thread ended."""
    source = RedisSource(None, "under-test")

    async def listen() -> None:
        await make_broker(source).subscribe(NEWS)

    await asyncio.to_thread(asyncio.run, listen())
    broker = make_broker(source)
    assert [await broker.publish([(NEWS, b"x")]) for _ in range(2)] == [[0], [0]]
