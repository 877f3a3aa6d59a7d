"""One command of `/api/bash`: a shell in a session of its own, its output stored as it comes, and its end.

What is stored follows the contract: nothing before a stream has 1,048,576 characters, which then are one output; one
last output with the rest of both streams and the exit code. Clients append what they poll, so it must stay so.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

CHUNK_CHARACTERS = 1 << 20
_READ_BYTES = 1 << 16
_GRACE_SECONDS = 1.0
"""Between SIGTERM and SIGKILL, and for the pipes to end after that (contract)."""
FAILED = -1

_SHELL = shutil.which("bash") or "/bin/sh"
_HIDDEN = {
    "SESSION_API_KEY",
    "OH_SECRET_KEY",
    "REDIS_URL",
    "OH_REDIS_URL",
    "LMNR_PROJECT_API_KEY",
    "OTEL_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
}
_HIDDEN_PREFIXES = ("OH_SESSION_API_KEYS_", "OH_PREVIOUS_SECRET_KEYS")

Store = Callable[[int, int | None, str | None, str | None], Awaitable[None]]
"""Stores and publishes an output: order, exit code, stdout, stderr."""
Show = Callable[[str, str], None]
"""Lets those who watch have some text of a stream; never blocks."""


class _Buffer:
    """What of one stream is not stored yet."""

    def __init__(self) -> None:
        self.length = 0
        """In characters."""
        self._parts: deque[str] = deque()
        self._left_out = 0

    def add(self, text: str) -> None:
        self._parts.append(text)
        self.length += len(text)

    def take(self, length: int) -> str:
        """The oldest characters, which are there."""
        text = "".join(self._parts)
        self._parts = deque([text[length:]])
        self.length -= length
        return text[:length]

    def keep_last(self, length: int) -> None:
        """Leave out the oldest parts; somewhat more than `length` characters stay."""
        while self.length - len(self._parts[0]) >= length:
            self._left_out += len(self._parts[0])
            self.length -= len(self._parts.popleft())

    def rest(self) -> str | None:
        """Everything, after a line that says how much is missing before it; None for nothing."""
        text = "".join(self._parts)
        return f"\n[{self._left_out} characters left out]\n{text}" if self._left_out else text or None


class BashCommand:
    """`run` it once; the other methods are for meanwhile. Methods of the runner's loop."""

    def __init__(self, store: Store, show: Show, output_limit_characters: int) -> None:
        self._store = store
        self._show = show
        self._room = output_limit_characters
        self._order = 0
        self._storing = asyncio.Lock()
        self._buffers = {"stdout": _Buffer(), "stderr": _Buffer()}
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False
        self._why_killed: str | None = None
        self._end_now = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self, command: str, cwd: str | None, timeout_seconds: float) -> None:
        """From the start to the last output, which is stored whatever happens."""
        exit_code = FAILED
        try:
            exit_code = await self._execute(command, cwd, timeout_seconds)
        except (OSError, ValueError) as error:
            self._buffers["stderr"].add(f"Error executing command: {error}")
        finally:
            if self._why_killed is not None:
                exit_code = FAILED
                self._buffers["stderr"].add(self._why_killed)
            await self._store_output(exit_code, **{name: buffer.rest() for name, buffer in self._buffers.items()})
            self.ended.set()

    def stop(self) -> None:
        """Ask the whole process group to end, and end it a second later; also before it has begun."""
        self._is_stopped = True
        if self._process is not None and not self.ended.is_set():
            self._signal(signal.SIGTERM)
            asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._kill)

    def kill(self, why: str) -> None:
        """End it at once; its last output has exit code -1 and says why."""
        self._why_killed = why
        self._kill()

    async def _execute(self, command: str, cwd: str | None, timeout_seconds: float) -> int:
        # Not asyncio's own: it looks for a child watcher, which the policy of a web role on uvloop does not have.
        process = await asyncio.to_thread(_spawn, command, cwd)
        self._process = process
        if self._is_stopped:
            self.stop()
        pipes = {"stdout": process.stdout, "stderr": process.stderr}
        streams = {name: await _reading(pipe) for name, pipe in pipes.items()}
        pumps = [self._pump(reader, name) for name, (reader, _) in streams.items()]
        work: asyncio.Future[Any] = asyncio.gather(*pumps, _exit_of(process))
        cut_off: asyncio.Future[Any] = asyncio.create_task(self._end_now.wait())
        try:
            done, _ = await asyncio.wait(
                [work, cut_off], timeout=max(0.0, timeout_seconds), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                self._signal(signal.SIGTERM)
                await asyncio.wait([work], timeout=_GRACE_SECONDS)
                self._kill()
            if not work.done():
                # Whoever left the group may still hold the pipes.
                await asyncio.wait([work], timeout=_GRACE_SECONDS)
            exit_code = process.poll()
            return FAILED if not done or exit_code is None else exit_code
        finally:
            cut_off.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            for _, transport in streams.values():
                transport.close()

    async def _pump(self, stream: asyncio.StreamReader, name: str) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while data := await stream.read(_READ_BYTES):
            await self._take(name, decoder.decode(data))
        await self._take(name, decoder.decode(b"", final=True))

    async def _take(self, name: str, text: str) -> None:
        """Keep some output; returns when it is stored, so a slow disk slows the command down."""
        if not text:
            return
        buffer = self._buffers[name]
        buffer.add(text)
        if self._room >= CHUNK_CHARACTERS:
            self._show(name, text)
        while buffer.length > CHUNK_CHARACTERS:
            if self._room < CHUNK_CHARACTERS:
                buffer.keep_last(CHUNK_CHARACTERS)
                return
            self._room -= CHUNK_CHARACTERS
            await self._store_output(None, **{name: buffer.take(CHUNK_CHARACTERS)})

    async def _store_output(self, exit_code: int | None, stdout: str | None = None, stderr: str | None = None) -> None:
        async with self._storing:
            order, self._order = self._order, self._order + 1
            await self._store(order, exit_code, stdout, stderr)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._end_now.set()

    def _signal(self, number: signal.Signals) -> None:
        """To the group, whose id is the shell's, also when the shell itself has gone."""
        if self._process is not None and not self.ended.is_set():
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _spawn(command: str, cwd: str | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [_SHELL, "-c", command],
        cwd=cwd or None,
        env=command_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )


async def _reading(pipe: Any) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader(limit=_READ_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader, transport


async def _exit_of(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end; on Linux without a thread."""
    if not hasattr(os, "pidfd_open"):
        return await asyncio.to_thread(process.wait)
    loop, has_ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, has_ended.set)
    try:
        await has_ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def command_environment() -> dict[str, str]:
    """The server's environment without its secrets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _HIDDEN and not name.startswith(_HIDDEN_PREFIXES)
    }
    if not kept.get("AI_AGENT", "").strip():
        kept["AI_AGENT"] = "openhands"
    return kept
