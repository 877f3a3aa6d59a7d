"""What several processes cost and bring: delivery latency, reads per second, liveness under load, memory.

    .venv/bin/python -m bench.processes > bench/results/processes.json

Starts every server itself, on loopback, with a scripted LLM; needs `wrk` and `redis-server`. Takes about three minutes
and wants an idle machine. Latency is from an event's own time stamp, taken just before it is appended and synced, to
its frame in the client, on one clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import websockets

from service.demo.scripted_llm import ScriptedLlm
from tests.server_process import Server
from tests.waiting import wait_until

STEPS = 60
AGENTS = 16
ALIVE_REQUESTS = 400
WRK_SECONDS = 4
WORKER_COUNTS = (1, 2, 4)

Json = dict[str, Any]


@contextmanager
def serving(workers: int, runners: int) -> Iterator[Server]:
    """A server with that many processes; 1 and 1 is the single process."""
    directory = Path(tempfile.mkdtemp(prefix="fanout-bench-"))
    environment = {"OH_WORKERS": str(workers), "OH_RUNNERS": str(runners), "OH_MAX_CONCURRENT_RUNS": "64"}
    with Server(directory, environment) as server:
        yield server


def create(server: Server, llm: ScriptedLlm) -> str:
    """A conversation without tools but `think`; returns its id."""
    body = {
        "agent": {"llm": llm.settings, "tools": []},
        "workspace": {"working_dir": str(server.directory / "project")},
        "stuck_detection": False,
        "autotitle": False,
    }
    reply = httpx.post(f"{server.url}/api/conversations", json=body, timeout=60).raise_for_status()
    return str(reply.json()["id"])


def start_run(server: Server, conversation_id: str, steps: int) -> None:
    """Run that many `think` steps and an answer."""
    lines = [f'CALL think {{"thought": "{step}"}}' for step in range(steps)]
    body = {"content": [{"type": "text", "text": "\n".join([*lines, "SAY done"])}], "run": True}
    path = f"{server.url}/api/conversations/{conversation_id}/events"
    httpx.post(path, json=body, timeout=60).raise_for_status()


async def delivery_latencies_ms(server: Server, llm: ScriptedLlm) -> list[float]:
    """Of every stored event of one run, at one socket."""
    conversation_id = create(server, llm)
    url = f"{server.url.replace('http', 'ws')}/sockets/events/{conversation_id}"
    latencies: list[float] = []
    async with websockets.connect(url, max_size=None, compression=None) as socket:
        await socket.recv()
        await asyncio.to_thread(start_run, server, conversation_id, STEPS)
        async for frame in socket:
            now = datetime.now()  # noqa: DTZ005  events carry the server's local time, here UTC as ours
            event = json.loads(frame)
            if event.get("key") == "full_state":
                if event["value"]["execution_status"] == "finished":
                    return latencies
                continue
            latencies.append((now - datetime.fromisoformat(event["timestamp"])).total_seconds() * 1000)
    return latencies


def alive_latencies_ms(server: Server, llm: ScriptedLlm) -> list[float]:
    """Of `/alive`, one after the other, while many agents run."""
    for _ in range(AGENTS):
        start_run(server, create(server, llm), STEPS)
    latencies = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(ALIVE_REQUESTS):
            response = client.get("/alive")
            latencies.append(response.elapsed.total_seconds() * 1000)
    wait_until(lambda: running(server) == 0, "all runs have ended", 300.0)
    return latencies


def running(server: Server) -> int:
    """How many conversations run."""
    reply = httpx.get(f"{server.url}/api/conversations/count", params={"status": "running"}, timeout=60)
    return int(reply.raise_for_status().text)


def reads_per_second(server: Server, llm: ScriptedLlm) -> float:
    """Pages of 100 events, by one wrk thread with 32 connections, which shares the machine."""
    conversation_id = create(server, llm)
    start_run(server, conversation_id, STEPS)
    wait_until(lambda: running(server) == 0, "the run has ended", 120.0)
    url = f"{server.url}/api/conversations/{conversation_id}/events/search?limit=100"
    command = ["wrk", "-t1", "-c32", f"-d{WRK_SECONDS}s", url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert match is not None, output
    return float(match[1])


def memory_mib(server: Server) -> float:
    """Sum of the proportional set sizes of the server's processes: shared pages count once."""
    total_kib = 0
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(directory.name)) == server.pid:
                found = re.search(r"^Pss:\s+(\d+)", (directory / "smaps_rollup").read_text(), re.M)
                total_kib += int(found[1]) if found else 0
        except OSError:
            continue  # it has ended meanwhile
    return total_kib / 1024


def summary(latencies_ms: list[float]) -> Json:
    """p50 and p99, rounded to microseconds."""
    percentiles = statistics.quantiles(latencies_ms, n=100)
    return {"n": len(latencies_ms), "p50_ms": round(percentiles[49], 3), "p99_ms": round(percentiles[98], 3)}


def measure(llm: ScriptedLlm) -> Json:
    """All figures."""
    result: Json = {"cpus": os.cpu_count(), "python": sys.version.split()[0], "steps": STEPS, "agents": AGENTS}
    shapes = {"one_process": (1, 1), "two_web_two_runners": (2, 2)}
    for name, (workers, runners) in shapes.items():
        with serving(workers, runners) as server:
            result[name] = {
                "memory_mib": round(memory_mib(server)),
                "delivery": summary(asyncio.run(delivery_latencies_ms(server, llm))),
                f"alive_while_{AGENTS}_agents_run": summary(alive_latencies_ms(server, llm)),
            }
    result["reads_per_second"] = {}
    for workers in WORKER_COUNTS:
        with serving(workers, 2) as server:
            result["reads_per_second"][f"{workers}_web_workers"] = round(reads_per_second(server, llm))
    return result


def main() -> None:
    with ScriptedLlm() as llm:
        sys.stdout.write(json.dumps(measure(llm), indent=2) + "\n")


if __name__ == "__main__":
    main()
