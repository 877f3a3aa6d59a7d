"""How an answer of the LLM comes, as it comes, for both kinds of sockets. Never stored.

The SDK names the event that an answer will be before it asks, numbers attempts, and masks secrets, also those that
the LLM cuts in two. What waits to be published grows: when Redis is slow, or news is held, a reader gets the same text
in fewer pieces.
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

from openhands.sdk.agent.stream_context import StreamAborted, StreamDelta, StreamProgress, StreamStarted
from openhands.sdk.conversation.secret_registry import SecretRegistry
from openhands.sdk.event.streaming_delta import StreamingDeltaEvent
from openhands.sdk.secret import StaticSecret
from pydantic_core import to_json

from service.pubsub.progress import Progress, Step, encode
from service.runner.conversation.outbox import Outbox
from service.runner.publisher import UNMADE_BYTES


class Progressing:
    """A stream callback for `LocalConversation`: runs on the agent loop, must neither block nor raise."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._order = 0
        self._waiting: _Growing | None = None

    def __call__(self, news: StreamProgress) -> None:
        if isinstance(news, StreamDelta):
            self._add(news)
            return
        self._waiting = None
        self._order = 0
        step, kind = _STEPS[type(news)]
        payload = _payload(step, {"type": kind, **asdict(news)})
        self._outbox.progress(lambda: payload)

    def _add(self, delta: StreamDelta) -> None:
        if self._waiting is not None and self._waiting.absorb(delta):
            return
        self._waiting = _Growing(delta, self._order)
        self._order += 1
        self._outbox.progress(self._waiting.take)


def know_secrets(registry: SecretRegistry) -> None:
    """Have values masked in what is streamed; the SDK by itself masks those that a command has used already."""
    static = {name: source for name, source in registry.secret_sources.items() if isinstance(source, StaticSecret)}
    values = {name: source.get_value() for name, source in static.items()}
    registry.track_exported_values({name: value for name, value in values.items() if value})


class _Growing:
    """A delta that takes in the next ones until it is its turn."""

    def __init__(self, first: StreamDelta, order: int) -> None:
        self._first = first
        self._order = order
        self._texts = [first.content]
        self._characters = len(first.content)
        self._is_taken = False
        self._lock = threading.Lock()

    def absorb(self, delta: StreamDelta) -> bool:
        """False when it is another's: of another attempt or kind, too late, or too much."""
        with self._lock:
            first = self._first
            if self._is_taken or (first.attempt, first.kind) != (delta.attempt, delta.kind):
                return False
            if self._characters + len(delta.content) > UNMADE_BYTES // 4:
                return False
            self._texts.append(delta.content)
            self._characters += len(delta.content)
            return True

    def take(self) -> bytes:
        """The payload; nothing is taken in from here on."""
        with self._lock:
            self._is_taken = True
        text = _encodable("".join(self._texts))
        is_text = self._first.kind == "text"
        event = StreamingDeltaEvent(
            source="agent", content=text if is_text else None, reasoning_content=None if is_text else text
        )
        frame = {"type": "delta", **asdict(self._first), "order": self._order, "content": text}
        return _payload(Step.DELTA, frame, event.model_dump_json(exclude_none=True).encode())


_STEPS = {StreamStarted: (Step.STARTED, "item_started"), StreamAborted: (Step.ABORTED, "item_aborted")}


def _encodable(text: str) -> str:
    """`text` with what it holds of halves of surrogate pairs put together, where the other half is there too."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def reset() -> bytes:
    """The payload that ends what a former owner has begun."""
    return encode(Progress(Step.RESET))


def _payload(step: Step, frame: dict[str, Any], event: bytes = b"") -> bytes:
    shown = to_json({name: value for name, value in frame.items() if value is not None})
    return encode(Progress(step, frame["item_id"].encode(), frame["attempt"], shown, event))
