"""A program of which each host runs one, whatever the number of its runners: an editor, a desktop.

The runner that holds a lock file keeps the program alive; when that runner dies the kernel frees the lock, and the next
one ends what is left of the program and starts it anew. How the program can be reached is in a file beside the lock, so
any runner of the host can tell. Both are in the host's temporary folder, never on a shared volume.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import secrets
import shlex
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from service.errors import Unavailable
from service.runner.bash.process import CommandProcess, CommandRequest, spawn
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_LOCK_SECONDS = 1.0
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_STOP_LOOKS = 100
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 60.0


class Program(Protocol):
    """What is to be run."""

    name: str
    port: int

    def command(self, token: str) -> list[str]:
        """Program and arguments, after whatever has to be there before. `token` opens it. Blocking.

        Raises:
            Unavailable: it is not installed.
            OSError: something else is in the way.
        """

    async def wait_ready(self, lines: AsyncIterator[str]) -> None:
        """Return when it serves. `lines` are what it prints."""

    def clean_up(self) -> None:
        """End what its own process group does not hold, as far as possible. Blocking."""


class Running(NamedTuple):
    """How a program that serves can be reached."""

    pid: int
    """Of its process group."""
    token: str
    started: str
    """When, as `/proc` has it: a pid may be another's by now."""


class HostProgram:
    """One program on this host, for one runner."""

    def __init__(self, program: Program, directory: Path | None = None) -> None:
        """`directory` is for locks and tokens, by default this user's own in the temporary folder."""
        self._program = program
        self._directory = directory or Path(tempfile.gettempdir()) / f"fanout-{os.getuid()}"
        name = f"{program.name}-{program.port}"
        self._lock_path = self._directory / f"{name}.lock"
        self._state_path = self._directory / f"{name}.json"
        self.problem = ""
        """Why it did not run when it was last tried, if it did not."""

    def find(self) -> Running | None:
        """The program, whichever runner of this host keeps it, once it serves. Blocking."""
        found = self._left()
        return found if found is not None and _is_alive(found) else None

    async def keep(self) -> None:
        """Keep it running while this runner has the lock; ends it when cancelled."""
        while True:
            try:
                lock = await asyncio.to_thread(self._try_lock)
                if lock is not None:
                    try:
                        await asyncio.to_thread(self._end_left)
                        await self._run_again_and_again()
                    finally:
                        os.close(lock)
            except OSError as error:
                self._tell(str(error))
            await asyncio.sleep(_LOCK_SECONDS)

    async def _run_again_and_again(self) -> None:
        delay_seconds = _FIRST_DELAY_SECONDS
        while True:
            try:
                if await self._run():
                    delay_seconds = _FIRST_DELAY_SECONDS
                self._tell("it has ended")
            except OSError as error:
                self._tell(str(error))
            except Unavailable as error:
                self._tell(str(error), logging.INFO)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, _LONGEST_DELAY_SECONDS)

    def _tell(self, problem: str, level: int = logging.WARNING) -> None:
        """Log why it does not run, once."""
        if problem != self.problem:
            _log.log(level, "host_program_does_not_run", program=self._program.name, reason=problem)
        self.problem = problem

    async def _run(self) -> bool:
        """From the start to the end; whether it ever served."""
        token = secrets.token_hex(32)
        command = await asyncio.to_thread(self._program.command, token)
        wanted = CommandRequest(f"exec {shlex.join(command)} 2>&1", None, 0)
        process = await asyncio.to_thread(spawn, wanted)
        output, tasks = _Output(process), TaskSet()
        try:
            draining = tasks.start(output.drain(), "output of a host program")
            ready = tasks.start(self._program.wait_ready(output.lines()), "start of a host program")
            await asyncio.wait([ready, draining], timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                return False
            running = Running(process.pid, token, _start_time(process.pid))
            await asyncio.to_thread(self._write, running)
            _log.info("host_program_serves", program=self._program.name, port=self._program.port)
            await process.wait()
            return True
        finally:
            self._state_path.unlink(missing_ok=True)
            await _end(process)
            await tasks.stop()
            await process.close()
            await asyncio.to_thread(self._program.clean_up)

    def _try_lock(self) -> int | None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if self._directory.stat().st_uid != os.getuid():
            raise OSError(f"{self._directory} belongs to another user")
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _end_left(self) -> None:
        """What a runner that was killed could not end."""
        left = self._left()
        # Its leader may have died of the broken pipe. While anybody is in the group nobody else can have its number.
        if left is not None and _start_time(left.pid) in ("", left.started):
            with suppress(ProcessLookupError):
                os.killpg(left.pid, signal.SIGKILL)
        self._state_path.unlink(missing_ok=True)

    def _left(self) -> Running | None:
        try:
            return Running(**json.loads(self._state_path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # or what another version of this server wrote

    def _write(self, running: Running) -> None:
        temporary = self._state_path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(running._asdict(), file)
        temporary.rename(self._state_path)


class _Output:
    """What a program prints: read to the end, and thrown away but for who waits for a line."""

    def __init__(self, process: CommandProcess) -> None:
        self._process = process
        self._lines: asyncio.Queue[str] = asyncio.Queue(maxsize=100)

    async def drain(self) -> None:
        rest = b""
        while data := await self._process.read(self._process.outputs["stdout"]):
            *lines, rest = (rest + data)[-(1 << 16) :].split(b"\n")
            for line in lines:
                if self._lines.full():
                    self._lines.get_nowait()
                self._lines.put_nowait(line.decode("utf-8", "replace"))

    async def lines(self) -> AsyncIterator[str]:
        while True:
            yield await self._lines.get()


async def _end(process: CommandProcess) -> None:
    """End the whole group: the program may be a script whose children serve."""
    process.signal_group(signal.SIGTERM)
    for _ in range(_STOP_LOOKS):
        if process.exit_code() is not None and not process.has_group():
            return
        await asyncio.sleep(_STOP_SECONDS / _STOP_LOOKS)
    process.signal_group(signal.SIGKILL)
    await process.wait()


def _is_alive(running: Running) -> bool:
    return _start_time(running.pid) == running.started


def _start_time(pid: int) -> str:
    """Empty for a process that does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
