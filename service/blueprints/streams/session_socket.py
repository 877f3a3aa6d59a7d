"""`/sockets/session/{id}`: a conversation's log from a position on, with each event's seq, and answers as they grow."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple
from uuid import UUID

from pydantic_core import to_json
from sanic import Blueprint, Request
from sanic.server.websockets.impl import WebsocketImplProtocol

from service.blueprints.http.arguments import query, uuid_path
from service.blueprints.http.context import WebContext
from service.blueprints.streams.conversation_socket import converse
from service.blueprints.streams.frames import accepted_bytes
from service.blueprints.streams.inbound import Problem
from service.blueprints.streams.session import SessionQuery, follow
from service.blueprints.streams.session_frames import TEXT_FRAMES, SessionFrames
from service.blueprints.streams.socket import Socket

blueprint = Blueprint("session_socket")

_FRAME_LIMIT_BYTES = 4 << 20
"""Where the published server closes a socket over a larger frame; its clients expect none."""


class Admitted(NamedTuple):
    """What the handshake asked for, checked before the socket opens."""

    conversation_id: UUID
    wanted: SessionQuery
    frame_limit_bytes: int


def admit(request: Request) -> Admitted:
    """Raises InvalidRequest for an id or a query value that is none; the handshake is then refused."""
    wanted = query(request, SessionQuery)
    usual_bytes = accepted_bytes(request.headers.get("user-agent", "")) or _FRAME_LIMIT_BYTES
    conversation_id = uuid_path(request.match_info["conversation_id"])
    return Admitted(conversation_id, wanted, wanted.max_frame_bytes or usual_bytes)


@blueprint.websocket("/sockets/session/<conversation_id:str>", ctx_admit=admit)  # type: ignore[untyped-decorator]
async def session(request: Request, websocket: WebsocketImplProtocol, conversation_id: str) -> None:
    admitted: Admitted = request.ctx.admitted
    send = partial(_send_session, admitted=admitted)
    await converse(request, websocket, admitted.conversation_id, admitted.wanted.watcher, send, _error_frame)


async def _send_session(web: WebContext, socket: Socket, admitted: Admitted) -> None:
    frames = SessionFrames(admitted.conversation_id, admitted.frame_limit_bytes, TEXT_FRAMES)
    take_at_once = partial(socket.take_at_once, frames.of_arrival)
    await follow(web, admitted.conversation_id, admitted.wanted, frames, socket.write, take_at_once)


def _error_frame(problem: Problem) -> bytes:
    return to_json({"type": "error", **problem._asdict()})
