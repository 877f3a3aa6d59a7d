"""What a process costs before it does anything: from its start to its being ready, and memory."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from bench.sides import OURS, PEER, Figures, Subject, memory_mib, serving
from tests.child_process import ChildProcess
from tests.redis_process import RedisProcess
from tests.server_process import FANOUT, Sandbox, free_port
from tests.session_processes import listeners, processes_of
from tests.waiting import wait_until

WORKER = "fanout-web-0"


def roles() -> Figures:
    """One more web worker, and one more runner, beside those that serve already."""
    with _deployment() as (redis, start):

        def runners() -> int:
            return sum(1 for _ in redis.client.scan_iter("fanout:runner:*"))

        start("first-runner", "runner")
        wait_until(lambda: runners() == 1, "the first runner lives", 60)
        begin = time.perf_counter()
        start("runner", "runner")
        wait_until(lambda: runners() == 2, "the second runner lives", 60)
        runner_seconds = time.perf_counter() - begin
        port = free_port()
        begin = time.perf_counter()
        web = start("web", "web", "--host", "127.0.0.1", "--port", str(port))
        wait_until(lambda: _is_ready(port), "the web worker is ready", 60)
        return {
            "fanout web, start to ready, s": time.perf_counter() - begin,
            "runner, start to ready, s": runner_seconds,
            "fanout web, one worker, idle memory (PSS), MiB": memory_mib(web.pid),
            "web worker, idle memory (PSS), MiB": memory_mib(web.pid, WORKER),
            "web worker, killed to ready again, s": _replaced_seconds(web.pid, port),
        }


def _replaced_seconds(session_id: int, port: int) -> float:
    """From the death of the only web worker to the next one being ready."""
    [worker] = [process for process in processes_of(session_id) if process.name == WORKER]
    begin = time.perf_counter()
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: _is_ready(port) and listeners(port) == 1, "there is another web worker", 60)
    return time.perf_counter() - begin


def whole_servers() -> dict[str, Figures]:
    """Each side as one process, without a conversation."""
    found: dict[str, Figures] = {}
    for side in (OURS, PEER):
        with timed_start(side, lambda path: None) as (subject, seconds):
            found[side] = {"start to ready, s": seconds, "idle memory (PSS), MiB": memory_mib(subject.server.pid)}
    return found


@contextmanager
def timed_start(side: str, prepare: Callable[[Path], object]) -> Iterator[tuple[Subject, float]]:
    """A server on what `prepare` lays out, with the seconds from its start to its being ready."""
    begin = 0.0

    def prepare_and_begin(path: Path) -> None:
        nonlocal begin
        prepare(path)
        begin = time.perf_counter()

    with serving(side, prepare_and_begin) as subject:
        yield subject, time.perf_counter() - begin


@contextmanager
def _deployment() -> Iterator[tuple[RedisProcess, Callable[..., ChildProcess]]]:
    """A Redis and a way to start roles on it: a name and the command's words."""
    with tempfile.TemporaryDirectory(prefix="fanout-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        directory = Path(name)
        redis = RedisProcess(directory / "redis")
        stack.callback(redis.close)
        redis.start()
        sandbox = Sandbox(directory, {"REDIS_URL": redis.url})
        stack.callback(sandbox.close)

        def start(child_name: str, *command: str) -> ChildProcess:
            child = ChildProcess(child_name, [*FANOUT, *command], directory, sandbox.environment)
            stack.callback(child.close)
            child.start()
            return child

        yield redis, start


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False
