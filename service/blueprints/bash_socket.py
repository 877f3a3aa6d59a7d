"""`/sockets/bash-events`: every shell command of the machine and its output as they come; commands may be sent."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Literal

from cachetools import FIFOCache, LRUCache
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from sanic import Blueprint, Request
from sanic.server.websockets.impl import WebsocketImplProtocol

from service.blueprints.bash import BashSearch, ExecuteBashRequest, Scope, search, start
from service.blueprints.bash_live import delta_event
from service.blueprints.http.arguments import query
from service.blueprints.http.auth import authenticate, is_auth_frame
from service.blueprints.http.context import WebContext, web_of
from service.blueprints.streams.frames import event_frame, text_frame
from service.blueprints.streams.inbound import NotJson, parse_frame
from service.blueprints.streams.socket import Socket, serving
from service.errors import FanoutError
from service.metrics import metrics
from service.pubsub.broker import Channel
from service.pubsub.hub import Subscriber
from service.store.bash_history import BashHistory
from service.store.live_output import LiveOutput, Position

blueprint = Blueprint("bash_socket")

_LOOK_AGAIN_SECONDS = 2.0
"""With no news for so long the history is looked at: the broker may have lost some."""
_OVERLAP_MICROS = 10_000_000
"""Further back than events of different hosts may overtake each other."""
_REMEMBERED_IDS = 20_000
_REMEMBERED_COMMANDS = 1024
_PIECE_BYTES = 256 * 1024
_ID = slice(7, 39)
"""Where a stored event has its id: after `{"id":"`."""


class BashResend(BaseModel):
    """Whether the client wants the history first."""

    resend_all: bool = False
    resend_mode: Literal["all"] | None = None
    stream: bool = False
    """Whether it wants output as it comes, as BashOutputDelta frames."""


def admit(request: Request) -> BashResend:
    """Raises InvalidRequest for a bad query value; the handshake is then refused."""
    return query(request, BashResend)


@blueprint.websocket("/sockets/bash-events", ctx_admit=admit)  # type: ignore[untyped-decorator]
async def bash_events(request: Request, websocket: WebsocketImplProtocol) -> None:
    async with serving(request, websocket) as socket:
        if not await authenticate(request, websocket):
            return
        web = web_of(request)
        wants: BashResend = request.ctx.admitted
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_take_commands(web, socket))
            if wants.stream:
                tasks.create_task(_send_live_output(web, socket))
            tasks.create_task(_send_events(web, socket, is_all=wants.resend_all or wants.resend_mode == "all"))


async def _take_commands(web: WebContext, socket: Socket) -> None:
    """Start what the client sends; what is wrong with it is told to this client only."""
    scope = Scope(web, BashHistory(web.settings.bash_events_dir))
    while True:
        frame = await socket.read()
        try:
            message = parse_frame(frame)
            if not is_auth_frame(message):
                await start(scope, ExecuteBashRequest.model_validate(message))
        except (NotJson, ValidationError, FanoutError) as error:
            await socket.write(text_frame(_bash_error(error)))


async def _send_events(web: WebContext, socket: Socket, *, is_all: bool) -> None:
    history = BashHistory(web.settings.bash_events_dir)
    sent: FIFOCache[bytes, None] = FIFOCache(_REMEMBERED_IDS)
    since = first = 0 if is_all else _now_micros()
    async with web.hub.subscribe(Channel(web.keys.bash), web.settings.socket_backlog_bytes) as subscriber:
        while True:
            await _send_history(history, socket, sent, since)
            since = max(first, _now_micros() - _OVERLAP_MICROS)
            await _send_live(subscriber, socket, sent)


async def _send_live(subscriber: Subscriber, socket: Socket, sent: FIFOCache[bytes, None]) -> None:
    """What is published; returns when some of it may have been lost."""
    while await subscriber.wait(_LOOK_AGAIN_SECONDS) and not subscriber.take_lagging():
        news = [arrival for arrival in subscriber.take() if _is_new(arrival.envelope.payload, sent)]
        if news:
            await socket.write(b"".join([arrival.frame(event_frame) for arrival in news]))
            metrics().deliveries.inc(len(news))


async def _send_live_output(web: WebContext, socket: Socket) -> None:
    """What running commands put out, from the moment each is first heard of, with all that came before."""
    positions: LRUCache[str, Position] = LRUCache(_REMEMBERED_COMMANDS)
    async with web.hub.subscribe(Channel(web.keys.bash_live), web.settings.socket_backlog_bytes) as subscriber:
        while True:
            await subscriber.wait(_LOOK_AGAIN_SECONDS)
            subscriber.take_lagging()  # a command that goes on is heard of again
            for command_id in dict.fromkeys(arrival.envelope.payload.decode() for arrival in subscriber.take()):
                position = positions.get(command_id, Position())
                live = LiveOutput(web.settings.bash_events_dir, command_id)
                while deltas := await asyncio.to_thread(live.since, position, _PIECE_BYTES):
                    for delta in deltas:
                        position = position.after(delta)
                        await socket.write(text_frame(delta_event(command_id, delta).encode()))
                positions[command_id] = position


async def _send_history(history: BashHistory, socket: Socket, sent: FIFOCache[bytes, None], since_micros: int) -> None:
    """What is stored since then and was not sent."""
    wanted = BashSearch(timestamp__gte=datetime.fromtimestamp(since_micros / 1_000_000, UTC))
    while True:
        events, next_page_id = await asyncio.to_thread(search, history, wanted, _PIECE_BYTES)
        frames = [text_frame(event) for event in events if _is_new(event, sent)]
        if frames:
            await socket.write(b"".join(frames))
            metrics().deliveries.inc(len(frames))
            metrics().replay_bytes.inc(sum(map(len, frames)))
        if next_page_id is None:
            return
        wanted = wanted.model_copy(update={"page_id": next_page_id})


def _is_new(event: bytes, sent: FIFOCache[bytes, None]) -> bool:
    """Whether this socket has not had it; from here on it has."""
    event_id = event[_ID]
    if event_id in sent:
        return False
    sent[event_id] = None
    return True


def _now_micros() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000_000)


def _bash_error(error: Exception) -> bytes:
    """A BashError as JSON; never stored."""
    code = "JSONDecodeError" if isinstance(error, NotJson) else type(error).__name__
    event = {
        "id": uuid.uuid4().hex,
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "code": code,
        "detail": str(error),
        "kind": "BashError",
    }
    return to_json(event)
