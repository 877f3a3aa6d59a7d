"""The process group of one command, with its pipes or its terminal. Methods of the runner's loop.

Descriptors are read and written when the loop finds them ready, not with the loop's transports: those of uvloop know
no terminals, and asyncio's processes want a child watcher, which the policy of a web role on uvloop does not have.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import shutil
import subprocess
import termios
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from signal import Signals
from typing import IO, Any, NamedTuple

from service.errors import Conflict
from service.settings.secrets import without_secrets
from service.tasks import TaskSet

_READ_BYTES = 1 << 16
_FIRST_BYTES = 1 << 18
"""Of a command's output that `first_moments` takes; one with more to say is not over soon."""
INPUT_LIMIT_BYTES = 1 << 20
"""Of what has been sent to a command and not been read by it."""

_SHELL = shutil.which("bash") or "/bin/sh"
_ON_TERMINAL = 'exec 0<>"$0" 1>&0 2>&1 && exec "$1" -c "$2"'
"""A leader of a session that opens a terminal gets it as its controlling one, which brings Ctrl-C and job control.

Python's own way there is code of ours between fork and exec, which is unsafe in a process with threads.
"""
_END_OF_TRANSMISSION = b"\x04"
_CLOSE = b""


class TerminalSize(NamedTuple):
    """In characters."""

    columns: int
    rows: int


class CommandRequest(NamedTuple):
    """What is to be run, and how."""

    command: str
    cwd: str | None
    timeout_seconds: int
    takes_input: bool = False
    """Whether its standard input is a pipe; otherwise it is empty."""
    terminal: TerminalSize | None = None
    """With one it is standard input and both outputs, and what the command prints is all stdout."""


class FirstMoments(NamedTuple):
    """What a command has put out so far, by stream, and whether that was all and the shell has ended."""

    read: dict[str, bytearray]
    is_over: bool


class CommandProcess:
    """Made by `spawn`; to be closed."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int | None) -> None:
        self._process = process
        self._terminal = terminal
        self._input = _input_of(process, terminal)
        self._unread: deque[bytes] = deque()
        self._feeding = TaskSet()
        self.outputs = _outputs_of(process, terminal)
        """Descriptors to `read`, by the stream's name."""

    @property
    def pid(self) -> int:
        """The shell's, which is also its process group's and its session's."""
        return self._process.pid

    def has_group(self) -> bool:
        """Whether any process of the group is left."""
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def first_moments(self, seconds: float) -> FirstMoments:
        """Read what it puts out until it has ended, but no longer than that. Blocking, and before any `read`."""
        read = {name: bytearray() for name in self.outputs}
        if not hasattr(os, "pidfd_open"):
            return FirstMoments(read, is_over=False)
        until = time.monotonic() + seconds
        ended = os.pidfd_open(self._process.pid)
        try:
            waiting: dict[int, bytearray | None] = {self.outputs[name]: data for name, data in read.items()}
            waiting[ended] = None
            poll = select.poll()
            for descriptor in waiting:
                poll.register(descriptor, select.POLLIN)
            while waiting and sum(map(len, read.values())) < _FIRST_BYTES:
                ready = poll.poll(max(0.0, until - time.monotonic()) * 1000)
                if not ready:
                    break
                for descriptor, _ in ready:
                    data = waiting[descriptor]
                    some = b"" if data is None else self._read_now(descriptor)
                    if data is not None and some:
                        data += some
                    else:
                        poll.unregister(descriptor)
                        del waiting[descriptor]
        finally:
            os.close(ended)
        return FirstMoments(read, is_over=not waiting)

    async def read(self, descriptor: int) -> bytes:
        """Some output; empty at the end, which for a terminal is when nobody has it open any more."""
        while True:
            try:
                return self._read_now(descriptor)
            except BlockingIOError:
                await _readable(descriptor)

    def _read_now(self, descriptor: int) -> bytes:
        try:
            return os.read(descriptor, _READ_BYTES)
        except OSError as error:
            if error.errno == errno.EIO and descriptor == self._terminal:
                return b""
            raise

    def write(self, data: bytes) -> None:
        """Send input, in the order of the calls; the command reads it when it likes.

        Raises:
            Conflict: it takes none (any more), or has not read what it was sent before.
        """
        if data:
            self._send(data)

    def end_input(self) -> None:
        """Let the command read an end once it has read the rest. On a terminal that is Ctrl-D, and input may follow.

        Raises:
            Conflict: as `write`.
        """
        self._send(_CLOSE if self._terminal is None else _END_OF_TRANSMISSION)

    def resize(self, size: TerminalSize) -> None:
        """Change the terminal's size. Raises Conflict when there is none."""
        if self._terminal is None:
            raise Conflict("The command has no terminal.")
        termios.tcsetwinsize(self._terminal, (size.rows, size.columns))

    def signal_group(self, number: Signals) -> None:
        """To the group, whose id is the shell's, also when the shell itself has gone."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def signal_foreground(self, number: Signals) -> None:
        """To what a terminal's keys would reach: the group in the foreground. Without a terminal, as `signal_group`."""
        group = os.tcgetpgrp(self._terminal) if self._terminal is not None else 0
        with suppress(ProcessLookupError):
            os.killpg(group or self._process.pid, number)

    def exit_code(self) -> int | None:
        """None while the shell runs; negative for a signal."""
        return self._process.poll()

    async def wait(self) -> int:
        """Until the shell has ended; on Linux without a thread."""
        if not hasattr(os, "pidfd_open"):
            return await asyncio.to_thread(self._process.wait)
        descriptor = os.pidfd_open(self._process.pid)
        try:
            await _readable(descriptor)
        finally:
            os.close(descriptor)
        return self._process.wait()

    async def close(self) -> None:
        """Close its descriptors; on a terminal whoever is left gets SIGHUP."""
        await self._feeding.stop()
        self.close_unfed()

    def close_unfed(self) -> None:
        """As `close`, of one that nobody has sent input; from any thread."""
        self._close_input()
        for descriptor in self.outputs.values():
            os.close(descriptor)

    def _send(self, data: bytes) -> None:
        if self._input is None or _CLOSE in self._unread:
            raise Conflict("The command was started without input, or its input has been closed.")
        if sum(map(len, self._unread)) + len(data) > INPUT_LIMIT_BYTES:
            raise Conflict("The command does not read its input.")
        self._unread.append(data)
        if len(self._unread) == 1:
            self._feeding.start(self._feed(), "input of a command")

    async def _feed(self) -> None:
        while self._unread:
            data = self._unread[0]
            if data == _CLOSE:
                self._close_input()
            while data and self._input is not None:
                try:
                    data = data[os.write(self._input, data) :]
                except BlockingIOError:
                    await _writable(self._input)
                except OSError:  # nobody reads it any more
                    self._close_input()
            self._unread.popleft()

    def _close_input(self) -> None:
        if self._input is not None and self._input != self._terminal:
            os.close(self._input)
        self._input = None


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    await _ready(descriptor, loop.add_reader, loop.remove_reader)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    await _ready(descriptor, loop.add_writer, loop.remove_writer)


async def _ready(descriptor: int, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    is_ready = asyncio.Event()
    add(descriptor, is_ready.set)
    try:
        await is_ready.wait()
    finally:
        remove(descriptor)


def spawn(wanted: CommandRequest) -> CommandProcess:
    """Start a command in a session of its own. Blocking. Raises OSError, ValueError when it cannot be."""
    options: dict[str, Any] = {"cwd": wanted.cwd or None, "start_new_session": True, "bufsize": 0}
    environment = command_environment()
    if wanted.terminal is None:
        stdin = subprocess.PIPE if wanted.takes_input else subprocess.DEVNULL
        pipe = subprocess.PIPE
        arguments = [_SHELL, "-c", wanted.command]
        process = subprocess.Popen(arguments, stdin=stdin, stdout=pipe, stderr=pipe, env=environment, **options)
        return CommandProcess(process, None)
    ours, theirs = os.openpty()
    try:
        termios.tcsetwinsize(ours, (wanted.terminal.rows, wanted.terminal.columns))
        arguments = ["/bin/sh", "-c", _ON_TERMINAL, os.ttyname(theirs), _SHELL, wanted.command]
        environment["TERM"] = "xterm-256color"
        process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, **options)
        while not os.tcgetpgrp(ours) and process.poll() is None:
            time.sleep(0.001)  # until it has the terminal, keys like Ctrl-C would mean nothing
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return CommandProcess(process, ours)


def _input_of(process: subprocess.Popen[bytes], terminal: int | None) -> int | None:
    if terminal is not None:
        return terminal
    return _detached(process.stdin) if process.stdin is not None else None


def _outputs_of(process: subprocess.Popen[bytes], terminal: int | None) -> dict[str, int]:
    if terminal is not None:
        os.set_blocking(terminal, False)
        return {"stdout": terminal}
    return {"stdout": _detached(process.stdout), "stderr": _detached(process.stderr)}


def _detached(pipe: IO[bytes] | None) -> int:
    """A non-blocking descriptor of our own for a pipe that was asked for."""
    assert pipe is not None
    descriptor = os.dup(pipe.fileno())
    pipe.close()
    os.set_blocking(descriptor, False)
    return descriptor


def command_environment() -> dict[str, str]:
    """The server's environment without its secrets."""
    kept = without_secrets()
    if not kept.get("AI_AGENT", "").strip():
        kept["AI_AGENT"] = "openhands"
    return kept
