"""`/sockets/events/{id}`: the state, the history if wanted, then every event as it happens."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field
from sanic import Blueprint, Request
from sanic.server.websockets.impl import WebsocketImplProtocol

from service.blueprints.http.arguments import query, uuid_path
from service.blueprints.http.context import WebContext
from service.blueprints.http.event_query import EventFilter, Moment
from service.blueprints.streams.conversation_socket import converse
from service.blueprints.streams.frames import MARKER_BYTES, SizedFrames, accepted_bytes, text_frame
from service.blueprints.streams.inbound import server_error_event
from service.blueprints.streams.presence import WatcherName
from service.blueprints.streams.socket import Socket
from service.metrics import metrics
from service.pubsub.feed import ConversationGone, Feed
from service.store.event_log import EventLog

blueprint = Blueprint("event_socket")

_RESEND_CHUNK = 100


class Resend(BaseModel):
    """Which stored events the client wants first."""

    resend_all: bool = False
    resend_mode: Literal["all", "since"] | None = None
    after_timestamp: Moment | None = None
    max_frame_bytes: int | None = Field(None, ge=MARKER_BYTES)
    """The largest frame the client takes; a larger event is told by a marker. Default: `accepted_bytes`."""

    watcher: WatcherName | None = None
    """A name to be shown to others who watch."""

    @property
    def everything(self) -> bool:
        """A mode goes over what clients before it say."""
        return self.resend_all if self.resend_mode is None else self.resend_mode == "all"


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
    admitted: Admitted = request.ctx.admitted
    send = partial(_send_events, admitted=admitted)
    await converse(request, websocket, admitted.conversation_id, admitted.resend.watcher, send, server_error_event)


async def _send_events(web: WebContext, socket: Socket, admitted: Admitted) -> None:
    conversation_id = admitted.conversation_id
    sized = SizedFrames(conversation_id, admitted.frame_limit_bytes)
    async with web.watch(conversation_id, admitted.resend.watcher) as subscriber:
        log = web.logs.open(conversation_id)
        # Clients take the first frame, which must be a full state, as the sign that they are subscribed: what is
        # appended from then on is theirs, so where the feed starts is settled before.
        length = await log.length()
        if length is None:
            raise ConversationGone
        await _send_full_state(web, socket, conversation_id)
        deliveries = metrics().deliveries
        after_seq = await _resend(socket, log, length, admitted.resend, sized)
        stream_epoch = web.stream_epochs.of(web.root.directory(conversation_id))
        feed = Feed(log, subscriber, after_seq, partial(socket.take_at_once, sized.of_arrival), stream_epoch)
        async for batch in feed.batches():
            if batch:
                await socket.write(b"".join(map(sized.of_arrival, batch)))
                deliveries.inc(len(batch))
            else:
                await _send_full_state(web, socket, conversation_id)


async def _resend(socket: Socket, log: EventLog, length: int, resend: Resend, sized: SizedFrames) -> int:
    """Send what `since` selects of so many events; returns the seq after which the feed goes on."""
    if resend.everything:
        return -1
    if resend.resend_mode == "since" and resend.after_timestamp is not None:
        wanted = EventFilter(timestamp__gte=resend.after_timestamp).select(await log.facts(length), range(length))
        for start in range(0, len(wanted), _RESEND_CHUNK):
            stored = await log.read_many(wanted[start : start + _RESEND_CHUNK])
            await socket.write(b"".join(map(sized.of_event, stored)))
            metrics().deliveries.inc(len(stored))
            metrics().replay_bytes.inc(sum(map(len, stored)))
    return length - 1


async def _send_full_state(web: WebContext, socket: Socket, conversation_id: UUID) -> None:
    await socket.write(text_frame(await web.full_state(conversation_id)))
