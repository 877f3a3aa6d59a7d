"""How long a conversation is without an owner: after a kill, and when its runner is asked to stop.

    .venv/bin/python -m bench.takeover > bench/results/takeover.json

Two web servers, two runners, Redis and HAProxy on this machine, with the default lease of 10 s. An agent waits for the
LLM each time; the gap is what a client on an events socket sees between the signal and the next event.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.faults.owner import owner_pid, wait_for_another_owner
from tests.integration.contract.conversations import Conversation, Conversations
from tests.integration.contract.viewer import Viewer
from tests.waiting import wait_until

ROUNDS = 20


def live_runners(cluster: Cluster) -> int:
    """How many runners have shown a heartbeat and are there."""
    names = cluster.redis.client.scan_iter("fanout:runner:*")
    return sum(Path(f"/proc/{name.split('.')[-2]}").exists() for name in names)


def lost_seconds(cluster: Cluster, one: Conversation, number: signal.Signals, gate: str) -> tuple[float, float]:
    """From the signal to the next owner, and to the next event at a client."""
    # One that dies often is made anew with a delay: the question is how fast the other takes over.
    wait_until(lambda: live_runners(cluster) == 2, "both runners live", 30.0)
    with Viewer(one) as viewer:
        one.send(f"HOLD {gate}", "SAY moved", run=True)
        one.llm.wait_held(gate)
        former = owner_pid(cluster.conversations_path, one.id)
        begin = time.monotonic()
        os.kill(former, number)
        wait_for_another_owner(cluster.conversations_path, one.id, former)
        owned = time.monotonic() - begin
        one.llm.release(gate)
        viewer.until("agent: moved")
        return owned, time.monotonic() - begin


def summary(values: list[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(values), 3), "max": round(max(values), 3)}


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="fanout-bench-"))
    figures: dict[str, dict[str, float]] = {}
    with Cluster(directory) as cluster, ScriptedLlm() as llm:
        with httpx.Client(base_url=cluster.url, timeout=60, trust_env=False) as http:
            make = Conversations(http, llm, str(directory / "project"))
            for number in (signal.SIGKILL, signal.SIGTERM):
                rounds = []
                for turn in range(ROUNDS):
                    rounds.append(lost_seconds(cluster, make(), number, f"{number.name}-{turn}"))
                    print(number.name, turn, rounds[-1], file=sys.stderr)  # noqa: T201  progress
                figures[f"{number.name} to next owner, s"] = summary([owned for owned, _ in rounds])
                figures[f"{number.name} to next event at a client, s"] = summary([seen for _, seen in rounds])
    print(json.dumps({"rounds": ROUNDS, "figures": figures}, indent=2))  # noqa: T201  the result


if __name__ == "__main__":
    main()
