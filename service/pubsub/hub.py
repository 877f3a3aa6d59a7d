"""Local fan-out: one broker subscription per channel and process, however many readers it has here.

Every reader of a channel gets the same `Arrival`, so an envelope is decoded once and a frame built once. What arrived
together is handed over together, so that a socket is written to once. A reader that waits and keeps up takes it at
once, without waking a task, which costs more than the write. Any other is handed arrivals through a backlog bounded in
bytes; when that is full the backlog is thrown away and the reader is marked as lagging: it goes on from the log at its
own pace (`service.pubsub.feed`). Publishers never wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Self

import structlog

from service.errors import BrokerUnavailable
from service.metrics import metrics
from service.pubsub.broker import Broker, Channel, Reconnected
from service.pubsub.envelope import Envelope, MalformedEnvelope, decode
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

LINGER_SECONDS = 5.0
"""How long a channel without readers stays subscribed: a client that reconnects or polls comes back within this."""


class Arrival:
    """One envelope on its way to sockets, with the frames built from it so far."""

    __slots__ = ("_frames", "envelope")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self._frames: dict[Callable[[Envelope], bytes], bytes] = {}

    def frame(self, build: Callable[[Envelope], bytes]) -> bytes:
        """What `build` makes of the envelope; built once per arrival, however many sockets ask."""
        built = self._frames.get(build)
        if built is None:
            built = self._frames[build] = build(self.envelope)
        return built


TakeAtOnce = Callable[[Sequence[Arrival]], bool]
"""How a waiting reader takes arrivals, all of them or none; False when it cannot now, and is to be woken for them."""


class Subscriber:
    """One local reader, and its backlog: published, not yet taken."""

    def __init__(self, backlog_limit_bytes: int) -> None:
        self._limit_bytes = backlog_limit_bytes
        self._arrivals: deque[Arrival] = deque()
        self._backlog_bytes = 0
        self._news = asyncio.Event()
        self._is_lagging = False
        self._take_at_once: TakeAtOnce | None = None
        self._backlogs_dropped = metrics().backlogs_dropped

    @property
    def backlog_bytes(self) -> int:
        """Payload bytes waiting here, at most the limit."""
        return self._backlog_bytes

    def offer(self, *arrivals: Arrival) -> bool:
        """Hand over what has arrived; True when the reader has taken it at once.

        Else it is added to the backlog, or all of that is dropped and the reader lags when it does not fit.
        """
        if self._take_at_once is not None:
            if self._take_at_once(arrivals):
                return True
            self._take_at_once = None  # the next must not overtake these
        size = sum([len(arrival.envelope.payload) for arrival in arrivals])
        if self._backlog_bytes + size > self._limit_bytes:
            self._backlogs_dropped.inc()
            self.miss()
            return False
        self._arrivals.extend(arrivals)
        self._backlog_bytes += size
        self._news.set()
        return False

    def miss(self) -> None:
        """Note that something was lost: the reader must look at the log."""
        self._arrivals.clear()
        self._backlog_bytes = 0
        self._take_at_once = None
        self._is_lagging = True
        self._news.set()

    def take(self) -> list[Arrival]:
        """Everything waiting, oldest first."""
        taken = list(self._arrivals)
        self._arrivals.clear()
        self._backlog_bytes = 0
        self._news.clear()
        return taken

    def take_lagging(self) -> bool:
        """Whether arrivals were lost since the last call."""
        was_lagging, self._is_lagging = self._is_lagging, False
        return was_lagging

    async def wait(self, timeout_seconds: float, take_at_once: TakeAtOnce | None = None) -> bool:
        """Until something waits or was lost; False when the time was over first.

        Args:
            take_at_once: is called for what arrives until then, as long as it takes it. There must be no backlog.
        """
        if not self._news.is_set():
            self._take_at_once = take_at_once
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._news.wait()
        except TimeoutError:
            return False
        finally:
            self._take_at_once = None


class _Topic:
    """A channel with its readers in this process."""

    def __init__(self) -> None:
        self.subscribers: set[Subscriber] = set()
        self.arrived: list[Arrival] = []
        """What was received and is not handed over yet."""
        self.subscribed = asyncio.Lock()
        self.is_subscribed = False
        self.unsubscribe_timer: asyncio.TimerHandle | None = None


class Hub:
    """Use as `async with`; the broker is its own while it lasts, and is closed by whoever made it."""

    def __init__(self, broker: Broker, linger_seconds: float = LINGER_SECONDS) -> None:
        self._broker = broker
        self._linger_seconds = linger_seconds
        self._topics: dict[Channel, _Topic] = {}
        self._tasks = TaskSet()
        self._running: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._topics_with_news: list[_Topic] = []
        self._deliveries = metrics().deliveries

    async def __aenter__(self) -> Self:
        self._running = [
            self._tasks.start(self._listen(), "hub-listener"),
            self._tasks.start(self._hand_over(), "hub-fan-out"),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for topic in self._topics.values():
            if topic.unsubscribe_timer is not None:
                topic.unsubscribe_timer.cancel()
        await self._tasks.stop()

    @property
    def is_listening(self) -> bool:
        """Whether its tasks live; without them nothing is ever delivered."""
        return bool(self._running) and not any(task.done() for task in self._running)

    @property
    def channels(self) -> list[Channel]:
        """The channels subscribed to now, lingering ones included."""
        return [channel for channel, topic in self._topics.items() if topic.is_subscribed]

    @property
    def backlog_bytes(self) -> int:
        """Payload bytes that wait for readers here."""
        return sum(subscriber.backlog_bytes for topic in self._topics.values() for subscriber in topic.subscribers)

    @asynccontextmanager
    async def subscribe(self, channel: Channel, backlog_limit_bytes: int) -> AsyncIterator[Subscriber]:
        """A reader of `channel` for the length of the block; what is published from its start on arrives.

        A broker that cannot be reached is no error here: the reader starts lagging and lives off the log until the
        broker is back.
        """
        topic = self._topics.setdefault(channel, _Topic())
        subscriber = Subscriber(backlog_limit_bytes)
        topic.subscribers.add(subscriber)
        if topic.unsubscribe_timer is not None:
            topic.unsubscribe_timer.cancel()
            topic.unsubscribe_timer = None
        try:
            await self._ensure_subscribed(channel, topic, subscriber)
            yield subscriber
        finally:
            topic.subscribers.discard(subscriber)
            if not topic.subscribers:
                loop = asyncio.get_running_loop()
                topic.unsubscribe_timer = loop.call_later(self._linger_seconds, self._leave, channel, topic)

    async def _ensure_subscribed(self, channel: Channel, topic: _Topic, subscriber: Subscriber) -> None:
        async with topic.subscribed:
            if topic.is_subscribed:
                return
            try:
                await self._broker.subscribe(channel)
            except BrokerUnavailable:
                _log.warning("subscribe_failed", channel=channel)
                subscriber.miss()
            topic.is_subscribed = True  # in any case: the broker makes up for a failure when it is back

    def _leave(self, channel: Channel, topic: _Topic) -> None:
        self._tasks.start(self._unsubscribe(channel, topic), f"unsubscribe {channel}")

    async def _unsubscribe(self, channel: Channel, topic: _Topic) -> None:
        async with topic.subscribed:
            if topic.subscribers:
                return
            if self._topics.get(channel) is topic:
                del self._topics[channel]
            topic.is_subscribed = False
            try:
                await self._broker.unsubscribe(channel)
            except BrokerUnavailable:
                _log.warning("unsubscribe_failed", channel=channel)

    async def _listen(self) -> None:
        async for delivery in self._broker.deliveries():
            if isinstance(delivery, Reconnected):
                self._recheck_all()
            else:
                self._receive(delivery.channel, delivery.data)

    def _recheck_all(self) -> None:
        for topic in self._topics.values():
            for subscriber in topic.subscribers:
                subscriber.miss()

    def _receive(self, channel: Channel, message: bytes) -> None:
        topic = self._topics.get(channel)
        if topic is None:
            return
        try:
            arrival = Arrival(decode(message))
        except MalformedEnvelope as error:
            _log.warning("malformed_envelope", channel=channel, error=str(error))
            return
        if not topic.arrived:
            self._topics_with_news.append(topic)
            self._news.set()
        topic.arrived.append(arrival)

    async def _hand_over(self) -> None:
        """Once the listener has taken all that a broker had at hand."""
        while True:
            await self._news.wait()
            self._news.clear()
            topics, self._topics_with_news = self._topics_with_news, []
            for topic in topics:
                arrivals, topic.arrived = topic.arrived, []
                taken = _offer_all(topic.subscribers, arrivals)
                if taken:
                    self._deliveries.inc(taken * len(arrivals))


def _offer_all(subscribers: Iterable[Subscriber], arrivals: Sequence[Arrival]) -> int:
    """How many have taken them at once. One who fails with it lags: it meets the log, and its error, by itself."""
    taken = 0
    for subscriber in subscribers:
        try:
            taken += subscriber.offer(*arrivals)
        except Exception:  # noqa: BLE001  supervisor: one reader's bug must not stop the others
            _log.exception("reader_failed")
            subscriber.miss()
    return taken
