"""`.../bash_commands/{id}/stream`: a command's output as server-sent events, while it runs and after, from any worker.

An event's id is how far the reader has come, so a client that comes back with `Last-Event-ID` goes on from there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial

from sanic import Blueprint, Request

from service.blueprints.bash import Scope, scope_of
from service.blueprints.http.arguments import invalid_value, uuid_path
from service.blueprints.http.openapi import documented
from service.blueprints.http.scopes import SCOPED_PREFIX, Routes
from service.blueprints.streams.server_sent import EventStream, answer_with_events
from service.errors import NotFound
from service.pubsub.broker import Channel
from service.store.live_output import STREAMS, Delta, LiveOutput, Position, deltas_of

blueprint = Blueprint("bash_live", url_prefix="/api/bash")
scoped = Blueprint("conversation_bash_live", url_prefix=f"{SCOPED_PREFIX}/bash")
_route = Routes(blueprint, scoped)

_PIECE_BYTES = 256 * 1024
_LOOK_AGAIN_SECONDS = 1.0


@_route("GET", "/bash_commands/<command_id:str>/stream")
@documented(
    summary="A command's output as server-sent events",
    description="`BashOutputDelta` events as the output comes, then one `BashEnd` with the exit code.",
    media_type="text/event-stream",
    response={"type": "string"},
    errors=(404, 422),
)
async def stream_bash_command(request: Request, command_id: str, runtime_conversation_id: str | None = None) -> None:
    scope = await scope_of(request, runtime_conversation_id)
    wanted = uuid_path(command_id, "command_id").hex
    position = _position(request)
    if await asyncio.to_thread(scope.history.event, wanted) is None:
        raise NotFound
    await answer_with_events(request, partial(_send_output, scope, wanted, position))


async def _send_output(scope: Scope, command_id: str, position: Position, stream: EventStream) -> None:
    news = _follow(scope, command_id, position)
    async for position, delta in news:
        await stream.write(_event(str(position), "BashOutputDelta", delta_event(command_id, delta)))
    outputs = await asyncio.to_thread(scope.history.outputs, command_id)
    exit_code = json.loads(outputs[-1])["exit_code"] if outputs else None
    end = {"command_id": command_id, "exit_code": exit_code, "kind": "BashEnd"}
    await stream.write(_event(str(position), "BashEnd", json.dumps(end)))


def delta_event(command_id: str, delta: Delta) -> str:
    """A BashOutputDelta as JSON; never stored."""
    fields = {
        "command_id": command_id,
        "stream": delta.stream,
        "offset_bytes": delta.offset_bytes,
        "text": delta.text,
        "kind": "BashOutputDelta",
    }
    return json.dumps(fields, ensure_ascii=False)


async def _follow(scope: Scope, command_id: str, position: Position) -> AsyncIterator[tuple[Position, Delta]]:
    """What comes after `position`, until the command has ended, and how far the reader has come with each piece."""
    live = LiveOutput(scope.history.directory, command_id)
    channel = Channel(scope.web.keys.bash_command(command_id))
    async with scope.web.hub.subscribe(channel, scope.web.settings.socket_backlog_bytes) as subscriber:
        has_ended = False
        while not has_ended:
            subscriber.take()
            # In this order: what was written before the end is there once the end is seen.
            has_ended = await asyncio.to_thread(scope.web.running_commands.find, command_id) is None
            if has_ended:
                deltas = await asyncio.to_thread(_rest, scope, command_id, position)
            else:
                deltas = await asyncio.to_thread(live.since, position, _PIECE_BYTES)
            for delta in deltas:
                position = position.after(delta)
                yield position, delta
            if not deltas and not has_ended:
                await subscriber.wait(_LOOK_AGAIN_SECONDS)


def _rest(scope: Scope, command_id: str, position: Position) -> list[Delta]:
    """What the stored outputs hold after `position`. Blocking."""
    outputs = [json.loads(output) for output in scope.history.outputs(command_id)]
    rest = []
    for stream, offset in zip(STREAMS, position, strict=True):
        text = "".join(output[stream] or "" for output in outputs)
        rest += deltas_of(stream, text.encode()[offset:], offset)
    return rest


def _position(request: Request) -> Position:
    given = request.headers.getone("last-event-id", None)
    try:
        return Position() if given is None else Position.parse(given)
    except ValueError:
        raise invalid_value("value_error", ["header", "last-event-id"], "Not an id of this stream", given) from None


def _event(event_id: str, name: str, data: str) -> bytes:
    """One server-sent event; JSON has no line breaks."""
    return f"id: {event_id}\nevent: {name}\ndata: {data}\n\n".encode()
