"""Reading a conversation's events as the bytes they were stored as.

A log is append-only and its files are immutable, so everything here caches without ever invalidating: names by
directory time, bytes in one bounded cache per process, the few facts that filters need once per event.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
import time
from collections import OrderedDict
from typing import NamedTuple
from uuid import UUID

import structlog

from service.errors import ConversationNotFound, JsonObject
from service.store.cached_file import RACY_NS
from service.store.event_listing import Listed, read_listing, size_of_listing
from service.store.event_name import EventName, event_file_name, names_from, parse_event_name
from service.store.layout import ConversationDirectory, ConversationsRoot

_log = structlog.get_logger(__name__)

_OPEN_LOGS = 1024
_OPEN_LOGS_BYTES = 64 << 20
"""What all of them may remember of their events, beside the bytes in the cache (guess)."""
_EVENT_BYTES = 400
"""What one event's id, place and facts take in memory, roughly, without its text."""
_BATCH_EVENTS = 100
_BATCH_BYTES = 1 << 20


class EventFacts(NamedTuple):
    """What filters look at."""

    kind: str
    source: str
    timestamp: str
    """As stored: naive local ISO text; sorts as text."""
    text: str
    """Lower-cased text of a MessageEvent (content, extended content, reasoning), else empty."""


class EventKey(NamedTuple):
    """An event whose bytes never change; its seq would be taken again if the conversation were deleted and remade."""

    conversation_id: UUID
    event_id: str


class ByteCache:
    """Event bytes of all conversations, least recently used out first, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._events: OrderedDict[EventKey, bytes] = OrderedDict()
        self._lock = threading.Lock()  # files are read in threads
        self.size_bytes = 0

    def get(self, key: EventKey) -> bytes | None:
        with self._lock:
            data = self._events.get(key)
            if data is not None:
                self._events.move_to_end(key)
            return data

    def put(self, key: EventKey, data: bytes) -> None:
        if len(data) > self._limit_bytes:
            return
        with self._lock:
            if key in self._events:
                return
            self._events[key] = data
            self.size_bytes += len(data)
            while self.size_bytes > self._limit_bytes:
                _, evicted = self._events.popitem(last=False)
                self.size_bytes -= len(evicted)


class _Scan(NamedTuple):
    """What one look at the directory found."""

    inode: int
    mtime_ns: int
    listing_bytes: int
    is_settled: bool
    start: int
    """Where `ids` continue the log; 0 also when the directory turned out to be another one."""
    ids: list[str]
    last_line_at: int
    """Of the last id, in the listing."""

    def is_of(self, status: os.stat_result, listing_bytes: int) -> bool:
        """Whether nothing has changed since."""
        now = (status.st_ino, status.st_mtime_ns, listing_bytes)
        return self.is_settled and now == (self.inode, self.mtime_ns, self.listing_bytes)


class EventLog:
    """One conversation's log, as it is on disk at each call. Methods of one event loop; disk work off it."""

    size_bytes: int
    """What it remembers, roughly."""

    def __init__(self, directory: ConversationDirectory, cache: ByteCache) -> None:
        self._directory = directory
        self._cache = cache
        self._conversation_id = directory.conversation_id
        self._looking = asyncio.Lock()
        self._looks_begun = 0
        self._newest_look = 0
        """That has come to its end; `_length` is what it found."""
        self._length: int | None = None
        self._indexing = asyncio.Lock()
        self._forget()

    async def length(self) -> int | None:
        """How many events are readable now; None when the conversation is gone.

        Callers who come while somebody looks share one look, the next: many sockets may come at once.
        """
        begun_before = self._looks_begun
        async with self._looking:
            if self._newest_look <= begun_before:
                self._looks_begun += 1
                self._length = await self._look()
                self._newest_look = self._looks_begun
            return self._length

    async def read(self, start: int, stop: int) -> list[bytes]:
        """Stored bytes of events `start` to `stop - 1`, which `length` has shown; fewer when they are many or large.

        Never none.

        Raises:
            ConversationNotFound: it was deleted since.
        """
        stop = min(stop, len(self._ids), start + _BATCH_EVENTS)
        if start >= stop:
            raise self._gone()
        cached = self._cached(start, stop)
        if cached is not None:
            return cached
        return await asyncio.to_thread(self._read_files, range(start, stop), _BATCH_BYTES)

    async def read_many(self, seqs: list[int]) -> list[bytes]:
        """Stored bytes of exactly these events, in this order.

        Raises:
            ConversationNotFound: it was deleted since `length` showed them.
        """
        found = [self._cache.get(self._key(seq)) for seq in seqs]
        if None not in found:
            return [data for data in found if data is not None]
        return await asyncio.to_thread(self._read_files, seqs, None)

    async def facts(self, length: int) -> list[EventFacts]:
        """What filters look at, for every event; each is parsed once.

        Raises:
            ConversationNotFound: it was deleted since so many were shown.
        """
        async with self._indexing:
            facts, known = self._facts, len(self._facts)
            if known < len(self._ids):
                new = await asyncio.to_thread(self._index, range(known, len(self._ids)))
                facts.extend(new)
                self.size_bytes += sum(len(each.text) for each in new)
            if len(facts) < length:
                raise self._gone()
            return facts

    def seq_of(self, event_id: str) -> int | None:
        """Where an event stands; of those seen by the last `length`."""
        return self._seqs.get(event_id)

    def id_of(self, seq: int) -> str:
        """Raises ConversationNotFound: it was deleted since `length` showed the event."""
        return self._key(seq).event_id

    async def _look(self) -> int | None:
        try:
            status = os.stat(self._directory.events)
            if not self._scanned.is_of(status, size_of_listing(self._directory)):
                self._take_in(await asyncio.to_thread(self._scan, self._newest(), self._scanned.last_line_at))
        except FileNotFoundError:
            self._forget()
            return 0 if self._directory.base_state.exists() else None
        return len(self._ids)

    def _forget(self) -> None:
        self._ids: list[str] = []
        self._seqs: dict[str, int] = {}
        self._facts: list[EventFacts] = []
        self.size_bytes = 0
        self._scanned = _Scan(-1, -1, -1, False, 0, [], 0)

    def _newest(self) -> EventName | None:
        return EventName(len(self._ids) - 1, self._ids[-1]) if self._ids else None

    def _take_in(self, scan: _Scan) -> None:
        if scan.start < len(self._ids):
            self._forget()
        self._seqs.update(zip(scan.ids, itertools.count(scan.start)))
        self._ids.extend(scan.ids)
        self.size_bytes += len(scan.ids) * _EVENT_BYTES
        self._scanned = scan._replace(ids=[])

    def _cached(self, start: int, stop: int) -> list[bytes] | None:
        found: list[bytes] = []
        size_bytes = 0
        for seq in range(start, stop):
            data = self._cache.get(self._key(seq))
            if data is None:
                return None
            found.append(data)
            size_bytes += len(data)
            if size_bytes > _BATCH_BYTES:
                break
        return found

    def _key(self, seq: int) -> EventKey:
        try:
            return EventKey(self._conversation_id, self._ids[seq])
        except IndexError:
            raise self._gone() from None

    def _gone(self) -> ConversationNotFound:
        return ConversationNotFound(str(self._conversation_id))

    def _read_files(self, seqs: range | list[int], limit_bytes: int | None) -> list[bytes]:
        read: list[bytes] = []
        size_bytes = 0
        for seq in seqs:
            key = self._key(seq)
            data = self._cache.get(key)
            if data is None:
                data = self._read_file(seq, key)
            read.append(data)
            size_bytes += len(data)
            if limit_bytes is not None and size_bytes > limit_bytes:
                break
        return read

    def _read_file(self, seq: int, key: EventKey) -> bytes:
        try:
            data = (self._directory.events / event_file_name(seq, key.event_id)).read_bytes()
        except FileNotFoundError:
            raise self._gone() from None
        self._cache.put(key, data)
        return data

    # In threads, which go on when their caller is cancelled: these three change nothing here.

    def _scan(self, known: EventName | None, last_line_at: int) -> _Scan:
        """New names, in order and without gaps: what lies behind a gap is not readable yet."""
        status = os.stat(self._directory.events)
        is_settled = time.time_ns() - status.st_mtime_ns > RACY_NS
        listing_bytes = size_of_listing(self._directory)
        names, last_line_at = read_listing(self._directory, status, known, last_line_at) or self._list(known)
        # Deleted and made again, an events directory may get the inode number that it had.
        start = known.seq + 1 if known is not None and known in names else 0
        ids = [name.event_id for name in names if name.seq >= start]
        return _Scan(status.st_ino, status.st_mtime_ns, listing_bytes, is_settled, start, ids, last_line_at)

    def _list(self, known: EventName | None) -> Listed:
        names = os.listdir(self._directory.events)
        start = known.seq if known is not None and event_file_name(*known) in names else 0
        parsed = (parse_event_name(name) for name in names_from(start, names))
        found = {each.seq: each for each in parsed if each is not None and each.seq >= start}
        if known is not None and known.seq == start:
            found[start] = known  # also when a deposed owner's event has the same number
        return Listed([found[seq] for seq in itertools.takewhile(found.__contains__, itertools.count(start))], 0)

    def _index(self, seqs: range) -> list[EventFacts]:
        return [self._facts_at(seq) for seq in seqs]

    def _facts_at(self, seq: int) -> EventFacts:
        data = self._read_files([seq], None)[0]
        try:
            return facts_of(json.loads(data))
        except (ValueError, TypeError, KeyError, AttributeError):
            _log.warning("unreadable_event", conversation_id=str(self._conversation_id), seq=seq)
            return EventFacts("", "", "", "")


def facts_of(event: JsonObject) -> EventFacts:
    """What filters look at, from one parsed event."""
    kind = sys.intern(str(event["kind"]))  # a handful of words, in each of thousands of events
    text = _message_text(event) if kind == "MessageEvent" else ""
    return EventFacts(kind, sys.intern(str(event["source"])), str(event["timestamp"]), text)


def _message_text(event: JsonObject) -> str:
    message = event["llm_message"]
    parts = [*message.get("content", ()), *(event.get("extended_content") or ())]
    texts = [str(part["text"]) for part in parts if "text" in part]
    reasoning = message.get("reasoning_content")
    if reasoning:
        texts.append(str(reasoning))
    return "\n".join(texts).lower()


class EventLogs:
    """The logs in use, least recently used out first, bounded in number and bytes; one per process and event loop."""

    def __init__(self, root: ConversationsRoot, cache_limit_bytes: int) -> None:
        self._root = root
        self._cache = ByteCache(cache_limit_bytes)
        self._logs: OrderedDict[UUID, EventLog] = OrderedDict()

    def open(self, conversation_id: UUID) -> EventLog:
        """The log of a conversation, which need not exist: its `length` then is None."""
        log = self._logs.get(conversation_id)
        if log is None:
            self._make_room()
            log = self._logs[conversation_id] = EventLog(self._root.directory(conversation_id), self._cache)
        self._logs.move_to_end(conversation_id)
        return log

    def _make_room(self) -> None:
        size_bytes = sum(log.size_bytes for log in self._logs.values())
        while self._logs and (len(self._logs) >= _OPEN_LOGS or size_bytes > _OPEN_LOGS_BYTES):
            _, closed = self._logs.popitem(last=False)
            size_bytes -= closed.size_bytes
