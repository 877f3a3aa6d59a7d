"""What clients read: pages, searches and replays of a log, lists of conversations, `/alive`."""

from __future__ import annotations

from websockets.sync.client import connect

from bench.clock import cost
from bench.sides import Figures, Subject
from tests.integration.contract.conversations import Conversation

REPEATS = 300
ALIVE_REQUESTS = 2000


def log(subject: Subject, one: Conversation, length: int, repeats: int = REPEATS) -> Figures:
    """Reads of one conversation with so many events."""
    search = f"{one.path}/events/search"
    text = f"message {length - 2} of many"
    newest = {"limit": "100", "sort_order": "TIMESTAMP_DESC"}
    return {
        **_gets(subject, "page of 100 events", repeats, search, limit="100"),
        **_gets(subject, "newest 100 events", repeats, search, **newest),
        **_gets(subject, "search by text", repeats, search, body=text),
        **cost(subject.server, "replay", max(3, repeats // 10), lambda: replay(subject, one, length)),
    }


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
