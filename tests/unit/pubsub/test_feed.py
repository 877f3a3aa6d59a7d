"""A stream without holes, whatever happens between the log and the reader."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.identity import UNKNOWN_STREAM_EPOCH, StreamEpoch
from service.pubsub import feed
from service.pubsub.envelope import Envelope, Kind
from service.pubsub.feed import ConversationGone, Feed, LogBehind, Verdict, judge
from service.pubsub.hub import Arrival, Subscriber
from tests.unit.pubsub.memory_log import EPOCH, MemoryLog, deleted, durable, payload_of, transient
from tests.waiting import wait_until_async

PLENTY_BYTES = 1 << 20


IMPATIENT = patch.object(feed, "POSITION_CHECK_SECONDS", 0)
"""The feed looks at the log whenever nothing comes."""


@pytest.fixture(autouse=True)
def _times() -> Iterator[None]:
    """Without news the feed does nothing, and it looks again at once for what was published."""
    with patch.multiple(feed, POSITION_CHECK_SECONDS=600, _LOG_LAG_RETRY_SECONDS=0):
        yield


# What to do with one arrival


@pytest.mark.parametrize("position", range(-1, 4))
@pytest.mark.parametrize("seq", range(6))
def test_durable_is_delivered_only_as_the_next(position: int, seq: int) -> None:
    """One seq on is the next, what is behind was seen, and what is further on shows a gap."""
    expected = {True: Verdict.SKIP, False: Verdict.FILL_GAP}[seq <= position]
    if seq == position + 1:
        expected = Verdict.DELIVER
    assert judge(position, Envelope(Kind.DURABLE, seq, EPOCH, b"{}")) is expected


@pytest.mark.parametrize("position", range(-1, 4))
@pytest.mark.parametrize("seq", range(-1, 6))
def test_transient_waits_for_the_durable_before_it(position: int, seq: int) -> None:
    """It goes out once everything published before it has."""
    expected = Verdict.DELIVER if seq <= position else Verdict.FILL_GAP
    assert judge(position, Envelope(Kind.TRANSIENT, seq, EPOCH, b"{}")) is expected


# A feed


@dataclass
class Reader:
    """Follows a log and keeps what it is handed."""

    log: MemoryLog
    after: int = -1
    backlog_bytes: int = PLENTY_BYTES
    received: list[Arrival] = field(default_factory=list)
    resyncs: int = 0
    keeps_up: bool = False
    """Whether it takes at once what it can."""

    def __post_init__(self) -> None:
        self.subscriber = Subscriber(self.backlog_bytes)
        self.feed = Feed(self.log, self.subscriber, self.after, self._take_at_once)

    def _take_at_once(self, arrivals: Sequence[Arrival]) -> bool:
        if self.keeps_up:
            self.received += arrivals
        return self.keeps_up

    async def follow(self) -> None:
        """Until something is raised, or this is cancelled."""
        async with aclosing(self.feed.batches()) as batches:  # type: ignore[type-var]
            async for batch in batches:
                await asyncio.sleep(0)  # as a socket may be slow to take it
                self.received += batch
                self.resyncs += not batch

    async def reaches(self, seq: int) -> None:
        """Wait until it has the event at `seq`."""
        await wait_until_async(
            lambda: max(self.seqs, default=self.after) >= seq, f"the reader is at {seq}", timeout_seconds=5
        )

    @property
    def seqs(self) -> list[int]:
        """The durable events received, in order."""
        return [each.envelope.seq for each in self.received if each.envelope.kind is Kind.DURABLE]

    @property
    def outline(self) -> list[str]:
        """Everything received: `3` is the event at 3, `~3` a transient after it."""
        mark = {Kind.DURABLE: "", Kind.TRANSIENT: "~"}
        return [f"{mark[each.envelope.kind]}{each.envelope.seq}" for each in self.received]


@asynccontextmanager
async def following(reader: Reader) -> AsyncIterator[Reader]:
    """The reader follows for the length of the block."""
    task = asyncio.create_task(reader.follow())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_history_comes_first() -> None:
    """A reader starts with what the log holds after its position."""
    async with following(Reader(MemoryLog(length=5), after=1)) as reader:
        await reader.reaches(4)
    assert reader.seqs == [2, 3, 4]


async def test_history_longer_than_one_read_is_complete() -> None:
    """The log hands out a few events at a time."""
    async with following(Reader(MemoryLog(length=25, batch_events=4))) as reader:
        await reader.reaches(24)
    assert reader.seqs == list(range(25))


async def test_what_is_published_while_history_is_read_comes_once() -> None:
    """An event both in the log and in the backlog is delivered from one of them."""
    async with following(Reader(MemoryLog(length=3))) as reader:
        for seq in (1, 2, 3):
            reader.subscriber.offer(durable(seq))
        reader.log.append()
        await reader.reaches(3)
    assert reader.seqs == [0, 1, 2, 3]


async def test_gap_is_filled_from_the_log() -> None:
    """A lost message is read before the one that shows its loss."""
    async with following(Reader(MemoryLog(length=1))) as reader:
        await reader.reaches(0)
        for _ in range(4):
            reader.log.append()
        reader.subscriber.offer(durable(1))
        reader.subscriber.offer(durable(4))
        await reader.reaches(4)
    assert reader.seqs == [0, 1, 2, 3, 4]


@IMPATIENT
async def test_silent_broker_only_costs_time() -> None:
    """Without any message the log is looked at anyway."""
    async with following(Reader(MemoryLog(length=1))) as reader:
        await reader.reaches(0)
        reader.log.append()
        await reader.reaches(1)
    assert reader.seqs == [0, 1]


async def test_arrival_is_handed_on_as_it_came() -> None:
    """A frame that was built for another reader is not built again."""
    arrival = durable(0)
    async with following(Reader(MemoryLog())) as reader:
        reader.subscriber.offer(arrival)
        await reader.reaches(0)
    assert reader.received == [arrival]


async def test_reader_that_keeps_up_takes_what_is_next_without_its_task() -> None:
    """Once it has the history; what is not next wakes the task, and nothing overtakes that."""
    async with following(Reader(MemoryLog(length=1), keeps_up=True)) as reader:
        await reader.reaches(0)
        await wait_until_async(lambda: reader.subscriber.offer(transient(0)), "the reader waits")
        assert reader.subscriber.offer(durable(reader.log.append()))
        reader.log.append()
        assert not reader.subscriber.offer(durable(reader.log.append()))
        assert not reader.subscriber.offer(durable(reader.log.append()))
        await reader.reaches(4)
    assert reader.seqs == [0, 1, 2, 3, 4]


async def test_reader_that_keeps_up_takes_together_what_came_together() -> None:
    """All or nothing: with one among them that is not next, its task sorts them out."""
    async with following(Reader(MemoryLog(length=1), keeps_up=True)) as reader:
        await reader.reaches(0)
        await wait_until_async(lambda: reader.subscriber.offer(transient(0)), "the reader waits")
        one, two = (durable(reader.log.append()) for _ in range(2))
        assert reader.subscriber.offer(one, transient(1), two)
        three, four = (durable(reader.log.append()) for _ in range(2))
        assert not reader.subscriber.offer(four, three)
        await reader.reaches(4)
    assert reader.seqs == [0, 1, 2, 3, 4]


async def test_nothing_overtakes_what_the_reader_could_not_take() -> None:
    """What was declined waits for the task, and so does everything after it."""
    async with following(Reader(MemoryLog(length=1))) as reader:
        await reader.reaches(0)
        reader.keeps_up = True
        await wait_until_async(lambda: reader.subscriber.offer(transient(0, 0)), "the reader waits")
        reader.keeps_up = False
        assert not reader.subscriber.offer(transient(0, 1))
        reader.keeps_up = True
        assert not reader.subscriber.offer(transient(0, 2))
        await wait_until_async(lambda: len(reader.received) == 4, "everything came")
    assert [each.envelope.payload[-2:-1] for each in reader.received[1:]] == [b"0", b"1", b"2"]


async def test_transient_after_a_lost_durable_waits_for_it() -> None:
    """What an event says comes before what was said after it."""
    async with following(Reader(MemoryLog(length=1))) as reader:
        await reader.reaches(0)
        reader.log.append()
        reader.subscriber.offer(transient(0))
        reader.subscriber.offer(transient(1))
        await wait_until_async(lambda: len(reader.received) == 4, "everything came")
    assert reader.outline == ["0", "~0", "1", "~1"]


async def test_lagging_reader_is_told_after_it_caught_up() -> None:
    """Transients may be lost then, so an empty batch asks for a fresh state."""
    reader = Reader(MemoryLog(length=3), backlog_bytes=20)
    for seq in (0, 1, 2):
        reader.subscriber.offer(durable(seq))
    async with following(reader):
        await wait_until_async(lambda: reader.resyncs, "the reader was told")
    assert reader.seqs == [0, 1, 2]
    assert reader.resyncs == 1


async def test_reader_that_keeps_up_is_not_told_to_resync() -> None:
    """An empty batch means a loss and nothing else."""
    async with following(Reader(MemoryLog(length=2))) as reader:
        reader.subscriber.offer(transient(1))
        await wait_until_async(lambda: len(reader.received) == 3, "everything came")
    assert reader.resyncs == 0


async def test_event_published_before_it_is_readable_is_waited_for() -> None:
    """On a network disk another host may see a file a moment later."""
    async with following(Reader(MemoryLog(length=1))) as reader:
        await reader.reaches(0)
        reader.log.append()
        reader.log.append()
        reader.log.hidden = 5
        reader.subscriber.offer(durable(2))
        await reader.reaches(2)
    assert reader.seqs == [0, 1, 2]


async def test_log_that_stays_behind_ends_the_feed() -> None:
    """The reader learns where it stands and what was published."""
    reader = Reader(MemoryLog(length=1))
    reader.subscriber.offer(durable(4))
    with patch.object(feed, "_LOG_LAG_LIMIT_SECONDS", 0), pytest.raises(LogBehind) as raised:
        await reader.follow()
    assert (raised.value.position, raised.value.published_seq) == (0, 3)
    assert reader.seqs == [0]


async def test_deletion_ends_the_feed_after_what_came_before() -> None:
    """Nothing published before the deletion is swallowed by it."""
    reader = Reader(MemoryLog())
    for arrival in (durable(0), transient(0), deleted(0), durable(1)):
        reader.subscriber.offer(arrival)
    with pytest.raises(ConversationGone):
        await reader.follow()
    assert reader.outline == ["0", "~0"]


@IMPATIENT
@pytest.mark.parametrize("keeps_up", [False, True])
async def test_another_conversation_under_the_same_id_ends_the_feed(*, keeps_up: bool) -> None:
    """The news of the deletion was lost; what the new one says is not for who followed the old one."""
    reader = Reader(MemoryLog(length=2), keeps_up=keeps_up)
    presence = Arrival(Envelope(Kind.PRESENCE, -1, UNKNOWN_STREAM_EPOCH, b""))
    following = asyncio.create_task(reader.follow())
    await reader.reaches(1)
    reader.subscriber.offer(transient(1), presence)
    await wait_until_async(lambda: len(reader.received) == 4, "the reader has both")
    reader.subscriber.offer(Arrival(Envelope(Kind.DURABLE, 0, StreamEpoch(b"another history!"), b"{}")))
    with pytest.raises(ConversationGone):
        async with asyncio.timeout(5):
            await following
    assert reader.seqs == [0, 1]


@pytest.mark.parametrize("arrivals", [[], [transient(1)], [durable(7)]], ids=["silence", "transient", "gap"])
async def test_log_that_is_gone_ends_the_feed(arrivals: list[Arrival]) -> None:
    """A deletion that no message told of is noticed in the log; the reader must not come back."""
    reader = Reader(MemoryLog())

    async def vanish() -> None:
        await reader.reaches(-1)
        reader.log.is_gone = True
        for arrival in arrivals:
            reader.subscriber.offer(arrival)

    with pytest.raises(ConversationGone):
        await asyncio.gather(reader.follow(), vanish())


# Whatever happens


class World:
    """An owner that appends and publishes, a broker that does what it likes, and one reader."""

    def __init__(self, length: int, after: int, backlog_bytes: int) -> None:
        self.reader = Reader(MemoryLog(length, batch_events=3), after, backlog_bytes)
        self._published: list[Arrival] = []
        self._delayed: list[Arrival] = []
        self._numbers = itertools.count()

    def _publish(self, arrival: Arrival) -> None:
        self._published.append(arrival)
        self.reader.subscriber.offer(arrival)

    def event_arrives(self) -> None:
        self._publish(durable(self.reader.log.append()))

    def event_is_lost(self) -> None:
        self.reader.log.append()

    def event_is_delayed(self) -> None:
        self._delayed.append(durable(self.reader.log.append()))

    def event_arrives_before_it_is_readable(self) -> None:
        self.reader.log.hidden += 2
        self.event_arrives()

    def transient_arrives(self) -> None:
        self._publish(transient(self.reader.log.appended - 1, next(self._numbers)))

    def delayed_arrive_backwards(self) -> None:
        while self._delayed:
            self._publish(self._delayed.pop())

    def everything_arrives_again(self) -> None:
        for arrival in list(self._published):
            self.reader.subscriber.offer(arrival)

    def broker_reconnects(self) -> None:
        self.reader.subscriber.miss()

    def reader_keeps_up(self) -> None:
        self.reader.keeps_up = True

    def reader_slows_down(self) -> None:
        self.reader.keeps_up = False


ACTS = st.sampled_from([name for name in vars(World) if not name.startswith("_")])
PAUSES = st.integers(0, 6)
"""Turns of the event loop that the reader gets after an act."""


@settings(max_examples=300, deadline=None)
@given(
    length=st.integers(0, 5),
    after=st.integers(-1, 4),
    backlog_bytes=st.sampled_from([15, 60, PLENTY_BYTES]),
    acts=st.lists(st.tuples(ACTS, PAUSES), max_size=25),
    check_seconds=st.sampled_from([0, 600]),
)
def test_feed_has_no_holes(
    length: int, after: int, backlog_bytes: int, acts: list[tuple[str, int]], check_seconds: int
) -> None:
    """Lost, doubled, reordered, lagging or late: the reader gets after + 1, after + 2, ... each once."""
    after = min(after, length - 1)

    async def live() -> Reader:
        world = World(length, after, backlog_bytes)
        async with following(world.reader) as reader:
            for name, pause in acts:
                getattr(world, name)()
                for _ in range(pause):
                    await asyncio.sleep(0)
            # In the end the log is whole, and a feed that is patient has to be told to look.
            reader.log.hidden = 0
            world.broker_reconnects()
            await reader.reaches(reader.log.appended - 1)
        return reader

    with patch.object(feed, "POSITION_CHECK_SECONDS", check_seconds):
        reader = asyncio.run(live())

    assert reader.seqs == list(range(after + 1, reader.log.appended))
    assert all(each.envelope.payload == payload_of(each.envelope.seq) for each in durables(reader))
    position = after
    for envelope in (each.envelope for each in reader.received):
        if envelope.kind is Kind.DURABLE:
            position = envelope.seq
        else:
            assert envelope.seq <= position, "a transient has overtaken an event"


def durables(reader: Reader) -> Iterator[Arrival]:
    return (each for each in reader.received if each.envelope.kind is Kind.DURABLE)
