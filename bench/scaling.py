"""What more processes bring, on a machine that the load generator shares with them."""

from __future__ import annotations

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.clock import cpu_of
from bench.comparison import EVENTS
from bench.delivery import deliveries
from bench.sides import OURS, Figures, Subject, serving
from bench.stored import Template, serving_long
from bench.writing import liveness, running, think
from tests.waiting import wait_until

PROCESSES = (1, 2, 4)
WRK_SECONDS = 4
AGENTS = 8
STEPS = 20
POSTERS = 8
POSTS = 60


def web_workers(template: Template) -> dict[int, Figures]:
    """Pages of 100 events and deliveries, by the number of web workers."""
    return {count: _web_workers(template, count) for count in PROCESSES}


def _web_workers(template: Template, count: int) -> Figures:
    with serving_long(OURS, template, EVENTS, environment=_processes(count, 1)) as (subject, one):
        with cpu_of(subject.server.pid) as cpu:
            pages = _pages_per_second(f"{subject.server.url}{one.path}/events/search?limit=100")
        return {
            "pages of 100 events per second": pages,
            "page of 100 events, CPU ms": 1000 * cpu.seconds / (pages * WRK_SECONDS),
            **deliveries(subject, 80, 100),
        }


def runners() -> dict[int, Figures]:
    """Steps and messages per second, by the number of runners."""
    found: dict[int, Figures] = {}
    for count in PROCESSES:
        with serving(OURS, environment=_processes(1, count)) as subject:
            found[count] = {
                f"steps per second of {AGENTS} agents": _steps_per_second(subject),
                f"messages per second of {POSTERS} clients": _messages_per_second(subject),
            }
    return found


def web_worker_while_agents_run() -> Figures:
    """`/alive` at two web workers, with the agents in a runner of their own."""
    with serving(OURS, environment=_processes(2, 1)) as subject:
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
