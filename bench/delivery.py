"""Live events at many sockets of one conversation: what a delivery costs beside the write that causes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect

from bench.clock import cpu_of
from bench.sides import Figures, Subject
from tests.integration.contract.conversations import Conversation, user_message

MESSAGES = 200
LAST_OF_A_MESSAGE = '"last_user_message_id"'
"""The state update that follows every message; the state itself has such a field, too."""
CONNECTS_AT_ONCE = 20
SOCKETS_AT_THE_PEER = 40
"""It takes 49 on one conversation."""


def deliveries(subject: Subject, sockets: int, messages: int = MESSAGES) -> Figures:
    """CPU of the server for each event at each of so many sockets, with the posts that cause them and without."""
    one = subject.create()
    alone, _ = asyncio.run(_cpu_of_messages(subject, one, 0, messages))
    cpu, delivered = asyncio.run(_cpu_of_messages(subject, one, sockets, messages))
    return {
        f"delivery at {sockets} sockets, CPU µs": 1e6 * (cpu - alone) / delivered,
        f"delivery at {sockets} sockets with its POST, CPU µs": 1e6 * cpu / delivered,
    }


async def _cpu_of_messages(subject: Subject, one: Conversation, sockets: int, messages: int) -> tuple[float, int]:
    """The CPU of so many messages, one after the other, in seconds, and how many frames all sockets received."""
    async with _audience(subject, one, sockets) as connections:
        with cpu_of(subject.server.pid) as cpu:
            readers = [asyncio.create_task(_read(connection, messages)) for connection in connections]
            await asyncio.to_thread(_post, one, messages)
            frames = await asyncio.wait_for(asyncio.gather(*readers), 120)
        return cpu.seconds, sum(frames)


@asynccontextmanager
async def _audience(subject: Subject, one: Conversation, sockets: int) -> AsyncIterator[list[ClientConnection]]:
    """Sockets that have been sent the state, which comes first."""
    url = f"{subject.server.url.replace('http', 'ws')}/sockets/events/{one.id}"
    places = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def join() -> ClientConnection:
        async with places:
            connection = await connect(url, proxy=None, compression=None, max_size=None, open_timeout=60)
            await connection.recv()
            return connection

    connections = await asyncio.gather(*(join() for _ in range(sockets)))
    try:
        yield connections
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


def _post(one: Conversation, messages: int) -> None:
    body = user_message("x" * 600)
    for _ in range(messages):
        one.post("/events", body).raise_for_status()


async def _read(connection: ClientConnection, messages: int) -> int:
    """Frames until so many messages are complete."""
    frames = seen = 0
    while seen < messages:
        frame = await connection.recv(decode=False)
        frames += 1
        seen += len(frame) < 600 and LAST_OF_A_MESSAGE.encode() in frame
    return frames
