"""`/sockets/events/{id}`: the state, the history if wanted, then every event as it happens."""

from __future__ import annotations

import asyncio
from typing import Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field
from sanic import Blueprint, Request
from sanic.server.websockets.impl import WebsocketImplProtocol

from service.blueprints.arguments import query, uuid_path
from service.blueprints.auth import authenticate
from service.blueprints.context import WebContext, web_of
from service.blueprints.event_query import EventFilter, Moment
from service.blueprints.frames import MARKER_BYTES, SizedFrames, accepted_bytes, text_frame
from service.blueprints.inbound import NotJson, message_body, server_error_event
from service.blueprints.socket import CloseCode, Socket, serving
from service.errors import ConversationNotFound, FanoutError, Unavailable
from service.pubsub.broker import Channel
from service.pubsub.feed import ConversationGone, Feed, LogBehind
from service.store.event_log import EventLog

blueprint = Blueprint("event_socket")

_PENDING_MESSAGES = 16
_RESEND_CHUNK = 100


class Resend(BaseModel):
    """Which stored events the client wants first."""

    resend_all: bool = False
    resend_mode: Literal["all", "since"] | None = None
    after_timestamp: Moment | None = None
    max_frame_bytes: int | None = Field(None, ge=MARKER_BYTES)
    """The largest frame the client takes; a larger event is told by a marker. Default: `accepted_bytes`."""

    @property
    def everything(self) -> bool:
        return self.resend_all or self.resend_mode == "all"


class Admitted(NamedTuple):
    """What the handshake asked for, checked before the socket opens."""

    conversation_id: UUID
    resend: Resend
    frame_limit_bytes: int | None


def admit(request: Request) -> Admitted:
    """Raises InvalidRequest for an id or a query value that is none; the handshake is then refused."""
    resend = query(request, Resend)
    limit_bytes = resend.max_frame_bytes or accepted_bytes(request.headers.get("user-agent", ""))
    return Admitted(uuid_path(request.match_info["conversation_id"]), resend, limit_bytes)


@blueprint.websocket("/sockets/events/<conversation_id:str>", ctx_admit=admit)  # type: ignore[untyped-decorator]
async def events(request: Request, websocket: WebsocketImplProtocol, conversation_id: str) -> None:
    async with serving(request, websocket) as socket:
        if not await authenticate(request, websocket):
            return
        admitted: Admitted = request.ctx.admitted
        try:
            await _serve(web_of(request), socket, admitted)
        except* (ConversationNotFound, ConversationGone):
            await socket.close(CloseCode.NOT_FOUND, "Conversation not found")
        except* LogBehind:
            await socket.close(CloseCode.TRY_AGAIN_LATER, "The event log is behind")
        except* Unavailable:
            await socket.close(CloseCode.TRY_AGAIN_LATER, "No runner is available")


async def _serve(web: WebContext, socket: Socket, admitted: Admitted) -> None:
    web.require(admitted.conversation_id)
    messages: asyncio.Queue[str | bytes] = asyncio.Queue(_PENDING_MESSAGES)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_read(socket, messages))
        tasks.create_task(_apply(web, socket, admitted.conversation_id, messages))
        tasks.create_task(_send_events(web, socket, admitted))


async def _send_events(web: WebContext, socket: Socket, admitted: Admitted) -> None:
    conversation_id = admitted.conversation_id
    sized = SizedFrames(conversation_id, admitted.frame_limit_bytes)
    channel = Channel(web.keys.events(conversation_id))
    async with web.hub.subscribe(channel, web.settings.socket_backlog_bytes) as subscriber:
        # Clients take the first frame, which must be a full state, as the sign that they are subscribed.
        await _send_full_state(web, socket, conversation_id)
        log = web.logs.open(conversation_id)
        feed = Feed(log, subscriber, await _resend(socket, log, admitted.resend, sized))
        async for batch in feed.batches():
            if batch:
                await socket.write(b"".join(map(sized.of_arrival, batch)))
            else:
                await _send_full_state(web, socket, conversation_id)


async def _resend(socket: Socket, log: EventLog, resend: Resend, sized: SizedFrames) -> int:
    """Send what `since` selects; returns the seq after which the feed goes on."""
    if resend.everything:
        return -1
    length = await log.length()
    if length is None:
        raise ConversationGone
    if resend.resend_mode == "since" and resend.after_timestamp is not None:
        wanted = EventFilter(timestamp__gte=resend.after_timestamp).select(await log.facts(), range(length))
        for start in range(0, len(wanted), _RESEND_CHUNK):
            stored = await log.read_many(wanted[start : start + _RESEND_CHUNK])
            await socket.write(b"".join(map(sized.of_event, stored)))
    return length - 1


async def _send_full_state(web: WebContext, socket: Socket, conversation_id: UUID) -> None:
    await socket.write(text_frame((await web.snapshot(conversation_id)).full_state))


async def _read(socket: Socket, messages: asyncio.Queue[str | bytes]) -> None:
    while True:
        await messages.put(await socket.read())


async def _apply(web: WebContext, socket: Socket, conversation_id: UUID, messages: asyncio.Queue[str | bytes]) -> None:
    """Pass on what the client sends, in order; what is wrong with it is told to this client only."""
    while True:
        frame = await messages.get()
        try:
            body = message_body(frame)
            if body is not None:
                await web.requester.ask("events.send", conversation_id, body=body, arguments={"always_run": True})
        except (NotJson, FanoutError) as error:
            await socket.write(text_frame(server_error_event(error)))
