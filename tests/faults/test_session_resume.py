"""A reader of the session that loses its connection again and again, while what it reads from is killed around it."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import SHUT_RDWR

import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.faults.owner import owner_pid, wait_for_another_owner
from tests.faults.senders import acknowledged, sending, told
from tests.faults.test_redis_outage import killed
from tests.faults.test_takeover import insist
from tests.integration.contract.conversations import Conversation, Conversations, agent_of
from tests.integration.contract.session import event_source, is_transient
from tests.waiting import wait_until

RESUMPTIONS = 200
TAKEOVERS = (50, 100)
REDIS_IS_GONE = range(140, 160)
MOST_FRAMES = 40
QUIET_SECONDS = 0.2


class Resumer:
    """Keeps what it has received as bytes, and knows nothing but its position and the name of the history."""

    def __init__(self, conversation: Conversation) -> None:
        self.received: list[bytes] = []
        self._path = f"/sockets/session/{conversation.id}"
        self._stream_epoch = ""

    def read(self, url: str, most_frames: int) -> None:
        """Connect, go on where it was, take so many frames at most, and drop the connection without a word."""
        position = len(self.received) - 1
        query = f"?after_seq={position}" + (f"&stream_epoch={self._stream_epoch}" if self._stream_epoch else "")
        socket = connect(f"{url.replace('http', 'ws', 1)}{self._path}{query}", proxy=None, close_timeout=0)
        with ExitStack() as stack:
            stack.callback(socket.socket.shutdown, SHUT_RDWR)
            sync = json.loads(socket.recv(timeout=20))
            assert sync.get("recovered", True), "it is the same history all along"
            self._stream_epoch = sync["stream_epoch"]
            with suppress(TimeoutError):
                for _ in range(most_frames):
                    self._take(socket.recv(timeout=QUIET_SECONDS, decode=False))

    def _take(self, frame: bytes) -> None:
        head = b'{"type":"durable","seq":%d,"event":' % len(self.received)
        if frame.startswith(head):
            self.received.append(frame[len(head) : -1])
        else:
            assert not frame.startswith(b'{"type":"durable"'), f"{frame[:60]!r} at {len(self.received)}"


def log_of(cluster: Cluster, conversation: Conversation) -> list[bytes]:
    """The files of the log, in order."""
    folder: Path = cluster.conversations_path / conversation.id.replace("-", "") / "events"
    return [path.read_bytes() for path in sorted(folder.glob("event-*.json"))]


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_what_was_received_in_two_hundred_pieces_is_the_log(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """At random points, on either worker, over two takeovers and a Redis that comes back empty: byte for byte."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    one = conversation(agent=agent_of(scripted_llm, stream=True))
    resumer = Resumer(one)
    owners = [owner_pid(cluster.conversations_path, one.id)]
    with sending(one, 2) as senders, ExitStack() as outage:
        for number in range(RESUMPTIONS):
            if number in TAKEOVERS:
                os.kill(owners[-1], signal.SIGKILL)
                owners.append(wait_for_another_owner(cluster.conversations_path, one.id, owners[-1]))
            if number == REDIS_IS_GONE.start:
                outage.enter_context(killed(cluster))
            if number == REDIS_IS_GONE.stop:
                outage.close()
            resumer.read(chance.choice(cluster.web_urls), chance.randrange(MOST_FRAMES))

    def is_all_read() -> bool:
        resumer.read(cluster.web_urls[0], len(resumer.received) + RESUMPTIONS)
        # A message may be applied, and start a run, later than it was acknowledged.
        is_over = settled(one) and told(one) == acknowledged(senders)
        return is_over and len(resumer.received) == len(log_of(cluster, one))

    wait_until(is_all_read, "every run is over and read", 150.0)
    log = log_of(cluster, one)
    print(f"{len(log)} events, {sum(sender.acknowledged for sender in senders)} messages, owners {owners}")  # noqa: T201

    assert resumer.received == log
    assert told(one) == acknowledged(senders)
    assert len(set(owners)) == 3
    assert len(log) > RESUMPTIONS


def settled(conversation: Conversation) -> bool:
    """Whether no run is going on; while Redis comes back the server may say to come back."""
    answer = conversation.get()
    return answer.status_code == 200 and answer.json()["execution_status"] in {"finished", "idle"}


def test_server_sent_events_go_on_at_another_worker(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """With `Last-Event-ID` a client gets the rest, wherever it comes back and whoever owns the conversation now."""
    one = conversation()
    received: list[str] = []
    position = "-1"
    for number in range(4):
        one.run_to("finished", f"SAY answer {number}")
        if number == 2:
            former = owner_pid(cluster.conversations_path, one.id)
            os.kill(former, signal.SIGKILL)
            insist(one.http, f"{one.path}/events", f"key {one.id}", "to the next owner")
        with httpx.Client(base_url=cluster.web_urls[number % 2], timeout=30, trust_env=False) as http:
            elsewhere = Conversation(http, one.id, scripted_llm)
            with event_source(elsewhere, last_event_id=position) as source:
                frames = source.until(is_transient)
                received += [frame["event"]["id"] for frame in frames if frame["type"] == "durable"]
                position = source.last_event_id or position
    assert received == [event["id"] for event in one.events]


def test_answer_of_a_killed_runner_is_closed(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """Nobody is left to say that it was aborted but the next owner, which asks the LLM again."""
    one = conversation(agent=agent_of(scripted_llm, stream=True))
    with one.session() as socket:
        one.send("STALL killed-answer", "SAY one two three", run=True)
        begun = json.loads(socket.recv(timeout=20))
        while begun["type"] != "item_started":
            begun = json.loads(socket.recv(timeout=20))
        os.kill(owner_pid(cluster.conversations_path, one.id), signal.SIGKILL)
        scripted_llm.release("killed-answer")
        frames = [json.loads(socket.recv(timeout=20))]
        while not (is_transient(frames[-1]) and frames[-1]["event"]["value"]["execution_status"] == "finished"):
            frames.append(json.loads(socket.recv(timeout=20)))

    aborted, again = [frame for frame in frames if frame["type"] in {"item_aborted", "item_started"}]
    assert aborted == {
        "type": "item_aborted",
        "item_id": begun["item_id"],
        "attempt": 1,
        "reason": "owner_lost",
    }
    assert again["item_id"] in [event["id"] for event in one.events]


@pytest.mark.heavy
def test_watchers_of_a_killed_worker_vanish(cluster: Cluster, conversation: Conversations) -> None:
    """It cannot say that they are gone; the others notice that it no longer says that they are there."""
    one = conversation()
    address = f"/sockets/session/{one.id}?watcher="
    first, second = (url.replace("http", "ws", 1) for url in cluster.web_urls)
    with connect(f"{first}{address}Ada", proxy=None), connect(f"{second}{address}Bob", proxy=None) as watching:
        told = frames_of_presence(watching)
        wait_until(lambda: next(told) == ["Ada", "Bob"], "both are shown")
        cluster.web_servers[0].kill()
        assert next(told) == ["Bob"]
    cluster.web_servers[0].start()
    wait_until(lambda: cluster.is_ready, "the killed web server is back", 60.0)


def frames_of_presence(connection: Connection) -> Iterator[list[str]]:
    """The names that are told, each time they are."""
    while True:
        frame = json.loads(connection.recv(timeout=30))
        if frame["type"] == "presence":
            yield frame["names"]
