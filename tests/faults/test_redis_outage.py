"""Redis goes away: runs and readers go on, commands are refused, and afterwards it is as if nothing had been."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster, counted
from tests.faults.owner import runner_id, stopped
from tests.integration.contract.conversations import Conversation, Conversations
from tests.integration.contract.viewer import Viewer
from tests.waiting import wait_until

Outage = Callable[[Cluster], AbstractContextManager[None]]


@contextmanager
def killed(cluster: Cluster) -> Iterator[None]:
    """Redis is killed, and comes back empty."""
    cluster.redis.process.send_signal(signal.SIGKILL)
    cluster.redis.process.wait_exit()
    yield
    cluster.redis.start()


@contextmanager
def silent(cluster: Cluster) -> Iterator[None]:
    """Redis takes connections and does not answer; it keeps its data."""
    with stopped(cluster.redis.process.pid):
        yield


@contextmanager
def restarted(cluster: Cluster) -> Iterator[None]:
    """Redis is killed, and comes back with the data it had: leases and heartbeats of a while ago."""
    cluster.redis.client.save()
    try:
        with killed(cluster):
            yield
    finally:
        cluster.redis.dump_path.unlink()


@contextmanager
def silent_for_long(cluster: Cluster) -> Iterator[None]:
    """As `silent`, for longer than every time-out and lease."""
    with silent(cluster):
        over = time.monotonic() + 30
        yield
        wait_until(lambda: time.monotonic() > over, "half a minute has passed", 40.0)


@contextmanager
def emptied(cluster: Cluster) -> Iterator[None]:
    """Redis loses its data and goes on."""
    cluster.redis.client.flushall()
    yield


@contextmanager
def cut_off(cluster: Cluster) -> Iterator[None]:
    """Every connection to Redis breaks."""
    for kind in ("normal", "pubsub"):
        cluster.redis.client.client_kill_filter(_type=kind, skipme=True)
    yield


def converged(cluster: Cluster, http: httpx.Client) -> bool:
    """Whether every web server is ready and lists what exists."""
    return cluster.is_ready and all(httpx.get(f"{url}/ready").status_code == 200 for url in cluster.web_urls)


@pytest.mark.parametrize(
    "outage",
    [killed, restarted, silent, pytest.param(silent_for_long, marks=pytest.mark.heavy)],
    ids=lambda outage: str(outage.__name__),
)
def test_run_and_its_readers_go_on_without_redis(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm, outage: Outage
) -> None:
    """The answer of the LLM arrives during the outage: it is stored, read over HTTP and delivered on the socket."""
    one, gate = conversation(), outage.__name__
    with Viewer(one) as viewer:
        one.send(f"HOLD {gate}", "SAY meanwhile", run=True)
        scripted_llm.wait_held(gate)
        owner = runner_id(cluster.conversations_path, one.id)
        with outage(cluster):
            wait_until(lambda: not_ready(cluster), "no web server is ready", 20.0)
            scripted_llm.release(gate)
            viewer.until("agent: meanwhile")
            with cluster.past_the_balancer(1) as http:  # which finds none ready
                assert "agent: meanwhile" in Conversation(http, one.id, scripted_llm).outline
            refused = httpx.post(f"{cluster.web_urls[0]}{one.path}/events", json={"content": []}, timeout=30)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert counted(cluster.web_urls[0], 'fanout_runner_request_failures_total{reason="BrokerUnavailable"}') > 0
            assert httpx.get(f"{cluster.web_urls[0]}/alive").status_code == 200
        wait_until(lambda: converged(cluster, one.http), "every web server is ready again", 30.0)
        assert counted(cluster.web_urls[0], "fanout_redis_reconnects_total") > 0
        viewer.until("full_state=finished")
        one.run_to("finished", "SAY afterwards")
        viewer.until("agent: afterwards")
    assert_told_once(viewer, one)
    assert runner_id(cluster.conversations_path, one.id) == owner


@pytest.mark.parametrize("outage", [emptied, cut_off], ids=lambda outage: str(outage.__name__))
def test_moment_without_redis_costs_nothing(cluster: Cluster, conversation: Conversations, outage: Outage) -> None:
    """In the middle of a run and between: each event once, one owner, and nothing that exists is 404."""
    one = conversation()
    with Viewer(one) as viewer:
        for number in range(4):
            with outage(cluster):
                assert one.get().status_code == 200
            wait_until(lambda: one.post("/events", {"content": []}).status_code == 200, "commands are taken again")
            one.run_to("finished", f"SAY answer {number}")
            viewer.until(f"agent: answer {number}")
    assert_told_once(viewer, one)
    wait_until(lambda: is_listed(one), "the index is there again and has the conversation")


def test_redis_that_comes_back_with_an_old_file_learns_what_was_since(
    cluster: Cluster, conversation: Conversations
) -> None:
    """Of conversations that are open, and of those that no runner has in memory."""
    gone = conversation()
    cluster.redis.client.save()
    dump = cluster.redis.dump_path.read_bytes()
    gone.http.delete(gone.path).raise_for_status()
    new = conversation()
    with killed(cluster):
        cluster.redis.dump_path.write_bytes(dump)
    try:
        wait_until(lambda: is_listed(new), "the new one is listed", 30.0)
        wait_until(lambda: count(new.http) == len(list_all(new.http)), "the deleted one is not counted")
        assert not is_listed(gone)
    finally:
        cluster.redis.dump_path.unlink()


def count(http: httpx.Client) -> int:
    """How many conversations there are."""
    return int(http.get("/api/conversations/count").raise_for_status().json())


def list_all(http: httpx.Client) -> list[str]:
    """Their ids, as far as one page goes."""
    answer = http.get("/api/conversations/search", params={"limit": 100}).raise_for_status().json()
    assert answer["next_page_id"] is None
    return [item["id"] for item in answer["items"]]


def is_listed(conversation: Conversation) -> bool:
    """Whether lists show it; while the index is made anew they say to come back."""
    answer = conversation.http.get("/api/conversations/search")
    assert answer.status_code in {200, 503}, answer.text
    return answer.status_code == 200 and conversation.id in [item["id"] for item in answer.json()["items"]]


def not_ready(cluster: Cluster) -> bool:
    """Whether every web server says that it cannot serve."""
    return all(httpx.get(f"{url}/ready", timeout=10).status_code == 503 for url in cluster.web_urls)


def assert_told_once(viewer: Viewer, conversation: Conversation) -> None:
    """The viewer drops what it has seen by id, so the order and the absence of holes are what is left to see."""
    told = [frame["id"] for frame in viewer.frames if frame.get("key") != "full_state"]
    stored = [event["id"] for event in conversation.events]
    assert told == stored[: len(told)]
    assert "agent" in conversation.outline[-1]
