"""Reading a conversation's events as the bytes they were stored as.

A log is append-only and its files are immutable, so everything here caches without ever invalidating: names by
directory time, bytes in one bounded cache per process, the few facts that filters need once per event.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import structlog

from service.store.cached_file import RACY_NS
from service.store.event_name import event_file_name, parse_event_name
from service.store.layout import ConversationDirectory, ConversationsRoot

_log = structlog.get_logger(__name__)

_OPEN_LOGS = 1024
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


class ByteCache:
    """Event bytes of all conversations, least recently used out first, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._events: OrderedDict[tuple[UUID, int], bytes] = OrderedDict()
        self._lock = threading.Lock()  # files are read in threads
        self.size_bytes = 0

    def get(self, key: tuple[UUID, int]) -> bytes | None:
        with self._lock:
            data = self._events.get(key)
            if data is not None:
                self._events.move_to_end(key)
            return data

    def put(self, key: tuple[UUID, int], data: bytes) -> None:
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

    def drop(self, conversation_id: UUID) -> None:
        """Forget one conversation's events: it was deleted, and its id may be used again."""
        with self._lock:
            for key in [key for key in self._events if key[0] == conversation_id]:
                self.size_bytes -= len(self._events.pop(key))


class EventLog:
    """One conversation's log, as it is on disk at each call. Methods of one event loop; disk work off it."""

    def __init__(self, directory: ConversationDirectory, cache: ByteCache) -> None:
        self._directory = directory
        self._cache = cache
        self._conversation_id = directory.conversation_id
        self._scanning = asyncio.Lock()
        self._indexing = asyncio.Lock()
        self._forget()

    async def length(self) -> int | None:
        """How many events are readable now; None when the conversation is gone."""
        try:
            status = os.stat(self._directory.events)
        except FileNotFoundError:
            self._forget()
            return 0 if self._directory.base_state.exists() else None
        if status.st_ino != self._scanned_inode:
            self._forget()  # deleted, and made again under the same id
        if status.st_mtime_ns != self._scanned_mtime_ns or not self._scanned_is_settled:
            async with self._scanning:
                await asyncio.to_thread(self._scan)
        return len(self._ids)

    async def read(self, start: int, stop: int) -> list[bytes]:
        """Stored bytes of events `start` to `stop - 1`; fewer when they are many or large, never none."""
        stop = min(stop, len(self._ids), start + _BATCH_EVENTS)
        cached = self._cached(start, stop)
        if cached is not None:
            return cached
        return await asyncio.to_thread(self._read_files, range(start, stop), _BATCH_BYTES)

    async def read_many(self, seqs: list[int]) -> list[bytes]:
        """Stored bytes of exactly these events, in this order."""
        found = [self._cache.get((self._conversation_id, seq)) for seq in seqs]
        if None not in found:
            return [data for data in found if data is not None]
        return await asyncio.to_thread(self._read_files, seqs, None)

    async def facts(self) -> list[EventFacts]:
        """What filters look at, for every event; each is parsed once."""
        length = len(self._ids)
        if len(self._facts) < length:
            async with self._indexing:
                await asyncio.to_thread(self._index, length)
        return self._facts

    def seq_of(self, event_id: str) -> int | None:
        """Where an event stands; of those seen by the last `length`."""
        return self._seqs.get(event_id)

    def id_of(self, seq: int) -> str:
        return self._ids[seq]

    def _forget(self) -> None:
        self._ids: list[str] = []
        self._seqs: dict[str, int] = {}
        self._facts: list[EventFacts] = []
        self._scanned_inode = -1
        self._scanned_mtime_ns = -1
        self._scanned_is_settled = False
        self._cache.drop(self._conversation_id)

    def _cached(self, start: int, stop: int) -> list[bytes] | None:
        found: list[bytes] = []
        size_bytes = 0
        for seq in range(start, stop):
            data = self._cache.get((self._conversation_id, seq))
            if data is None:
                return None
            found.append(data)
            size_bytes += len(data)
            if size_bytes > _BATCH_BYTES:
                break
        return found

    def _path(self, seq: int) -> Path:
        return self._directory.events / event_file_name(seq, self._ids[seq])

    def _read_files(self, seqs: range | list[int], limit_bytes: int | None) -> list[bytes]:
        read: list[bytes] = []
        size_bytes = 0
        for seq in seqs:
            key = (self._conversation_id, seq)
            data = self._cache.get(key)
            if data is None:
                data = self._path(seq).read_bytes()
                self._cache.put(key, data)
            read.append(data)
            size_bytes += len(data)
            if limit_bytes is not None and size_bytes > limit_bytes:
                break
        return read

    def _scan(self) -> None:
        """Take in new names, in order and without gaps: what lies behind a gap is not readable yet."""
        status = os.stat(self._directory.events)
        scanned_at_ns = time.time_ns()
        known = len(self._ids)
        new: dict[int, str] = {}
        for name in os.listdir(self._directory.events):
            parsed = parse_event_name(name)
            if parsed is not None and parsed.seq >= known:
                new[parsed.seq] = parsed.event_id
        while known in new:
            event_id = new[known]
            self._seqs[event_id] = known
            self._ids.append(event_id)
            known += 1
        self._scanned_inode = status.st_ino
        self._scanned_mtime_ns = status.st_mtime_ns
        self._scanned_is_settled = scanned_at_ns - status.st_mtime_ns > RACY_NS

    def _index(self, length: int) -> None:
        for seq in range(len(self._facts), length):
            data = self._read_files([seq], None)[0]
            try:
                self._facts.append(facts_of(json.loads(data)))
            except (ValueError, TypeError, KeyError, AttributeError):
                _log.warning("unreadable_event", conversation_id=str(self._conversation_id), seq=seq)
                self._facts.append(EventFacts("", "", "", ""))


def facts_of(event: dict[str, object]) -> EventFacts:
    """What filters look at, from one parsed event."""
    kind = str(event["kind"])
    text = _message_text(event) if kind == "MessageEvent" else ""
    return EventFacts(kind, str(event["source"]), str(event["timestamp"]), text)


def _message_text(event: dict[str, object]) -> str:
    message = event["llm_message"]
    assert isinstance(message, dict)
    parts = [*message.get("content", ()), *_list(event.get("extended_content"))]
    texts = [str(part["text"]) for part in parts if "text" in part]
    reasoning = message.get("reasoning_content")
    if reasoning:
        texts.append(str(reasoning))
    return "\n".join(texts).lower()


def _list(value: object) -> list[dict[str, object]]:
    return value if isinstance(value, list) else []


class EventLogs:
    """The logs in use, least recently used out first; one per process and event loop."""

    def __init__(self, root: ConversationsRoot, cache_limit_bytes: int) -> None:
        self._root = root
        self._cache = ByteCache(cache_limit_bytes)
        self._logs: OrderedDict[UUID, EventLog] = OrderedDict()

    def open(self, conversation_id: UUID) -> EventLog:
        """The log of a conversation, which need not exist: its `length` then is None."""
        log = self._logs.get(conversation_id)
        if log is None:
            log = self._logs[conversation_id] = EventLog(self._root.directory(conversation_id), self._cache)
            if len(self._logs) > _OPEN_LOGS:
                self._logs.popitem(last=False)
        self._logs.move_to_end(conversation_id)
        return log
