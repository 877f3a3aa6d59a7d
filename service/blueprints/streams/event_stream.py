"""`.../events/stream`: the session's frames as server-sent events, for clients that cannot keep a WebSocket.

The id of a stored event is its seq, so a client that comes back with `Last-Event-ID` goes on from there.
"""

from __future__ import annotations

from sanic import Blueprint, Request

from service.blueprints.http.arguments import invalid_value, query, uuid_path
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented
from service.blueprints.streams.server_sent import EventStream, answer_with_events
from service.blueprints.streams.session import SessionQuery, follow
from service.blueprints.streams.session_frames import SERVER_SENT_EVENTS, SessionFrames
from service.errors import ConversationNotFound, Unavailable
from service.pubsub.feed import ConversationGone, LogBehind

blueprint = Blueprint("event_stream", url_prefix="/api/conversations/<conversation_id:str>/events")


@blueprint.get("/stream")
@documented(
    summary="The session as server-sent events",
    description="The data of each is a frame of `/sockets/session/{id}`; the id of a stored event is its seq.",
    query=SessionQuery,
    media_type="text/event-stream",
    response={"type": "string"},
    errors=(404, 422),
)
async def stream_conversation_events(request: Request, conversation_id: str) -> None:
    web = web_of(request)
    wanted = _resumed(request, query(request, SessionQuery))
    conversation = uuid_path(conversation_id)
    web.require(conversation)
    frames = SessionFrames(conversation, wanted.max_frame_bytes, SERVER_SENT_EVENTS)

    async def produce(stream: EventStream) -> None:
        try:
            await follow(web, conversation, wanted, frames, stream.write)
        except (ConversationNotFound, ConversationGone, LogBehind, Unavailable):
            return  # who comes back is told

    await answer_with_events(request, produce)


def _resumed(request: Request, wanted: SessionQuery) -> SessionQuery:
    """Raises InvalidRequest for a `Last-Event-ID` that is no seq; it wins over `after_seq`, which stays in the URL."""
    given = request.headers.getone("last-event-id", "")
    if not given:
        return wanted
    try:
        return wanted.model_copy(update={"after_seq": int(given)})
    except ValueError:
        raise invalid_value("int_parsing", ["header", "last-event-id"], "Not an id of this stream", given) from None
