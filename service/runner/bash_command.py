"""One command of `/api/bash`: a shell in a session of its own, its output stored as it comes, and its end.

What is stored follows the contract: nothing before a stream has 1,048,576 characters, which then are one output; one
last output with the rest of both streams and the exit code. Clients append what they poll, so it must stay so.
"""

from __future__ import annotations

import asyncio
import codecs
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from service.errors import Conflict
from service.runner.command_process import CommandProcess, CommandRequest, spawn

CHUNK_CHARACTERS = 1 << 20
_GRACE_SECONDS = 1.0
"""Between SIGTERM and SIGKILL, and for the pipes to end after that (contract)."""
FAILED = -1

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
        self._process: CommandProcess | None = None
        self._is_stopped = False
        self._why_killed: str | None = None
        self._begun = asyncio.Event()
        self._end_now = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self, wanted: CommandRequest) -> None:
        """From the start to the last output, which is stored whatever happens."""
        exit_code = FAILED
        try:
            exit_code = await self._execute(wanted)
        except (OSError, ValueError) as error:
            self._buffers["stderr"].add(f"Error executing command: {error}")
        finally:
            self._begun.set()
            if self._why_killed is not None:
                exit_code = FAILED
                self._buffers["stderr"].add(self._why_killed)
            await self._store_output(exit_code, **{name: buffer.rest() for name, buffer in self._buffers.items()})
            self.ended.set()

    def stop(self) -> None:
        """Ask the whole process group to end, and end it a second later; also before it has begun."""
        self._is_stopped = True
        if self._process is not None:
            self._signal(signal.SIGTERM)
            asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._kill)

    def kill(self, why: str) -> None:
        """End it at once; its last output has exit code -1 and says why."""
        self._why_killed = why
        self._kill()

    async def process(self) -> CommandProcess:
        """For input and signals, once it has begun. Raises Conflict when it has ended."""
        await self._begun.wait()
        if self._process is None:
            raise Conflict("The command has ended.")
        return self._process

    async def _execute(self, wanted: CommandRequest) -> int:
        process = await spawn(wanted)
        self._process = process
        self._begun.set()
        if self._is_stopped:
            self.stop()
        pumps = [self._pump(process, name) for name in process.outputs]
        work: asyncio.Future[Any] = asyncio.gather(*pumps, process.wait())
        cut_off: asyncio.Future[Any] = asyncio.create_task(self._end_now.wait())
        try:
            done, _ = await asyncio.wait(
                [work, cut_off], timeout=max(0.0, wanted.timeout_seconds), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                self._signal(signal.SIGTERM)
                await asyncio.wait([work], timeout=_GRACE_SECONDS)
                self._kill()
            if not work.done():
                # Whoever left the group may still hold the pipes.
                await asyncio.wait([work], timeout=_GRACE_SECONDS)
            exit_code = process.exit_code()
            return FAILED if not done or exit_code is None else exit_code
        finally:
            cut_off.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            self._process = None
            await process.close()

    async def _pump(self, process: CommandProcess, name: str) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while data := await process.read(process.outputs[name]):
            await self._take(name, decoder.decode(data))
            await asyncio.sleep(0)  # a command that always has more must not keep the loop
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
        if self._process is not None:
            self._process.signal_group(number)
