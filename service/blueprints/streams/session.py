"""One feed of a conversation for readers that say how far they have come: the session socket and server-sent events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from service.blueprints.http.context import WebContext
from service.blueprints.streams.frames import MARKER_BYTES
from service.blueprints.streams.presence import WatcherName
from service.blueprints.streams.session_frames import SessionFrames
from service.identity import StreamEpoch
from service.metrics import metrics
from service.pubsub.feed import ConversationGone, Feed
from service.pubsub.hub import TakeAtOnce

Write = Callable[[bytes], Awaitable[None]]


class SessionQuery(BaseModel):
    """Where a reader wants to go on."""

    after_seq: int | None = Field(
        None, description="The last seq that is known; negative for the whole history, absent for none of it."
    )
    stream_epoch: str | None = Field(
        None, max_length=64, description="What `sync` called the history that `after_seq` was taken from."
    )
    max_frame_bytes: int | None = Field(
        None,
        ge=MARKER_BYTES,
        description="The largest frame the client takes; a larger event is told by a marker.",
    )
    watcher: WatcherName | None = Field(None, description="A name to be shown to others who watch.")


def _start(wanted: SessionQuery, length: int, stream_epoch: StreamEpoch | None) -> tuple[int, dict[str, Any]]:
    """After which seq a reader goes on, given how long the log is and which history it holds; and what `sync` says."""
    last_seq = length - 1
    is_known = stream_epoch is not None and wanted.stream_epoch == stream_epoch.hex()
    # A position beyond the end of the same history is one that the log has lost.
    is_recovered = is_known and (wanted.after_seq is None or wanted.after_seq <= last_seq)
    from_seq = wanted.after_seq
    if wanted.stream_epoch is not None and not is_recovered and from_seq is not None:
        from_seq = -1
    sync: dict[str, Any] = {"type": "sync"}
    if from_seq is not None:
        sync["from_seq"] = from_seq
    if length:
        sync["through_seq"] = last_seq
    if stream_epoch is not None:
        sync["stream_epoch"] = stream_epoch.hex()
    if wanted.stream_epoch is not None:
        sync["recovered"] = is_recovered
    return last_seq if from_seq is None else max(-1, min(from_seq, last_seq)), sync


async def follow(
    web: WebContext,
    conversation_id: UUID,
    wanted: SessionQuery,
    frames: SessionFrames,
    write: Write,
    take_at_once: TakeAtOnce | None = None,
) -> None:
    """Write `sync`, the history after the reader's position, the full state, then what happens; does not end.

    Args:
        take_at_once: writes arrivals to a reader that keeps up.

    Raises:
        ConversationGone: it was deleted.
        LogBehind: what was published did not become readable.
    """
    async with web.watch(conversation_id, wanted.watcher) as subscriber:
        log = web.logs.open(conversation_id)
        length = await log.length()
        if length is None:
            raise ConversationGone
        stream_epoch = web.stream_epochs.of(web.root.directory(conversation_id))
        after_seq, sync = _start(wanted, length, stream_epoch)
        await write(frames.of(**sync))
        feed = Feed(log, subscriber, after_seq, take_at_once, stream_epoch)
        deliveries = metrics().deliveries
        is_caught_up = feed.position >= length - 1
        if is_caught_up:
            await _write_state(web, conversation_id, frames, write)
        async for batch in feed.batches():
            data = frames.of_batch(batch) if batch else frames.gap()
            if data:
                await write(data)
                deliveries.inc(len(batch))
            if not batch or (not is_caught_up and feed.position >= length - 1):
                is_caught_up = True
                await _write_state(web, conversation_id, frames, write)


async def _write_state(web: WebContext, conversation_id: UUID, frames: SessionFrames, write: Write) -> None:
    await write(frames.of_transient(await web.full_state(conversation_id)))
