"""What cannot be beaten: the same bytes through the bare library, server or file, with nothing around it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.clock import cpu_of, percentile_ms
from bench.sides import Figures
from tests.redis_process import RedisProcess
from tests.server_process import REPOSITORY

SOCKETS = 400
MESSAGES = 200
MESSAGE_BYTES = 929
"""What a message of `bench.delivery` is as a frame."""


def all_limits() -> Figures:
    return asyncio.run(_broadcasting()) | publishing() | reading_files()


async def _broadcasting() -> Figures:
    """`websockets.broadcast` to as many sockets as `bench.delivery` has."""
    with _broadcast_server() as (url, pid):
        async with connect(url, proxy=None, compression=None) as speaker:
            listeners = await asyncio.gather(*(connect(url, proxy=None, compression=None) for _ in range(SOCKETS)))
            with cpu_of(pid) as cpu:
                await speaker.send(str(MESSAGES))
                await asyncio.gather(*(_receive(listener) for listener in listeners))
            await asyncio.gather(*(listener.close() for listener in listeners))
    return {f"websockets.broadcast to {SOCKETS} sockets, CPU µs": 1e6 * cpu.seconds / (SOCKETS * MESSAGES)}


async def _receive(listener: ClientConnection) -> None:
    for _ in range(MESSAGES):
        await listener.recv(decode=False)


def publishing() -> Figures:
    """From PUBLISH to its receiver in another connection, over a Redis of its own."""
    with tempfile.TemporaryDirectory() as name, RedisProcess(Path(name)) as process:
        publisher, channel = redis.Redis.from_url(process.url), redis.Redis.from_url(process.url).pubsub()  # type: ignore[no-untyped-call]
        channel.subscribe("bench")
        took: list[float] = []
        while len(took) < 1000:
            message = channel.get_message(timeout=1)
            if message is not None and message["type"] == "message":
                took.append(time.perf_counter() - float(message["data"]))
            publisher.publish("bench", repr(time.perf_counter()))
        channel.close()
        publisher.close()
    return {"Redis, publish to receive, p50 ms": percentile_ms(took, 50)}


def reading_files() -> Figures:
    """A hundred files of an event's size, from the page cache."""
    with tempfile.TemporaryDirectory() as name:
        paths = [f"{name}/{number}" for number in range(100)]
        for path in paths:
            Path(path).write_bytes(b"x" * 400)
        before, times = time.process_time(), 100
        for _ in range(times):
            for path in paths:
                descriptor = os.open(path, os.O_RDONLY)
                os.read(descriptor, 1 << 16)
                os.close(descriptor)
        return {"reading 100 small files, CPU ms": 1000 * (time.process_time() - before) / times}


@contextmanager
def _broadcast_server() -> Iterator[tuple[str, int]]:
    """Its address and its process."""
    command = [sys.executable, "-m", "bench.limits"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _serve_broadcasts() -> None:
    """Whoever says a number has that many messages sent to the others."""
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        async for count in connection:
            connections.discard(connection)
            for _ in range(int(count)):
                broadcast(connections, "x" * MESSAGE_BYTES)
                await asyncio.sleep(0.005)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        sys.stdout.write(f"ws://127.0.0.1:{port}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_serve_broadcasts())
