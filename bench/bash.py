"""Shell commands, ours and the peer's in turn: latency, CPU per command, and the history's search when it is long.

    FANOUT_BENCH_PEER=/tmp/peer/bin/python .venv/bin/python -m bench.bash > bench/results/bash.json

Each round starts each server anew. See `bench.peer` for the peer's environment.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
from websockets.sync.client import connect

from bench.peer import OURS, PEER, cpu_seconds, serving
from service.store.bash_history import BashHistory, new_command_id
from tests.server_process import Server

ROUNDS = 3
COMMANDS = 150
IN_FLIGHT = 4
STORED_COMMANDS = 10_000
LINES = 200
SEARCHES = 30

Figures = dict[str, float]


def execute_ms(http: httpx.Client) -> float:
    begin = time.perf_counter()
    answer = http.post("/api/bash/execute_bash_command", json={"command": "true"})
    assert answer.raise_for_status().json()["exit_code"] == 0
    return 1000 * (time.perf_counter() - begin)


def commands(server: Server) -> Figures:
    """One after the other, then several at once; CPU counts the shells, too."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http, ThreadPoolExecutor(IN_FLIGHT) as pool:
        for _ in range(20):
            execute_ms(http)
        alone = [execute_ms(http) for _ in range(COMMANDS)]
        cpu, begin = cpu_seconds(server), time.perf_counter()
        together = list(pool.map(lambda _: execute_ms(http), range(COMMANDS)))
        seconds = time.perf_counter() - begin
        return {
            "execute, p50 ms": statistics.median(alone),
            f"execute, {IN_FLIGHT} in flight, p50 ms": statistics.median(together),
            f"execute, {IN_FLIGHT} in flight, commands per second": COMMANDS / seconds,
            "execute, CPU ms per command": 1000 * (cpu_seconds(server) - cpu) / COMMANDS,
        }


def searches(server: Server) -> Figures:
    """For the output of the newest command, as a client polls."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
        newest = http.post("/api/bash/execute_bash_command", json={"command": "true"}).json()["command_id"]
        query = {"command_id__eq": newest, "sort_order": "TIMESTAMP", "limit": "100"}
        cpu, took = cpu_seconds(server), []
        for _ in range(SEARCHES):
            begin = time.perf_counter()
            assert len(http.get("/api/bash/bash_events/search", params=query).json()["items"]) == 1
            took.append(1000 * (time.perf_counter() - begin))
        return {
            f"poll one of {STORED_COMMANDS} commands, p50 ms": statistics.median(took),
            f"poll one of {STORED_COMMANDS} commands, CPU ms": 1000 * (cpu_seconds(server) - cpu) / SEARCHES,
        }


def live_output(server: Server) -> Figures:
    """From the writing of a line, which is the time it says, to its frame at a client. The peer has nothing like it."""
    script = f"import time\nfor _ in range({LINES}): print(time.time_ns(), flush=True); time.sleep(0.02)"
    url = f"{server.url.replace('http', 'ws')}/sockets/bash-events?stream=1"
    took: list[float] = []
    with connect(url, proxy=None) as socket:
        socket.send(json.dumps({"command": f"{sys.executable} -c '{script}'"}))
        while len(took) < LINES:
            frame, now = json.loads(socket.recv(timeout=30)), time.time_ns()
            if frame["kind"] == "BashOutputDelta":
                took += [(now - int(line)) / 1_000_000 for line in frame["text"].split()]
    return {"line to its frame, p50 ms": statistics.median(took), "line to its frame, longest ms": max(took)}


def fill_ours(directory: Path) -> None:
    history = BashHistory(directory / "bash_events")
    for number in range(STORED_COMMANDS):
        command_id = new_command_id()
        history.begin(command_id, f"echo {number}", None, 30)
        history.add_output(command_id, 0, 0, f"{number}\n", None)


def fill_peer(directory: Path) -> None:
    """As the published server names and writes them: one file an event."""
    events, moment = directory / "bash_events", datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
    events.mkdir()
    for number in range(STORED_COMMANDS):
        moment += timedelta(milliseconds=20)
        command_id, output_id = uuid4(), uuid4()
        stamp = moment.isoformat()
        command = {"id": str(command_id), "timestamp": stamp, "command": f"echo {number}", "cwd": None, "timeout": 30}
        output = {"id": str(output_id), "timestamp": stamp, "command_id": str(command_id), "order": 0, "exit_code": 0}
        name = moment.strftime("%Y%m%d%H%M%S%f")
        (events / f"{name}_BashCommand_{command_id.hex}").write_text(
            json.dumps(command | {"kind": "BashCommand"}, indent=2)
        )
        (events / f"{name}_BashOutput_{command_id.hex}_{output_id.hex}").write_text(
            json.dumps(output | {"stdout": f"{number}\n", "stderr": None, "kind": "BashOutput"}, indent=2)
        )


FILL = {OURS: fill_ours, PEER: fill_peer}


def measure(name: str) -> Figures:
    with serving(name) as server:
        figures = commands(server)
    with serving(name, FILL[name]) as server:
        return figures | searches(server)


def main() -> None:
    rounds: dict[str, list[Figures]] = {OURS: [], PEER: []}
    for turn in range(ROUNDS):
        for name in rounds:
            rounds[name].append(measure(name))
            print(turn, name, rounds[name][-1], file=sys.stderr)  # noqa: T201  progress
    table = {}
    for figure in rounds[OURS][0]:
        ours, peer = (statistics.median(each[figure] for each in rounds[name]) for name in (OURS, PEER))
        table[figure] = {OURS: round(ours, 2), PEER: round(peer, 2), "peer / fanout": round(peer / ours, 2)}
    with serving(OURS) as server:
        live = {figure: round(value, 2) for figure, value in live_output(server).items()}
    print(json.dumps({"rounds": ROUNDS, "figures": table, "live output": live}, indent=2))  # noqa: T201  the result


if __name__ == "__main__":
    main()
