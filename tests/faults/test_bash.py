"""Commands on a deployment whose processes die: any worker answers, and every command has an end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.cluster_process import Cluster
from tests.session_processes import processes_of, resident_bytes
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


def listening(web_url: str, query: str = "", **options: Any) -> Connection:
    """A client of the bash socket."""
    return connect(f"{web_url.replace('http', 'ws')}/sockets/bash-events{query}", proxy=None, **options)


def told(socket: Connection, **fields: str) -> JsonObject:
    """The next frame with these values; those of other tests' commands may come before it."""
    while True:
        frame: JsonObject = json.loads(socket.recv(timeout=20))
        if frame | fields == frame:
            return frame


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
        listening(cluster.web_urls[1]) as socket,
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
    with listening(cluster.url) as socket:
        os.kill(runner_of(cluster, command_id), number)
        output = last_output(http, command_id)
        assert (output["exit_code"], why in output["stderr"]) == (-1, True)
        assert told(socket, command_id=command_id) == output


def test_runner_dies_while_it_waits_for_the_end(cluster: Cluster, http: httpx.Client, gate: Path) -> None:
    """Its answer to the start was to say how the command ended; the client gets the end that another runner writes."""
    with (
        ThreadPoolExecutor(1) as pool,
        listening(cluster.url) as socket,
    ):
        command = f"while [ ! -e {gate} ]; do sleep 0.05; done"
        answer = pool.submit(http.post, "/api/bash/execute_bash_command", json={"command": command}, timeout=60)
        started = told(socket, command=command)
        os.kill(runner_of(cluster, started["id"]), signal.SIGKILL)
        assert answer.result().json() == told(socket, command_id=started["id"])
        assert "has died" in answer.result().json()["stderr"]


def test_command_ends_while_redis_is_away(cluster: Cluster, http: httpx.Client, gate: Path) -> None:
    """The waiting request, who polls and who listens all find the end on disk before Redis is back."""
    with (
        ThreadPoolExecutor(1) as pool,
        listening(cluster.url) as socket,
    ):
        command = f"touch {gate}.begun; while [ ! -e {gate} ]; do sleep 0.05; done; echo through"
        answer = pool.submit(http.post, "/api/bash/execute_bash_command", json={"command": command}, timeout=60)
        wait_until(Path(f"{gate}.begun").exists, "the command runs")
        started = told(socket, command=command)
        channel = f"fanout:bash:{started['id']}"
        wait_until(lambda: cluster.redis.client.pubsub_channels(channel), "the request waits for its end")
        cluster.redis.process.send_signal(signal.SIGKILL)
        cluster.redis.process.wait_exit()
        try:
            gate.touch()
            polled = last_output(http, started["id"])
            heard = told(socket, command_id=started["id"])
            waited = answer.result().json()
        finally:
            cluster.redis.start()
            wait_until(lambda: cluster.is_ready, "every web server is ready again", 30.0)
    assert polled["stdout"] == "through\n"
    assert heard == waited == polled


def test_killed_web_server_leaves_its_commands_alone(cluster: Cluster, http: httpx.Client, gate: Path) -> None:
    first = httpx.Client(base_url=cluster.web_urls[0], timeout=30, trust_env=False)
    with first:
        command_id = start(first, f"while [ ! -e {gate} ]; do sleep 0.05; done; echo on")
    cluster.web_servers[0].kill()
    gate.touch()
    assert last_output(http, command_id)["stdout"] == "on\n"
    cluster.web_servers[0].start()
    wait_until(lambda: cluster.is_ready, "both web servers serve", 30.0)


@pytest.mark.heavy
def test_two_hundred_megabytes_of_output_stay_out_of_memory(cluster: Cluster, http: httpx.Client) -> None:
    command_id = start(http, "head -c 200000000 /dev/zero | tr '\\0' x")
    assert growth_mib(cluster, command_id, lambda: None)["runner"] < 64
    assert last_output(http, command_id)["exit_code"] == 0


@pytest.mark.heavy
def test_flood_before_a_slow_reader_stays_out_of_memory(cluster: Cluster, http: httpx.Client) -> None:
    """`yes` for ten seconds, on a socket that takes a frame at each look: nobody keeps what it does not take."""
    with listening(cluster.web_urls[0], "?stream=1", max_size=None, max_queue=1) as socket:
        command_id = start(http, "timeout 10 yes")
        growth = growth_mib(cluster, command_id, lambda: socket.recv(timeout=20))
    assert growth["runner"] < 64
    assert growth["web"] < 64
    assert last_output(http, command_id)["exit_code"] == 124


def growth_mib(cluster: Cluster, command_id: str, each_time: Callable[[], Any]) -> dict[str, int]:
    """By how much the runner and the first web server were larger at most while the command ran."""
    pids = {"runner": [runner_of(cluster, command_id)]}
    pids["web"] = [process.pid for process in processes_of(cluster.web_servers[0].pid)]
    sizes: dict[str, list[int]] = {name: [] for name in pids}

    def has_ended() -> bool:
        each_time()
        for name in pids:
            sizes[name].append(sum(map(resident_bytes, pids[name])))
        return not (cluster.directory / "bash_events" / "running" / command_id).exists()

    wait_until(has_ended, "the command has ended", 60.0)
    growth = {name: (max(each) - each[0]) >> 20 for name, each in sizes.items()}
    print(f"MiB grown: {growth}", file=sys.stderr)  # noqa: T201  for the record
    return growth
