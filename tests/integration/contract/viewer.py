"""What one viewer of the events socket sees, a line a frame."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.integration.contract.conversations import Conversation, JsonObject, outline_line

FRAME_SECONDS = 20.0


class Viewer:
    """An events socket; use it with `with`. A frame with an event id it has seen is dropped, as clients do."""

    def __init__(self, conversation: Conversation, query: str = "") -> None:
        """Connect to nothing yet.

        Args:
            query: the socket's, with its question mark.
        """
        self.frames: list[JsonObject] = []
        self.conversation = conversation
        self._query = query
        self._seen: set[str] = set()
        self._socket: ClientConnection | None = None

    def __enter__(self) -> Self:
        self._socket = self.conversation.socket(self._query)
        self.first = self._next()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._socket is not None
        self._socket.close()

    def until(self, line: str) -> list[str]:
        """The lines of the frames that came since the last call, up to and with the first that is `line`.

        Raises:
            TimeoutError: no frame came for 20 s.
        """
        lines: list[str] = []
        while lines[-1:] != [line]:
            lines.append(frame_line(self._next()))
        return lines

    def wait_closed(self) -> tuple[int, str]:
        """Read to the end and return the close code and reason the server gave."""
        assert self._socket is not None
        try:
            while True:
                self._socket.recv(timeout=FRAME_SECONDS)
        except ConnectionClosed:
            return self._socket.close_code or 0, self._socket.close_reason or ""

    def _next(self) -> JsonObject:
        assert self._socket is not None
        while True:
            frame: JsonObject = json.loads(self._socket.recv(timeout=FRAME_SECONDS))
            if frame["id"] not in self._seen:
                self._seen.add(frame["id"])
                self.frames.append(frame)
                return frame


def frame_line(event: JsonObject) -> str:
    """What was said and done as `outline_line` has it, a state update as its key and, where short, its value."""
    if event["kind"] != "ConversationStateUpdateEvent":
        return outline_line(event) or str(event["kind"])
    key: str = event["key"]
    value: Any = event.get("value")
    if key == "full_state":
        return f"full_state={value['execution_status']}"
    return f"{key}={value}" if key == "execution_status" else key
