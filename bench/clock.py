"""What a piece of work costs: its time at the client, and the CPU of the server's processes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from bench.sides import Figures, cpu_seconds
from tests.server_process import Server


def cost(server: Server, name: str, times: int, work: Callable[[], object], *, warm_up: int = 1) -> Figures:
    """Of one piece of work that is done so many times, after a few that do not count."""
    for _ in range(warm_up):
        work()
    took = []
    with cpu_of(server.pid) as cpu:
        for _ in range(times):
            begin = time.perf_counter()
            work()
            took.append(time.perf_counter() - begin)
    return {f"{name}, CPU ms": 1000 * cpu.seconds / times, f"{name}, p50 ms": 1000 * statistics.median(took)}


@contextmanager
def cpu_of(session_id: int) -> Iterator[SimpleNamespace]:
    """Fills in `seconds`, the CPU of the processes of a session, as a server's are, between `with` and its end."""
    used = SimpleNamespace(seconds=0.0)
    before = cpu_seconds(session_id)
    yield used
    used.seconds = cpu_seconds(session_id) - before


def percentile_ms(took_seconds: list[float], percent: int) -> float:
    return 1000 * statistics.quantiles(took_seconds, n=100)[percent - 1]
