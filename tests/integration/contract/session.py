"""Reading a session, of the socket or of server-sent events, frame by frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from websockets.sync.connection import Connection

from tests.integration.contract.conversations import Conversation, JsonObject
from tests.integration.contract.frames import is_end_of_run, read_until

HISTORY = "?after_seq=-1"


def session_until(connection: Connection, is_last: Callable[[JsonObject], bool]) -> list[JsonObject]:
    """The frames up to and with the first that is the last, but for those on who watches, which come at any time."""
    return [frame for frame in read_until(connection, is_last) if frame["type"] != "presence"]


def is_transient(frame: JsonObject) -> bool:
    """The full state, which follows the history."""
    return bool(frame["type"] == "transient")


def ends_run(frame: JsonObject) -> bool:
    """The full state that follows every event of a run."""
    return is_transient(frame) and is_end_of_run(frame["event"])


def durables(frames: list[JsonObject]) -> list[tuple[int, str]]:
    """Seq and event id of what was stored, in the order received."""
    return [(frame["seq"], frame["event"]["id"]) for frame in frames if frame["type"] == "durable"]


def logged(conversation: Conversation, after_seq: int = -1) -> list[tuple[int, str]]:
    """The same of the log."""
    return [(seq, event["id"]) for seq, event in enumerate(conversation.events) if seq > after_seq]


def opening(connection: Connection) -> list[JsonObject]:
    """What a socket is sent when it connects: up to and with the full state."""
    return session_until(connection, is_transient)


class EventSource:
    """Server-sent events as a browser takes them in."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_event_id: str | None = None
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[JsonObject]:
        data: list[str] = []
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "data":
                data.append(value)
            elif name == "id":
                self.last_event_id = value
            elif not line and data:
                yield json.loads("\n".join(data))
                data = []

    def until(self, is_last: Callable[[JsonObject], bool]) -> list[JsonObject]:
        """As `session_until`."""
        frames: list[JsonObject] = []
        for frame in self:
            if frame["type"] != "presence":
                frames.append(frame)
            if is_last(frame):
                return frames
        raise AssertionError("the stream has ended")


@contextmanager
def event_source(
    conversation: Conversation, query: str = "", last_event_id: str | None = None
) -> Iterator[EventSource]:
    """The session of a conversation over plain HTTP."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    path = f"{conversation.path}/events/stream{query}"
    with conversation.http.stream("GET", path, headers=headers) as response:
        yield EventSource(response)
