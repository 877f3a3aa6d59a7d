"""What both sockets of a conversation have in common: who may open them, what clients send, how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from uuid import UUID

from sanic import Request
from sanic.server.websockets.impl import WebsocketImplProtocol

from service.blueprints.http.auth import authenticate
from service.blueprints.http.context import WebContext, web_of
from service.blueprints.streams.frames import text_frame
from service.blueprints.streams.inbound import NotJson, Problem, message_body, problem_of
from service.blueprints.streams.socket import CloseCode, Socket, serving
from service.errors import ConversationNotFound, FanoutError, Unavailable
from service.pubsub.feed import ConversationGone, LogBehind

_PENDING_MESSAGES = 16


async def converse(
    request: Request,
    websocket: WebsocketImplProtocol,
    conversation_id: UUID,
    watcher: str | None,
    send: Callable[[WebContext, Socket], Coroutine[None, None, None]],
    render_problem: Callable[[Problem], bytes],
) -> None:
    """Serve one socket to its end: `send` writes what happens, and what the client sends goes to the owner.

    Args:
        watcher: the sender of messages that do not name one.
        render_problem: makes the JSON that tells this client what was wrong with what it sent.
    """
    async with serving(request, websocket) as socket:
        if not await authenticate(request, websocket):
            return
        web = web_of(request)
        messages: asyncio.Queue[str | bytes] = asyncio.Queue(_PENDING_MESSAGES)
        try:
            web.require(conversation_id)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_read(socket, messages))
                tasks.create_task(_apply(web, socket, conversation_id, watcher, messages, render_problem))
                tasks.create_task(send(web, socket))
        except* (ConversationNotFound, ConversationGone):
            await socket.close(CloseCode.NOT_FOUND, "Conversation not found")
        except* LogBehind:
            await socket.close(CloseCode.TRY_AGAIN_LATER, "The event log is behind")
        except* Unavailable:
            await socket.close(CloseCode.TRY_AGAIN_LATER, "No runner is available")


async def _read(socket: Socket, messages: asyncio.Queue[str | bytes]) -> None:
    while True:
        await messages.put(await socket.read())


async def _apply(
    web: WebContext,
    socket: Socket,
    conversation_id: UUID,
    watcher: str | None,
    messages: asyncio.Queue[str | bytes],
    render_problem: Callable[[Problem], bytes],
) -> None:
    """Pass on what the client sends, in order; what is wrong with it is told to this client only."""
    while True:
        frame = await messages.get()
        try:
            body = message_body(frame, watcher)
            if body is not None:
                await web.requester.ask("events.send", conversation_id, body=body, arguments={"always_run": True})
        except (NotJson, FanoutError) as error:
            await socket.write(text_frame(render_problem(problem_of(error))))
