"""A receiver of webhooks that fails, redirects, hangs and is down while owners are killed: it gets the log."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.faults.owner import owner_pid, wait_for_another_owner
from tests.integration.contract.conversations import Conversation, Conversations
from tests.waiting import wait_until
from tests.webhook_receiver import WebhookReceiver

CONVERSATIONS = 3


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, receiver: WebhookReceiver) -> Iterator[Cluster]:
    spec = {"base_url": receiver.url, "event_buffer_size": 3, "flush_delay": 0.3, "num_retries": 1, "retry_delay": 0.1}
    environment = {"OH_WEBHOOKS": json.dumps([spec]), "OH_LEASE_TTL_SECONDS": "2"}
    with Cluster(tmp_path_factory.mktemp("webhooks"), environment) as running:
        yield running


@pytest.fixture(scope="module")
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.mark.heavy
def test_receiver_gets_the_log_whatever_dies(
    cluster: Cluster, http: httpx.Client, receiver: WebhookReceiver, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """In order, once by delivery id, also of conversations that nobody asks for any more."""
    make = Conversations(http, scripted_llm, str(tmp_path / "project"))
    ones = [make() for _ in range(CONVERSATIONS)]
    for trouble in ("fails", "redirects", "hangs", "is down"):
        receiver.status = {"fails": 500, "redirects": 307}.get(trouble, 200)
        if trouble == "hangs":
            receiver.hang()
        if trouble == "is down":
            receiver.down()
        for one in ones:
            one.run_to("finished", "SAY hello", "SAY again")
        kill_owners(cluster, ones)
        receiver.status = 200
        receiver.go_on()
        if trouble == "is down":
            receiver.up()
    for one in ones:
        wait_until(partial(is_told, receiver, one), "the receiver has the log", 90.0)
        bounds = {
            post.headers["webhook-id"]: post.headers["x-fanout-seq"]
            for post in receiver.posts
            if post.path.endswith(one.id.replace("-", "")) and "x-fanout-seq" in post.headers
        }
        assert len(set(bounds.values())) == len(bounds), "the same events came under two ids"


def is_told(receiver: WebhookReceiver, one: Conversation) -> bool:
    return receiver.events(one.id) == one.events


def kill_owners(cluster: Cluster, ones: list[Conversation]) -> None:
    """Kill each conversation's owner and wait until another has it; nobody asks for the conversation."""
    for one in ones:
        former = owner_pid(cluster.conversations_path, one.id)
        with suppress(ProcessLookupError):  # it owned another one, too
            os.kill(former, signal.SIGKILL)
        wait_for_another_owner(cluster.conversations_path, one.id, former)
