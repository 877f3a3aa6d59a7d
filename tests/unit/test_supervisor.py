"""What the worker manager does at moments that no test can hit from outside."""

from __future__ import annotations

import asyncio
import errno
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import uvloop
from sanic.worker.constants import ProcessState

from service import supervisor
from service.supervisor import SupervisedManager
from tests.waiting import wait_until

WAIT = "import signal; signal.pthread_sigmask(signal.SIG_SETMASK, ()); signal.pause()"
"""Every process takes its own signals first, which it begins with held."""


class FakeProcess:
    """A worker process that does nothing and waits to be stopped."""

    def __init__(self, name: str, on_start: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.state = ProcessState.IDLE
        self.pid: int | None = None
        self.exitcode: int | None = None
        self._on_start = on_start
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Be there only at the end, as a real one."""
        self._on_start()
        self._child = subprocess.Popen([sys.executable, "-c", WAIT])
        self.pid = self._child.pid
        self.state = ProcessState.STARTED

    restart = start

    def is_alive(self) -> bool:
        return self.state is ProcessState.STARTED

    @property
    def is_told_to_stop(self) -> bool:
        """Whether SIGTERM has ended it; one that runs on is ended by the question."""
        if self._child is None:
            return False
        try:
            return self._child.wait(5) == -signal.SIGTERM
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait() == -signal.SIGTERM

    def set_state(self, state: ProcessState, force: bool = False) -> None:
        self.state = state


@pytest.fixture
def manager() -> Iterator[SupervisedManager]:
    """A manager that is not running; the signal handlers that it installs are removed."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    context: Any = multiprocessing.get_context("spawn")
    yield SupervisedManager(1, print, {}, context, multiprocessing.Pipe(), {})
    for number, handler in before.items():
        signal.signal(number, handler)


def manage(manager: SupervisedManager, *processes: FakeProcess) -> None:
    """Give it these processes and no others."""
    manager.transient = {each.name: SimpleNamespace(processes=[each]) for each in processes}  # type: ignore[misc]


def test_signal_in_the_middle_of_a_start_stops_what_was_started(manager: SupervisedManager) -> None:
    """A process that was being started when the signal came is told to stop, and no further one is started."""
    first, third = FakeProcess("first"), FakeProcess("third")
    second = FakeProcess("second", lambda: signal.raise_signal(signal.SIGTERM))
    manage(manager, first, second, third)

    manager.start()

    assert [each.is_told_to_stop for each in (first, second, third)] == [True, True, False]
    assert third.pid is None


def test_signal_in_the_middle_of_a_replacement_stops_the_new_process(manager: SupervisedManager) -> None:
    """A process that takes a dead one's place when the signal comes does not stay behind."""
    dead = FakeProcess("dead", lambda: signal.raise_signal(signal.SIGTERM))
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead.pid, dead.exitcode, dead.state = ended.pid, -9, ProcessState.FAILED
    manager.worker_state["dead"] = {"state": "STARTED"}
    manage(manager, dead)

    manager._sync_states()

    assert dead.is_told_to_stop


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    """A web worker's, which is told to stop as Sanic does it; what is changed in this process is changed back."""
    monkeypatch.setenv("SANIC_WORKER_PROCESS", "true")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loop = uvloop.new_event_loop()
    app: Any = SimpleNamespace(stop=lambda *, terminate: loop.stop())
    supervisor._take_signals(app, False, True, loop)
    yield loop
    loop.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def is_stopped_by(loop: asyncio.AbstractEventLoop, *numbers: signal.Signals) -> bool:
    """Whether the loop, which is run now, stops for these signals, and not because it was waited for long enough."""
    for number in numbers:
        loop.call_soon(signal.raise_signal, number)
    late = loop.call_later(20.0, loop.stop)
    begun = time.monotonic()
    loop.run_forever()
    late.cancel()
    return time.monotonic() - begun < 10.0


def test_signal_that_comes_when_a_workers_loop_is_not_running_stops_it(loop: asyncio.AbstractEventLoop) -> None:
    """Between two steps of a worker's start; uvloop would forget it, and the main process wait for ever."""
    signal.raise_signal(signal.SIGTERM)
    assert is_stopped_by(loop)


def test_ctrl_c_is_taken_as_one_signal(loop: asyncio.AbstractEventLoop) -> None:
    """The terminal sends SIGINT to all and the main process SIGTERM at once; yet all is ended in good order."""
    assert is_stopped_by(loop, signal.SIGINT, signal.SIGTERM)


def test_later_signal_ends_a_worker_that_does_not_stop(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has lost patience."""
    monkeypatch.setattr(supervisor, "_CTRL_C_SECONDS", -1.0)
    with patch.object(signal, "raise_signal") as raised:
        handler: Any = signal.getsignal(signal.SIGTERM)
        handler(signal.SIGTERM, None)
        handler(signal.SIGTERM, None)
    assert raised.call_args.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_process_that_cannot_be_started_for_now_is_tried_again(manager: SupervisedManager) -> None:
    """There may be no more processes or memory for a while; the others go on meanwhile."""
    attempts: list[float] = []

    def fork() -> None:
        attempts.append(time.monotonic())
        if len(attempts) < 3:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    dead = FakeProcess("dead", fork)
    dead.exitcode, dead.state = -9, ProcessState.FAILED
    manager.worker_state["dead"] = {"state": "STARTED"}
    manage(manager, dead)

    def is_there() -> bool:
        manager._sync_states()
        return dead.is_alive()

    wait_until(is_there, "it is started again")
    assert len(attempts) == 3
    manager.shutdown()
    assert dead.is_told_to_stop


def test_state_process_outlives_a_lack_of_threads() -> None:
    """Every process that is started asks it for something first."""
    state = supervisor._StateManager()
    state.start(_refuse_the_second_thread)
    with ThreadPoolExecutor(1) as caller:
        try:
            with pytest.raises((EOFError, ConnectionError)):
                caller.submit(state.dict).result(10)
            assert caller.submit(state.dict, {"a": 1}).result(10)["a"] == 1
        finally:
            os.kill(state._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]


def _refuse_the_second_thread() -> None:
    """The first is the one that takes connections."""
    numbers = itertools.count(1)
    start = threading.Thread.start

    def refuse_second(self: threading.Thread) -> None:
        if next(numbers) == 2:
            raise RuntimeError("can't start new thread")
        start(self)

    threading.Thread.start = refuse_second  # type: ignore[method-assign]
