"""A conversation with 10,000 events, ours and the peer's: reading, searching, replaying, moving within it, forking it.

    FANOUT_BENCH_PEER=/tmp/peer/bin/python .venv/bin/python -m bench.long_conversation > figures.json

See `bench.peer` for the peer's environment.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
from websockets.sync.client import connect

from bench.peer import OURS, PEER, cpu_seconds, serving
from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversation, Conversations, user_message
from tests.server_process import Server

EVENTS = 10_000
TIMES = 5

Figures = dict[str, float]


def filled(server: Server, http: httpx.Client, llm: ScriptedLlm) -> Conversation:
    """One with so many events: messages that nobody answers, and what the server notes of each."""
    one = Conversations(http, llm, str(server.directory / "project"))()
    while (length := http.get(f"{one.path}/events/count").json()) < EVENTS:
        for number in range(max(1, (EVENTS - length) // 2)):
            http.post(f"{one.path}/events", json=user_message(f"message {number} of many")).raise_for_status()
    return one


def timed(server: Server, name: str, work: Callable[[], Any]) -> Figures:
    """The median of a few times, and the CPU of one."""
    cpu, took = cpu_seconds(server), []
    for _ in range(TIMES):
        begin = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - begin))
    return {
        f"{name}, p50 ms": statistics.median(took),
        f"{name}, CPU ms": 1000 * (cpu_seconds(server) - cpu) / TIMES,
    }


def replay(server: Server, one: Conversation) -> None:
    url = f"{server.url.replace('http', 'ws')}/sockets/events/{one.id}?resend_mode=all"
    received = 0
    with connect(url, proxy=None, max_size=None) as socket:
        while received < EVENTS:
            received += json.loads(socket.recv(timeout=60)).get("key") != "full_state"


def measure(name: str) -> Figures:
    with serving(name) as server, ScriptedLlm() as llm:
        with httpx.Client(base_url=server.url, timeout=300, trust_env=False) as http:
            one = filled(server, http, llm)
            events = f"{one.path}/events"
            newest = {"limit": "100", "sort_order": "TIMESTAMP_DESC"}
            middle = http.get(f"{events}/search", params=newest).json()["items"][50]["id"]

            def ask(path: str, **query: str) -> None:
                http.get(path, params=query).raise_for_status()

            def navigate() -> None:
                http.post(f"{one.path}/navigate", json={"event_id": middle}).raise_for_status()

            def fork() -> None:
                http.post(f"{one.path}/fork", json={}).raise_for_status()

            return {
                **timed(server, "the newest 100 events", lambda: ask(f"{events}/search", **newest)),
                **timed(server, "search by text", lambda: ask(f"{events}/search", body="message 4999")),
                **timed(server, "count of a kind", lambda: ask(f"{events}/count", kind="MessageEvent")),
                **timed(server, "replay to a new socket", lambda: replay(server, one)),
                **timed(server, "navigate", navigate),
                **timed(server, "fork", fork),
            }


def main() -> None:
    found = {name: measure(name) for name in (OURS, PEER)}
    table = {}
    for figure, ours in found[OURS].items():
        peer = found[PEER][figure]
        ratio = round(peer / ours, 1) if ours else None
        table[figure] = {OURS: round(ours, 1), PEER: round(peer, 1), "peer / fanout": ratio}
        print(figure, table[figure], file=sys.stderr)  # noqa: T201  progress
    print(json.dumps({"events": EVENTS, "times": TIMES, "figures": table}, indent=2))  # noqa: T201  the result


if __name__ == "__main__":
    main()
