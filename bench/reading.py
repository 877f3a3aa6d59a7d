"""What clients read: pages, searches and replays of a log, lists of conversations, `/alive`."""

from __future__ import annotations

import statistics
import time

from websockets.sync.client import connect

from bench.clock import cost
from bench.sides import Figures, Subject
from tests.integration.contract.conversations import Conversation

REPEATS = 300
ALIVE_REQUESTS = 2000
NEWEST = {"limit": "100", "sort_order": "TIMESTAMP_DESC"}


def log(subject: Subject, one: Conversation, length: int, repeats: int = REPEATS) -> Figures:
    """Reads of one conversation with so many events."""
    search = f"{one.path}/events/search"
    text = f"message {length - 2} of many"
    return {
        **_gets(subject, "page of 100 events", repeats, search, limit="100"),
        **_gets(subject, "newest 100 events", repeats, search, **NEWEST),
        **_gets(subject, "search by text", repeats, search, body=text),
        **cost(subject.server, "replay", max(3, repeats // 10), lambda: replay(subject, one, length)),
    }


def newest_after_each_message(subject: Subject, one: Conversation, times: int) -> Figures:
    """What a client sees who asks as soon as there is something new: nothing of it can be remembered."""
    took = []
    for _ in range(times):
        one.send("one more")
        begin = time.perf_counter()
        subject.http.get(f"{one.path}/events/search", params=NEWEST).raise_for_status()
        took.append(time.perf_counter() - begin)
    return {"newest 100 after a message, p50 ms": 1000 * statistics.median(took)}


def replay(subject: Subject, one: Conversation, length: int) -> None:
    """The whole log to a new socket."""
    url = f"{subject.server.url.replace('http', 'ws')}/sockets/events/{one.id}?resend_mode=all"
    with connect(url, proxy=None, max_size=None, compression=None) as socket:
        received = 0
        while received < length:
            frame = socket.recv(timeout=60)
            received += '"full_state"' not in str(frame)[:400]


def conversations(subject: Subject) -> Figures:
    """The first page of the list."""
    return _gets(subject, "list 20 conversations", REPEATS, "/api/conversations/search", limit="20")


def commands(subject: Subject) -> Figures:
    """The newest events of the shell."""
    newest = {"limit": "20", "sort_order": "TIMESTAMP_DESC"}
    return _gets(subject, "newest 20 bash events", 50, "/api/bash/bash_events/search", **newest)


def alive(subject: Subject) -> Figures:
    return _gets(subject, "/alive", ALIVE_REQUESTS, "/alive")


def _gets(subject: Subject, name: str, times: int, path: str, **query: str) -> Figures:
    return cost(subject.server, name, times, lambda: subject.http.get(path, params=query).raise_for_status())
