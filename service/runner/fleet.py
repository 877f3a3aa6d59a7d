"""Several runners from one parent, which imports the SDK once and then only watches.

Forked after the import, each further runner costs little memory (they share the SDK's pages), and a dead one is
replaced in well under a second. The parent holds no thread, no loop and no connection when it forks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from multiprocessing import current_process, parent_process

import structlog

from service.backoff import Backoff
from service.child_process import default_signals, die_with_parent, name_process
from service.logs import configure_logging
from service.metrics import metrics, share_metrics, take_place
from service.metrics_port import serve_metrics
from service.node_directory import make_node_directory, remove_node_directory
from service.redis_source import RedisSource
from service.runner.environment import import_sdk
from service.settings import Settings
from service.settings.secrets import forget_secrets
from service.tracing import start_tracing, stop_tracing

_log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_PLACE = "Runners"
_DRAIN_MARGIN_SECONDS = 5.0


def run_fleet(settings: Settings, processes: int) -> None:
    """Keep `processes` runners alive until SIGTERM or SIGINT; then drain them. Blocking."""
    default_signals()
    die_with_parent()
    name_process("fanout-runners")
    configure_logging(settings)
    forget_secrets()
    # It takes seconds, in which a signal ends this process at once.
    import_sdk()
    # From here on signals are taken one by one in `watch`; none may arrive between a fork and its bookkeeping.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    is_alone = parent_process() is None
    directory = make_node_directory() if is_alone else None
    if directory is not None:
        share_metrics(directory)
    take_place(_PLACE)
    try:
        _Fleet(settings, processes, metrics_port=settings.metrics_port if is_alone else None).watch()
    finally:
        if directory is not None:
            remove_node_directory(directory)


class _Fleet:
    def __init__(self, settings: Settings, processes: int, metrics_port: int | None) -> None:
        self._settings = settings
        self._names = [f"Runner-{place}" for place in range(processes)]
        self._metrics_port = metrics_port
        self._runners: dict[int, str] = {}
        """The name of each process that lives."""
        self._known: set[str] = set()
        """The names of those that were started before."""
        self._backoff = Backoff()

    def watch(self) -> None:
        while True:
            self._fill_up()
            info = signal.sigtimedwait(_SIGNALS, self._wait_seconds())
            if info is not None and info.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._drain()
                return
            self._bury()

    def _fill_up(self) -> None:
        for name in self._missing():
            if self._backoff.wait_seconds(name, time.monotonic()) == 0:
                self._start(name)

    def _start(self, name: str) -> None:
        parent_pid = os.getpid()
        self._backoff.started(name, time.monotonic())
        try:
            pid = os.fork()
        except OSError as error:  # no more processes or memory for now; the others go on
            _log.error("runner_not_started", error=str(error))
            return
        if pid == 0:
            _be_runner(self._settings, parent_pid, name, self._metrics_port if name == self._names[0] else None)
        self._runners[pid] = name
        if name in self._known:
            metrics().processes_replaced.inc()
        self._known.add(name)

    def _missing(self) -> list[str]:
        return [name for name in self._names if name not in self._runners.values()]

    def _wait_seconds(self) -> float:
        now = time.monotonic()
        return min((self._backoff.wait_seconds(name, now) for name in self._missing()), default=3600.0)

    def _bury(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                name = self._runners.pop(pid, None)
                _log.warning("runner_ended", runner=name, pid=pid, exit_code=os.waitstatus_to_exitcode(status))

    def _drain(self) -> None:
        for pid in self._runners:
            os.kill(pid, signal.SIGTERM)
        give_up_at = time.monotonic() + self._settings.drain_seconds + _DRAIN_MARGIN_SECONDS
        while self._runners and time.monotonic() < give_up_at:
            signal.sigtimedwait((signal.SIGCHLD,), 0.1)
            self._bury()
        for pid in self._runners:
            _log.error("runner_killed_after_drain", pid=pid)
            os.kill(pid, signal.SIGKILL)


def _be_runner(settings: Settings, parent_pid: int, name: str, metrics_port: int | None) -> None:
    """The child's whole life; never returns into the parent's code."""
    code = 1
    try:
        default_signals()
        die_with_parent(parent_pid)
        current_process().name = name
        name_process(f"fanout-{name.lower()}")
        take_place(name)
        if metrics_port is not None:
            serve_metrics(settings.bind_host, metrics_port, settings.metrics_token)
        start_tracing(settings.trace_endpoint)
        asyncio.run(_serve(settings))
        stop_tracing()
        code = 0
    except Exception:  # noqa: BLE001  supervisor of the process: the parent replaces it
        _log.exception("runner_failed")
    finally:
        # Threads of tools that do not end must not keep the process.
        os._exit(code)


async def _serve(settings: Settings) -> None:
    from service.runner.deferred import run_runner

    source = RedisSource(settings.redis_address, settings.redis_namespace)
    serving = asyncio.create_task(run_runner(settings, source))

    def stop() -> None:
        if not serving.cancelling():  # a second signal must not cut the drain short
            serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    with suppress(asyncio.CancelledError):
        await serving
