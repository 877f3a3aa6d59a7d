"""/metrics: what a node counts, added up over its processes, whatever becomes of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from service.app import create_app
from service.demo.scripted_llm import ScriptedLlm
from service.settings import Settings
from tests.child_process import PRELOADED, ChildProcess
from tests.conftest import StartClient
from tests.integration.contract.conversations import Conversations
from tests.integration.contract.frames import read
from tests.redis_process import RedisProcess
from tests.server_process import FANOUT, Sandbox, Server, free_port
from tests.session_processes import processes_of
from tests.waiting import wait_until

WORKERS = 2
REQUESTS = 40
TOKEN = "token-of-the-tests"
UNKNOWN = "6b1f0d5e-3c0f-4b52-9f54-0d5a2a4f7c11"

Samples = dict[str, float]
"""By name and labels, as in the text: `fanout_runs`, `fanout_leases_total{change="lost"}`."""


def parse(text: str) -> Samples:
    """Every sample; fails on what Prometheus' own parser does not take, and on a series that comes twice."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type != "unknown", family.name
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in samples
            samples[key] = sample.value
    return samples


def scrape(url: str) -> Samples:
    return parse(httpx.get(f"{url}/metrics", timeout=10, trust_env=False).raise_for_status().text)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two web workers and a runner, with a Redis of their own."""
    many = [*FANOUT, "serve", "--workers", str(WORKERS), "--runners", "1"]
    with Server(tmp_path_factory.mktemp("node"), command=many) as server:
        yield server


def ask(server: Server, times: int) -> None:
    """Over a connection each, so that they are spread over the workers."""
    for _ in range(times):
        assert server.status("/alive") == 200


ALIVE = 'fanout_http_requests_total{method="GET",route="/alive",status="2xx"}'


def test_workers_are_added_up(node: Server) -> None:
    """Whichever worker is asked, the answer is the node's."""
    before = scrape(node.url).get(ALIVE, 0)
    ask(node, REQUESTS)
    assert scrape(node.url)[ALIVE] == before + REQUESTS
    wait_until(lambda: scrape(node.url)['fanout_web_workers{state="ready"}'] == WORKERS, "both workers are ready")
    assert scrape(node.url)["fanout_runners"] == 1


def test_killed_worker_takes_no_count_with_it(node: Server) -> None:
    """What it has counted stays; what it had open is not open any more; the next one goes on."""
    ask(node, REQUESTS)
    before = scrape(node.url)[ALIVE]
    replaced = scrape(node.url)["fanout_processes_replaced_total"]
    victim = next(each for each in processes_of(node.pid) if each.name == "fanout-web-0")

    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: node.status("/ready") == 200, "somebody answers")
    wait_until(
        lambda: scrape(node.url)["fanout_processes_replaced_total"] == replaced + 1, "the death has been counted"
    )

    wait_until(lambda: scrape(node.url)['fanout_web_workers{state="ready"}'] == WORKERS, "both workers are ready")
    ask(node, REQUESTS)
    assert scrape(node.url)[ALIVE] >= before + REQUESTS


def test_everything_counted_moves(node: Server, scripted_llm: ScriptedLlm, tmp_path: Path) -> None:
    """Over one run that is watched, with its history: each series says what has happened."""
    with httpx.Client(base_url=node.url, timeout=30, trust_env=False) as http:
        before = scrape(node.url)
        one = Conversations(http, scripted_llm, str(tmp_path))()
        with one.socket() as socket:
            read(socket)
            one.send("HOLD counted", "SAY done", run=True)
            scripted_llm.wait_held("counted")
            wait_until(lambda: scrape(node.url)["fanout_runs"] == 1, "the run goes on")
            now = scrape(node.url)
            assert now['fanout_sockets{route="/sockets/events/{conversation_id}"}'] == 1
            assert now["fanout_conversations_hosted"] == before["fanout_conversations_hosted"] + 1
            scripted_llm.release("counted")
            one.wait_status("finished")
        stored = len(one.events)
        with one.socket("?resend_mode=all") as socket:
            for _ in range(stored):
                read(socket)
        http.get(f"/api/conversations/{UNKNOWN}")

    def grown(name: str) -> float:
        return scrape(node.url).get(name, 0) - before.get(name, 0)

    wait_until(lambda: grown('fanout_runs_ended_total{status="finished"}') == 1, "the end of the run is counted")
    assert grown("fanout_steps_total") == 1
    assert grown("fanout_events_stored_total") == stored
    assert grown("fanout_deliveries_total") > stored
    assert grown("fanout_replay_bytes_total") > 0
    assert grown('fanout_leases_total{change="claimed"}') == 1
    assert grown('fanout_runner_request_seconds_count{operation="conversation.create"}') == 1
    assert grown('fanout_http_request_seconds_count{route="/api/conversations"}') == 1
    refused = 'method="GET",route="/api/conversations/{conversation_id}",status="4xx"'
    assert grown(f"fanout_http_requests_total{{{refused}}}") == 1
    lags = [f'fanout_event_loop_lag_seconds_count{{role="{role}"}}' for role in ("web", "runner")]
    wait_until(lambda: all(grown(lag) > 0 for lag in lags), "the loops' lag is seen")
    gauges = ("fanout_runs", "fanout_backlog_bytes", "fanout_publish_queue_bytes")
    wait_until(lambda: not any(scrape(node.url)[gauge] for gauge in gauges), "nothing is left to do")


@pytest.mark.heavy
def test_directory_of_the_node_goes_with_the_server(tmp_path: Path) -> None:
    """A stopped server leaves nothing in the temporary folder."""
    # Sockets are made in it, whose names have at most 107 characters: `tmp_path` may leave too few.
    with TemporaryDirectory() as temporary:
        command = [*FANOUT, "serve", "--workers", "2", "--runners", "1"]
        with Server(tmp_path / "server", {"TMPDIR": temporary}, command) as server:
            assert len(list(Path(temporary).glob("fanout-node-*"))) == 1
            server.terminate()
        assert not list(Path(temporary).glob("fanout-node-*"))


def test_runners_have_a_port_of_their_own(tmp_path: Path) -> None:
    """A node that only runs agents is scraped too, with the token where one is set."""
    port = free_port()
    with RedisProcess(tmp_path / "redis") as redis:
        sandbox = Sandbox(
            tmp_path / "runner", {"REDIS_URL": redis.url, "OH_METRICS_PORT": str(port), "OH_METRICS_KEY": TOKEN}
        )
        child = ChildProcess(
            "runner", [PRELOADED, "runner", "--processes", "2"], sandbox.directory, sandbox.environment
        )
        child.start()
        try:
            url = f"http://127.0.0.1:{port}/metrics"
            with httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}, timeout=10, trust_env=False) as client:

                def has_both() -> bool:
                    try:
                        return parse(client.get(url).raise_for_status().text).get("fanout_runners") == 2
                    except httpx.TransportError:
                        return False

                child.wait_until(has_both, "both runners are counted", 60)
            assert httpx.get(url, timeout=10, trust_env=False).status_code == 401
        finally:
            child.close()
            sandbox.close()


async def test_token_opens_the_metrics(sanic_client: StartClient, settings: Settings) -> None:
    """Nobody else may read them then, whatever they send."""
    client = await sanic_client(
        create_app(settings.model_copy(update={"metrics_key": SecretStr(TOKEN)}), embedded_runner=False)
    )
    for header, status in ((f"Bearer {TOKEN}", 200), ("Bearer other", 401), (TOKEN, 401)):
        assert (await client.get("/metrics", headers={"authorization": header})).status_code == status
