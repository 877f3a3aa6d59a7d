"""Commands on a deployment whose processes die: any worker answers, and every command has an end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.cluster_process import Cluster
from tests.waiting import wait_until

JsonObject = dict[str, Any]


def start(http: httpx.Client, command: str) -> str:
    started: str = http.post("/api/bash/start_bash_command", json={"command": command}).raise_for_status().json()["id"]
    return started


def last_output(http: httpx.Client, command_id: str) -> JsonObject:
    def last() -> JsonObject | None:
        try:
            page = http.get("/api/bash/bash_events/search", params={"command_id__eq": command_id})
        except httpx.TransportError:
            return None  # it was in the hands of a web server that was killed
        items = page.json()["items"] if page.status_code == 200 else []
        return items[-1] if items and items[-1]["exit_code"] is not None else None

    return wait_until(last, "the command has its last output", 30.0) or {}


def runner_of(cluster: Cluster, command_id: str) -> int:
    record = json.loads((cluster.directory / "bash_events" / "running" / command_id).read_text())
    return int(record["runner_id"].split(".")[-2])


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A command that waits for it ends at the latest with the test."""
    gate = tmp_path / "gate"
    yield gate
    gate.touch()


def test_every_worker_answers_for_every_command(cluster: Cluster, gate: Path) -> None:
    """Started on one, watched and stopped on the other."""
    first, second = (httpx.Client(base_url=url, timeout=30, trust_env=False) for url in cluster.web_urls)
    with (
        first,
        second,
        connect(f"{cluster.web_urls[1].replace('http', 'ws')}/sockets/bash-events", proxy=None) as socket,
    ):
        command_id = start(first, f"while [ ! -e {gate} ]; do sleep 0.05; done")
        assert json.loads(socket.recv(timeout=20))["id"] == command_id
        assert second.post(f"/api/bash/bash_commands/{command_id}/stop").json() == {"success": True}
        assert json.loads(socket.recv(timeout=20))["exit_code"] == -15
        assert last_output(first, command_id)["exit_code"] == -15


def test_two_hundred_commands_at_once(http: httpx.Client) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(
            pool.map(
                lambda n: http.post(
                    "/api/bash/execute_bash_command", json={"command": f"sleep 0.2; echo {n}"}, timeout=60
                ).json(),
                range(200),
            )
        )
    assert [answer["stdout"] for answer in answers] == [f"{number}\n" for number in range(200)]


@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGKILL, "has died"), (signal.SIGTERM, "has stopped")], ids=["killed", "drained"]
)
def test_runner_that_goes_leaves_an_end(
    cluster: Cluster, http: httpx.Client, gate: Path, number: signal.Signals, why: str
) -> None:
    """Pollers and sockets are told, and nothing of the command is left when its runner drains."""
    command_id = start(http, f"while [ ! -e {gate} ]; do sleep 0.05; done")
    with connect(f"{cluster.url.replace('http', 'ws')}/sockets/bash-events", proxy=None) as socket:
        os.kill(runner_of(cluster, command_id), number)
        output = last_output(http, command_id)
        assert (output["exit_code"], why in output["stderr"]) == (-1, True)
        told: JsonObject = {}
        while told.get("command_id") != command_id:
            told = json.loads(socket.recv(timeout=20))
        assert told == output


def test_execute_survives_the_loss_of_redis(cluster: Cluster, http: httpx.Client, gate: Path) -> None:
    """The waiting request finds the end on disk."""
    with ThreadPoolExecutor(1) as pool:
        command = f"touch {gate}.begun; while [ ! -e {gate} ]; do sleep 0.05; done; echo through"
        answer = pool.submit(http.post, "/api/bash/execute_bash_command", json={"command": command}, timeout=60)
        wait_until(Path(f"{gate}.begun").exists, "the command runs")
        wait_until(lambda: cluster.redis.client.pubsub_channels("fanout:bash:*"), "the request waits for its end")
        cluster.redis.process.send_signal(signal.SIGKILL)
        cluster.redis.process.wait_exit()
        gate.touch()
        assert answer.result().json()["stdout"] == "through\n"
    cluster.redis.start()
    wait_until(lambda: cluster.is_ready, "every web server is ready again", 30.0)


def test_killed_web_server_leaves_its_commands_alone(cluster: Cluster, http: httpx.Client, gate: Path) -> None:
    first = httpx.Client(base_url=cluster.web_urls[0], timeout=30, trust_env=False)
    with first:
        command_id = start(first, f"while [ ! -e {gate} ]; do sleep 0.05; done; echo on")
    cluster.web_servers[0].kill()
    gate.touch()
    assert last_output(http, command_id)["stdout"] == "on\n"
    cluster.web_servers[0].start()
    wait_until(lambda: cluster.is_ready, "both web servers serve", 30.0)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.heavy
def test_two_hundred_megabytes_of_output_stay_out_of_memory(cluster: Cluster, http: httpx.Client) -> None:
    command_id = start(http, f"touch {cluster.directory}/flood; head -c 200000000 /dev/zero | tr '\\0' x")
    runner = runner_of(cluster, command_id)
    before, most = resident_bytes(runner), 0

    def has_ended() -> bool:
        nonlocal most
        most = max(most, resident_bytes(runner))
        return not (cluster.directory / "bash_events" / "running" / command_id).exists()

    wait_until(has_ended, "the command has ended", 60.0)
    print(f"runner grew by {(most - before) >> 20} MiB", file=sys.stderr)  # noqa: T201  for the record
    assert most - before < 64 << 20
    assert last_output(http, command_id)["exit_code"] == 0
