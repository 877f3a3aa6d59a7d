"""One command of `/api/bash`: a shell in a session of its own, its output stored as it comes, and its end.

What is stored follows the contract: nothing before a stream has 1,048,576 characters, which then are one output; one
last output with the rest of both streams and the exit code. Clients append what they poll, so it must stay so.
"""

from __future__ import annotations

import asyncio
import codecs
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from service.errors import Conflict
from service.runner.bash.process import CommandProcess, CommandRequest, spawn
from service.runner.full_disk import once_stored
from service.runner.workers import Workers
from service.tasks import TaskSet

CHUNK_CHARACTERS = 1 << 20
_GRACE_SECONDS = 1.0
"""Between SIGTERM and SIGKILL, and for the pipes to end after that (contract)."""
FAILED = -1


class Output(NamedTuple):
    """Some output of a command; with an exit code, the last."""

    order: int
    exit_code: int | None
    stdout: str | None
    stderr: str | None


Store = Callable[[Output], bytes | None]
"""Stores an output and returns its event, or None when the history is gone; blocking."""
Tell = Callable[[bytes], None]
"""Publishes an event; never blocks."""
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
    """`begin` it once, in a worker, and then `run` it; the other methods are for meanwhile, on the runner's loop."""

    def __init__(
        self,
        wanted: CommandRequest,
        workers: Workers,
        store: Store,
        tell: Tell,
        show: Show,
        output_limit_characters: int,
    ) -> None:
        self._wanted = wanted
        self._workers = workers
        self._store = store
        self._tell = tell
        self._show = show
        self._room = output_limit_characters
        self._order = 0
        self._tasks = TaskSet()
        self._storing = asyncio.Lock()
        self._buffers = {"stdout": _Buffer(), "stderr": _Buffer()}
        self._process: CommandProcess | None = None
        """Between its start and its end."""
        self._first: dict[str, bytearray] = {}
        """What was read before `run`."""
        self._exit_code = FAILED
        """What it ended with, once it has."""
        self._last_event: bytes | None = None
        self._is_stopped = False
        self._grace: asyncio.TimerHandle | None = None
        self._why_killed: str | None = None
        self._begun = asyncio.Event()
        self._end_now = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def only_event(self) -> bytes | None:
        """The event of the last output when there was no other; None before the end."""
        return self._last_event if self.ended.is_set() and not self._order else None

    def begin(self, patience_seconds: float) -> None:
        """Start it, and stay with it for so long: what is over by then costs its runner's loop nothing. Blocking."""
        try:
            self._process = process = spawn(self._wanted)
        except (OSError, ValueError) as error:
            self._buffers["stderr"].add(f"Error executing command: {error}")
            self._end_if_stored()
            return
        if patience_seconds <= 0 or self._is_stopped or self._why_killed is not None:
            return
        try:
            self._first, is_over = process.first_moments(min(patience_seconds, self._wanted.timeout_seconds))
        except OSError:
            return  # `run` finds that it cannot follow it, and says so
        if is_over:
            exit_code = process.exit_code()
            self._process = None
            process.close_unfed()
            for name, data in self._first.items():
                self._buffers[name].add(data.decode("utf-8", "replace"))
            self._exit_code = FAILED if exit_code is None else exit_code
            self._end_if_stored()

    async def run(self) -> None:
        """From where `begin` has left it to its last output, which is stored whatever happens."""
        self._begun.set()
        try:
            if self._process is not None:
                self._exit_code = await self._execute(self._process)
        except OSError as error:
            self._buffers["stderr"].add(f"Error executing command: {error}")
        finally:
            try:
                await self._finish()
            finally:
                await self._tasks.stop()

    def stop(self) -> None:
        """Ask the whole process group to end, and end it a second later; also before it has begun."""
        self._is_stopped = True
        if self._process is not None and self._grace is None:
            self._signal(signal.SIGTERM)
            self._grace = asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._kill)

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

    async def _execute(self, process: CommandProcess) -> int:
        # It may have been told so before it had begun.
        if self._why_killed is not None:
            self._kill()
        elif self._is_stopped:
            self.stop()
        pumps = [self._pump(process, name) for name in process.outputs]
        work: asyncio.Future[Any] = asyncio.gather(*pumps, process.wait())
        cut_off: asyncio.Future[Any] = asyncio.create_task(self._end_now.wait())
        try:
            done, _ = await asyncio.wait(
                [work, cut_off], timeout=max(0.0, self._wanted.timeout_seconds), return_when=asyncio.FIRST_COMPLETED
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
        await self._take(name, decoder.decode(bytes(self._first.get(name, b""))))
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
            stored = self._tasks.start(self._store_some(**{name: buffer.take(CHUNK_CHARACTERS)}), "output")
            await asyncio.shield(stored)  # who is cut off here has it stored all the same, before the last output

    async def _store_some(self, stdout: str | None = None, stderr: str | None = None) -> None:
        async with self._storing:
            output, self._order = Output(self._order, None, stdout, stderr), self._order + 1
            event = await self._once_stored(lambda: self._store(output))
        if event is not None:
            self._tell(event)

    def _end_if_stored(self) -> None:
        with suppress(OSError):  # `run` tries again
            self._end()

    def _end(self) -> None:
        """Store the last output. Blocking."""
        exit_code, rest = self._exit_code, {name: buffer.rest() for name, buffer in self._buffers.items()}
        if self._why_killed is not None:
            exit_code, rest["stderr"] = FAILED, (rest["stderr"] or "") + self._why_killed
        self._last_event = self._store(Output(self._order, exit_code, **rest))

    async def _finish(self) -> None:
        try:
            async with self._storing:
                if self._last_event is None:
                    await self._once_stored(self._end)
        finally:
            if self._last_event is not None:
                self._tell(self._last_event)
            self.ended.set()

    async def _once_stored[Result](self, write: Callable[[], Result]) -> Result:
        return await once_stored(lambda: self._workers.call(write), "output_not_stored")

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._end_now.set()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.signal_group(number)
