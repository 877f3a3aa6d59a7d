"""Reading an events socket frame by frame: nothing is dropped, so that a repetition or a hole shows."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.integration.contract.conversations import Conversation, JsonObject
from tests.integration.contract.viewer import FRAME_SECONDS

BIG_TEXT = "x" * 3_000_000
"""Several of these are more than the buffers of two kernels hold for one connection."""


def read(connection: Connection) -> JsonObject:
    """The next frame, which is one JSON object in a text frame."""
    frame = connection.recv(timeout=FRAME_SECONDS)
    assert isinstance(frame, str)
    event: JsonObject = json.loads(frame)
    return event


def read_until(connection: Connection, is_last: Callable[[JsonObject], bool]) -> list[JsonObject]:
    """The frames up to and with the first that is the last."""
    frames = [read(connection)]
    while not is_last(frames[-1]):
        frames.append(read(connection))
    return frames


def news(connection: Connection, conversation: Conversation) -> list[JsonObject]:
    """The frames until now, of a conversation at rest.

    Asks for a pause, whose full state comes last, and leaves out what the pause itself told.
    """
    conversation.post("/pause").raise_for_status()
    frames = read_until(connection, is_full_state)[:-1]
    return [frame for frame in frames if frame["kind"] != "PauseEvent" and frame.get("value") != "paused"]


def close_of(connection: Connection) -> tuple[int, str]:
    """Read to the end; the code and the reason of the server's close frame."""
    with pytest.raises(ConnectionClosed) as closed:
        _drain(connection)
    frame = closed.value.rcvd
    assert frame is not None, "the connection ended without a close frame"
    return frame.code, frame.reason


def is_full_state(event: JsonObject) -> bool:
    return event.get("key") == "full_state"


def is_end_of_run(event: JsonObject) -> bool:
    """The snapshot that follows every event of a run."""
    return is_full_state(event) and event["value"]["execution_status"] == "finished"


def event_ids(frames: list[JsonObject]) -> list[str]:
    """The ids of the frames, in order, without the snapshots, which are not events of the log."""
    return [frame["id"] for frame in frames if not is_full_state(frame)]


def logged_ids(conversation: Conversation) -> list[str]:
    """The ids of the whole log, over all pages."""
    found: list[str] = []
    page: JsonObject = {"next_page_id": ""}
    while page["next_page_id"] is not None:
        page = conversation.get("/events/search", params={"page_id": page["next_page_id"]}).raise_for_status().json()
        found += [event["id"] for event in page["items"]]
    return found


ANY_SIZE = f"?max_frame_bytes={1 << 30}"
"""The query of a client that wants large events themselves."""


def idle_client(conversation: Conversation, path: str = "") -> Connection:
    """A client with small buffers that takes hardly anything before it is read from.

    Args:
        path: of the socket with its query; default: the events socket.
    """
    port = conversation.http.base_url.port
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.connect(("127.0.0.1", port))
    address = f"ws://127.0.0.1:{port}" + (path or f"/sockets/events/{conversation.id}{ANY_SIZE}")
    # Not closed politely: the server's answer would lie behind all that was not read.
    return connect(address, sock=opened, proxy=None, max_size=None, max_queue=1, close_timeout=0.1)


def flood(conversation: Conversation) -> list[str]:
    """Append more than a connection takes that nobody reads from; the ids of the log afterwards."""
    for _ in range(4):
        conversation.send(BIG_TEXT)
    return logged_ids(conversation)


def counted(http: httpx.Client, name: str) -> float:
    """What the server's counter of this name stands at, over all its processes."""
    lines = http.get("/metrics").raise_for_status().text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"fanout_{name}_total"))


def _drain(connection: Connection) -> None:
    while True:
        connection.recv(timeout=FRAME_SECONDS)
