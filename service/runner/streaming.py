"""Token deltas on the events socket: what an LLM streams, as it streams it. Never stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openhands.sdk.event.streaming_delta import StreamingDeltaEvent

from service.runner.outbox import Outbox


def delta_publisher(outbox: Outbox) -> Callable[[Any], None]:
    """A token callback for `LocalConversation`: runs on the agent loop, must neither block nor raise.

    It is given litellm's `ModelResponseStream`, or text by ACP agents.
    """

    def publish(chunk: Any) -> None:
        for content, reasoning in _parts(chunk):
            event = StreamingDeltaEvent(source="agent", content=content, reasoning_content=reasoning)
            outbox.transient(event.model_dump_json(exclude_none=True).encode())

    return publish


def _parts(chunk: Any) -> list[tuple[str | None, str | None]]:
    if isinstance(chunk, str):
        return [(chunk, None)]
    deltas = [choice.delta for choice in getattr(chunk, "choices", ()) if choice.delta is not None]
    parts = [(getattr(delta, "content", None), getattr(delta, "reasoning_content", None)) for delta in deltas]
    return [part for part in parts if part != (None, None)]
