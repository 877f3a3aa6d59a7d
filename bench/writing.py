"""What clients and agents write: conversations, messages, steps of a run, shell commands."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from bench.clock import cost, cpu_of, percentile_ms
from bench.sides import Figures, Subject
from tests.integration.contract.conversations import Conversation, call, user_message
from tests.waiting import wait_until

CREATES = 40
MESSAGES = 200
STEPS = 60
AGENTS = 12
COMMANDS = 120
IN_FLIGHT = 4
RUN_SECONDS = 300.0


def creating(subject: Subject) -> Figures:
    create = subject.create
    return cost(subject.server, "create conversation", CREATES, create, warm_up=3)


def posting(subject: Subject) -> Figures:
    """Messages that start no run."""
    one = subject.create()
    return cost(subject.server, "POST message", MESSAGES, lambda: one.send("one of many messages"), warm_up=5)


def stepping(subject: Subject) -> Figures:
    """One agent that thinks and thinks."""
    one = subject.create()
    one.run_to("finished", "SAY ready")
    begin = time.perf_counter()
    with cpu_of(subject.server.pid) as cpu:
        think(one)
        wait_all_ended(subject)
    seconds = time.perf_counter() - begin
    return {"agent step, CPU ms": 1000 * cpu.seconds / STEPS, "agent step, wall ms": 1000 * seconds / STEPS}


def liveness(subject: Subject) -> Figures:
    """`/alive`, one request after the other, until many agents have finished."""
    for one in [subject.create() for _ in range(AGENTS)]:
        think(one, STEPS // 3)
    took: list[float] = []
    while len(took) < 200 or running(subject):
        for _ in range(20):
            begin = time.perf_counter()
            subject.http.get("/alive").raise_for_status()
            took.append(time.perf_counter() - begin)
    return {
        f"/alive while {AGENTS} agents run, p50 ms": percentile_ms(took, 50),
        f"/alive while {AGENTS} agents run, p99 ms": percentile_ms(took, 99),
    }


def shell(subject: Subject, when: str = "") -> Figures:
    """Commands that do nothing, several at once; their CPU counts the shells, too."""

    def execute() -> float:
        begin = time.perf_counter()
        answer = subject.http.post("/api/bash/execute_bash_command", json={"command": "true"})
        assert answer.raise_for_status().json()["exit_code"] == 0
        return time.perf_counter() - begin

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(lambda _: execute(), range(20)))
        with cpu_of(subject.server.pid) as cpu:
            took = list(pool.map(lambda _: execute(), range(COMMANDS)))
    return {
        f"execute_bash_command{when}, CPU ms": 1000 * cpu.seconds / COMMANDS,
        f"execute_bash_command{when}, {IN_FLIGHT} in flight, p50 ms": 1000 * statistics.median(took),
    }


def think(one: Conversation, steps: int = STEPS) -> None:
    """Start a run of so many steps."""
    lines = [call("think", thought=f"thought {number}") for number in range(steps)]
    one.post("/events", user_message(*lines, "SAY done", run=True)).raise_for_status()


def running(subject: Subject) -> int:
    """How many conversations run."""
    reply = subject.http.get("/api/conversations/count", params={"status": "running"})
    return int(reply.raise_for_status().text)


def wait_all_ended(subject: Subject) -> None:
    wait_until(lambda: running(subject) == 0, "all runs have ended", RUN_SECONDS)
