"""Sanic's worker manager with what it lacks (measured with Sanic 25.12; each point has a test).

* A dead process is started again, with a growing delay when it keeps dying; Sanic leaves it dead.
* A signal during start-up ends the start-up; Sanic spins for ever. One that comes to a worker between two steps of its
  start, when its loop is not running, stops it as soon as it is; uvloop forgets it.
* A process that cannot be started again for now, for want of processes or memory, is tried again; with Sanic that ends
  the main process, and with multiprocessing a lack of threads ends the state process' service for ever.
* A failed start kills the processes that were started; Sanic kills its whole process group, shell included.
* When the main process is killed, nothing is left behind.
* A port that another server listens on is not shared with it.
* Every web worker listens on a socket of its own (SO_REUSEPORT), so the kernel spreads connections evenly; on one
  shared socket a fast worker takes most (11/22/75/92 of 200 connections on 4 workers).
* Web workers are forked from a main process that has imported everything: they serve in a fifth of the time and share
  its memory. Sanic starts each with an interpreter of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import current_process
from multiprocessing.managers import Server, SyncManager
from typing import Any

import sanic.mixins.startup as sanic_startup
import sanic.server.runners as sanic_runners
import structlog
from sanic import Sanic
from sanic.exceptions import ServerKilled
from sanic.server.runners import _setup_system_signals
from sanic.server.socket import configure_socket
from sanic.worker.constants import ProcessState
from sanic.worker.manager import WorkerManager
from sanic.worker.process import WorkerProcess
from sanic.worker.serve import worker_serve

from service.backoff import Backoff
from service.child_process import default_signals, die_with_parent, name_process
from service.metrics import metrics, take_place

_log = structlog.get_logger(__name__)

REDIS = "Redis"
"""The managed process that the others need to the end."""

_ENDED = (ProcessState.FAILED, ProcessState.COMPLETED, ProcessState.TERMINATED)
_START_LIMIT_SECONDS = 120.0
_POLL_SECONDS = 0.1
_CTRL_C_SECONDS = 1.0
"""In which its two signals come."""


class SupervisedManager(WorkerManager):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._backoff = Backoff()

    def run(self) -> None:
        """Keep the processes until a signal; when that fails, what others would have been ended before is ended too."""
        try:
            super().run()  # type: ignore[no-untyped-call]
        finally:
            self._end(self._ended_last)

    def start(self) -> None:
        """Start the processes; none any more after a signal."""
        for process in self._all_processes:
            if self._shutting_down:
                return
            with self._signals_held():
                process.start()

    def shutdown(self) -> None:
        """Ask the processes to end, the private Redis only once those that drain with its help have ended.

        With SIGTERM, not Sanic's SIGINT: to a process that is still being imported that is an exception, which Python
        swallows when it falls into a destructor or a callback.
        """
        self._shutting_down = True
        self._end([process for process in self.processes if process not in self._ended_last])

    def join(self) -> None:
        """Until every process has ended."""
        for process in [process for process in self.processes if process not in self._ended_last]:
            process.join()
        self._end(self._ended_last)
        super().join()  # type: ignore[no-untyped-call]

    @property
    def _all_processes(self) -> list[WorkerProcess]:
        """Also those that could not be started again yet, and so have no id."""
        return [process for worker in self.workers for process in worker.processes]

    @property
    def _ended_last(self) -> list[WorkerProcess]:
        return [process for name, worker in self.all_workers if name == REDIS for process in worker.processes]

    def _end(self, processes: list[WorkerProcess]) -> None:
        for process in processes:
            if process.pid and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)

    @contextmanager
    def _signals_held(self) -> Iterator[None]:
        """Around the start of a process, which a signal in the middle would not stop: it is not yet known by its id.

        The child, which has the handlers of this process until it takes signals itself, begins with them held.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wait_for_ack(self) -> None:
        """Until every web worker serves. Raises ServerKilled when one cannot, or takes too long."""
        give_up_at = time.monotonic() + _START_LIMIT_SECONDS
        later = []
        while not self._shutting_down and not self._all_workers_ack():  # type: ignore[no-untyped-call]
            if self.monitor_subscriber.poll(_POLL_SECONDS):
                message = self.monitor_subscriber.recv()
                if message is None:  # a signal came
                    self.monitor_publisher.send(None)
                    return
                if message == "__TERMINATE_EARLY__":
                    self.kill()
                later.append(message)
            if time.monotonic() > give_up_at:
                self.kill()
            self._sync_states()
        for message in later:
            self.monitor_publisher.send(message)

    def kill(self) -> None:
        """Kill the processes started here, and nobody else."""
        for process in self.processes:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        raise ServerKilled

    def _sync_states(self) -> None:  # called ten times a second
        super()._sync_states()  # type: ignore[no-untyped-call]
        if not self._shutting_down:
            for process in self._all_processes:
                if not process.is_alive() and process.state in _ENDED:
                    self._start_again(process)

    def _start_again(self, process: WorkerProcess) -> None:
        if self._backoff.wait_seconds(process.name, time.monotonic()) > 0:
            return
        dead = {"replaced": process.name, "pid": process.pid, "exit_code": process.exitcode}
        try:
            with self._signals_held():
                process.restart()
        except OSError as error:
            _log.error("process_not_replaced", **dead, error=str(error))
            process.set_state(ProcessState.FAILED, force=True)  # else it would not be tried again
        else:
            _log.warning("process_replaced", **dead)
            metrics().processes_replaced.inc()
        self._backoff.started(process.name, time.monotonic())


class CannotListen(Exception):
    """The address to listen on is taken, or not to be had."""


def require_address(host: str, port: int) -> None:
    """Raises CannotListen when another program listens there, or nobody can.

    SO_REUSEPORT would let a second server of the same user in, and the kernel would deal connections to both.
    """
    try:
        _bind(host, port, is_shared=False).close()
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def install() -> None:
    """Make Sanic use all this. Call before it serves; again is harmless."""
    replaced: dict[str, object] = {
        "WorkerManager": SupervisedManager,
        "Manager": _state_manager,
        "worker_serve": serve,
    }
    if sys.platform == "linux":
        replaced["configure_socket"] = _reserve_port
        Sanic.start_method = "fork"
    for name, ours in replaced.items():
        setattr(sanic_startup, name, ours)
    sanic_runners._setup_system_signals = _take_signals


class _StateServer(Server):
    """Goes on when it cannot have a thread: who had just connected is cut off, and replaced."""

    def accepter(self) -> None:
        while True:
            try:
                super().accepter()
            except RuntimeError as error:
                _log.warning("process_cut_off", error=str(error))
            time.sleep(_POLL_SECONDS)


class _StateManager(SyncManager):
    _Server = _StateServer


def _state_manager() -> SyncManager:
    """multiprocessing's `Manager()`, whose process otherwise outlives a killed parent; the first that is started."""
    # What is here now, children share until one of them writes to it, which collections would.
    gc.collect()
    gc.freeze()
    manager = _StateManager()
    manager.start(_follow_parent, (os.getpid(),))
    return manager


def _follow_parent(parent_pid: int) -> None:
    name_process("fanout-state")
    # The main process shuts it down last; the terminal's Ctrl-C must not do that earlier.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent_pid)


def _reserve_port(server_settings: dict[str, Any]) -> socket.SocketType | None:
    """Bind without listening: holds the port, finds out which one 0 is, and receives no connection."""
    if server_settings.get("unix") or server_settings.get("sock"):
        return configure_socket(server_settings)
    require_address(server_settings["host"], server_settings["port"])
    reserved = _bind(server_settings["host"], server_settings["port"])
    server_settings["host"], server_settings["port"] = reserved.getsockname()[:2]
    return reserved


def serve(*args: Any, **kwargs: Any) -> None:
    """Sanic's `worker_serve`, in this process or a worker's, where there can be on a socket of its own."""
    if kwargs["monitor_publisher"] is not None:
        _become_worker(current_process().name)
    if sys.platform == "linux" and not kwargs.get("unix") and kwargs.get("sock") is None:
        # Sanic listens on it once it can serve: connections that come earlier are not for this worker.
        kwargs |= {"sock": _bind(kwargs["host"], kwargs["port"]), "host": None, "port": None}
    worker_serve(*args, **kwargs)


def _take_signals(
    app: Sanic[Any, Any], run_multiple: bool, register_sys_signals: bool, loop: asyncio.AbstractEventLoop
) -> None:
    """SIGINT or SIGTERM stops the server, whether its loop is running or not; another, later, ends the process.

    Ctrl-C is two: the terminal's, and at once the main process's.
    """
    _setup_system_signals(app, run_multiple, False, loop)
    asked_at: list[float] = []

    def stop(number: int, frame: object) -> None:
        if not asked_at:
            asked_at.append(time.monotonic())
            loop.call_soon_threadsafe(partial(app.stop, terminate=False))
        elif time.monotonic() - asked_at[0] > _CTRL_C_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    if register_sys_signals:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, stop)


def _become_worker(name: str) -> None:
    """Of `Sanic-Server-<number>-0`, which was forked from the main process a moment ago, or spawned."""
    default_signals()
    die_with_parent()
    take_place(name)
    name_process(f"fanout-web-{name.split('-')[2]}")
    # The main process's app is not the one that serves here.
    Sanic._app_registry.clear()


def _bind(host: str, port: int, *, is_shared: bool = True) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
