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
    events = f"{one.path}/events"

    def ask(path: str, **query: str) -> None:
        subject.http.get(path, params=query).raise_for_status()

    text = f"message {length - 2} of many"
    page = cost(subject.server, "page of 100 events", repeats, lambda: ask(f"{events}/search", limit="100"))
    newest = {"limit": "100", "sort_order": "TIMESTAMP_DESC"}
    return {
        **page,
        **cost(subject.server, "newest 100 events", repeats, lambda: ask(f"{events}/search", **newest)),
        **cost(subject.server, "search by text", repeats, lambda: ask(f"{events}/search", body=text)),
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
    query = {"limit": "20"}
    return cost(
        subject.server,
        "list 20 conversations",
        REPEATS,
        lambda: subject.http.get("/api/conversations/search", params=query).raise_for_status(),
    )


def commands(subject: Subject) -> Figures:
    """The newest events of the shell."""
    query = {"limit": "20", "sort_order": "TIMESTAMP_DESC"}
    return cost(
        subject.server,
        "newest 20 bash events",
        50,
        lambda: subject.http.get("/api/bash/bash_events/search", params=query).raise_for_status(),
    )


def alive(subject: Subject) -> Figures:
    return cost(subject.server, "/alive", ALIVE_REQUESTS, lambda: subject.http.get("/alive").raise_for_status())
