"""What more processes bring, on a machine that the load generator shares with them."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.clock import cpu_of
from bench.comparison import EVENTS
from bench.delivery import deliveries
from bench.sides import OURS, Figures, Subject, medians, serving
from bench.stored import Template, serving_long
from bench.writing import liveness, running, think
from tests.waiting import wait_until

PROCESSES = (1, 2, 4)
WRK_SECONDS = 4
AGENTS = 8
STEPS = 20
POSTERS = 8
POSTS = 60


PAGES_PER_SECOND = "pages of 100 events per second"
PAGE_CPU = "page of 100 events, CPU ms"
WRK_CPU = "wrk's own for it, CPU ms"


def web_workers(template: Template, rounds: int) -> dict[int, Figures]:
    """Pages of 100 events and deliveries, by the number of web workers, each a process of its own."""
    found = {count: _web_workers(template, count, rounds) for count in PROCESSES}
    return {
        count: figures | {"pages, % of linear": _percent_of_linear(count, found)} for count, figures in found.items()
    }


def _percent_of_linear(count: int, found: dict[int, Figures]) -> float:
    """What so many workers serve, beside so many times what one does, or beside all that the cores could serve at one's
    cost if they had nothing else to do but that and to ask.
    """
    one = found[1]
    by_workers = count * one[PAGES_PER_SECOND]
    by_cores = 1000 * (os.cpu_count() or 1) / (one[PAGE_CPU] + one[WRK_CPU])
    return 100 * found[count][PAGES_PER_SECOND] / min(by_workers, by_cores)


def _web_workers(template: Template, count: int, rounds: int) -> Figures:
    with serving_long(OURS, template, EVENTS, environment=_processes(count, runners=2)) as (subject, one):
        asking = _cpu_of_children()
        with cpu_of(subject.server.pid) as cpu:
            per_second = _pages_per_second(f"{subject.server.url}{one.path}/events/search?limit=100")
        asking = _cpu_of_children() - asking
        pages = per_second * WRK_SECONDS
        return {
            PAGES_PER_SECOND: per_second,
            PAGE_CPU: 1000 * cpu.seconds / pages,
            WRK_CPU: 1000 * asking / pages,
            **medians([deliveries(subject, 80) for _ in range(rounds)]),
        }


def _cpu_of_children() -> float:
    """Seconds, of those that this process has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def runners() -> dict[int, Figures]:
    """Steps and messages per second, by the number of runners."""
    found: dict[int, Figures] = {}
    for count in PROCESSES:
        with serving(OURS, environment=_processes(1, runners=count)) as subject:
            found[count] = {
                f"steps per second of {AGENTS} agents": _steps_per_second(subject),
                f"messages per second of {POSTERS} clients": _messages_per_second(subject),
            }
    return found


def web_worker_while_agents_run() -> Figures:
    """`/alive` at two web workers, with the agents in a runner of their own."""
    with serving(OURS, environment=_processes(2, runners=1)) as subject:
        return liveness(subject)


def _processes(workers: int, runners: int) -> dict[str, str]:
    """The environment of a server with that many, and a Redis of its own; 1 and 1 is the single process."""
    return {"OH_WORKERS": str(workers), "OH_RUNNERS": str(runners)}


def _pages_per_second(url: str) -> float:
    command = ["wrk", "-t1", "-c32", f"-d{WRK_SECONDS}s", url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert match is not None, output
    return float(match[1])


def _steps_per_second(subject: Subject) -> float:
    agents = [subject.create() for _ in range(AGENTS)]
    begin = time.perf_counter()
    for one in agents:
        think(one, STEPS)
    wait_until(lambda: running(subject) == 0, "all agents have finished", 300.0)
    return AGENTS * STEPS / (time.perf_counter() - begin)


def _messages_per_second(subject: Subject) -> float:
    conversations = [subject.create() for _ in range(POSTERS)]
    for one in conversations:
        one.send("warm")

    def post(number: int) -> None:
        with httpx.Client(base_url=subject.server.url, timeout=60, trust_env=False) as http:
            one = subject.create.handle(conversations[number].id)
            one.http = http
            for _ in range(POSTS):
                one.send("one of many messages")

    begin = time.perf_counter()
    with ThreadPoolExecutor(POSTERS) as pool:
        list(pool.map(post, range(POSTERS)))
    return POSTERS * POSTS / (time.perf_counter() - begin)
