"""Everything is killed at random while clients send numbered messages: the acknowledged are there, once, in order."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.cluster_process import Cluster
from tests.faults.owner import owner_pid
from tests.integration.contract.conversations import Conversation, Conversations
from tests.scripted_llm import ScriptedLlm
from tests.waiting import wait_until

SENDERS = 3
SEED = int(os.environ.get("FANOUT_CHAOS_SEED", "0")) or random.randrange(1, 1 << 31)
PATIENCE_SECONDS = 60.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A deployment of the test's own, which it damages."""
    with Cluster(tmp_path / "cluster", {"OH_LEASE_TTL_SECONDS": "2", "OH_DRAIN_SECONDS": "4"}) as cluster:
        yield cluster


class Sender(threading.Thread):
    """One client: numbered messages, each sent again with its key until it is acknowledged."""

    def __init__(self, url: str, conversation_id: str, name: str, over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged = 0
        self._path = f"{url}/api/conversations/{conversation_id}/events"
        self._over = over

    def run(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            while not self._over.is_set():
                self._insist(http, f"{self.name} {self.acknowledged}")
                self.acknowledged += 1

    def _insist(self, http: httpx.Client, text: str) -> None:
        body = {"content": [{"type": "text", "text": f"SAY heard {text}\n# {text}"}], "run": True}
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            with suppress(httpx.TransportError):
                answer = http.post(self._path, json=body, headers={"Idempotency-Key": text})
                if answer.status_code == 200:
                    return
                assert answer.status_code in {409, 429, 502, 503, 504}, answer.text
        raise AssertionError(f"nobody took {text} for {PATIENCE_SECONDS} s")


class Chaos:
    """Hits one process at a time and lets the deployment recover a little in between."""

    def __init__(self, cluster: Cluster, conversation_id: str, dice: random.Random) -> None:
        self._cluster = cluster
        self._conversation_id = conversation_id
        self._dice = dice
        self.hits: list[str] = []

    def hit(self) -> None:
        blow = self._dice.choice([self._owner, self._owner, self._web, self._redis])
        number = self._dice.choice([signal.SIGKILL, signal.SIGTERM])
        self.hits.append(f"{blow.__name__.strip('_')} {number.name}")
        blow(number)

    def _owner(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, IndexError):
            os.kill(owner_pid(self._cluster.conversations_path, self._conversation_id), number)

    def _web(self, number: signal.Signals) -> None:
        web = self._dice.choice(self._cluster.web_servers)
        web.send_signal(number)
        web.wait_exit()
        web.start()

    def _redis(self, number: signal.Signals) -> None:
        self._cluster.redis.process.send_signal(number)
        self._cluster.redis.process.wait_exit()
        self._cluster.redis.start()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("duration_seconds", [10, pytest.param(60, marks=pytest.mark.heavy)])
def test_acknowledged_messages_survive_everything(
    cluster: Cluster,
    scripted_llm: ScriptedLlm,
    tmp_path: Path,
    duration_seconds: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three senders in one conversation, whose runs go on and are cut off all the time."""
    with capsys.disabled():
        print(f"\nFANOUT_CHAOS_SEED={SEED}", flush=True)  # noqa: T201  to repeat it
    dice = random.Random(SEED)
    with httpx.Client(base_url=cluster.url, timeout=30, trust_env=False) as http:
        one = Conversations(http, scripted_llm, str(tmp_path / "project"))()
        over = threading.Event()
        senders = [Sender(cluster.url, one.id, f"sender-{number}", over) for number in range(SENDERS)]
        for sender in senders:
            sender.start()
        chaos, pause = Chaos(cluster, one.id, dice), threading.Event()
        end = time.monotonic() + duration_seconds
        while time.monotonic() < end:
            chaos.hit()
            pause.wait(dice.uniform(0.2, 2.0))
        over.set()
        for sender in senders:
            sender.join(PATIENCE_SECONDS)
            assert not sender.is_alive(), f"{sender.name} is still not answered after {chaos.hits}"
        wait_until(lambda: cluster.is_ready, "the deployment has recovered", 60.0)
        wait_until(lambda: told(one) == acknowledged(senders), f"the log is what was acknowledged: {chaos.hits}", 30.0)
        # The run that the last message started is continued as often as it was cut off, or given up with a reason.
        one.wait_status("finished", "error", "idle", timeout_seconds=30)
    assert sum(sender.acknowledged for sender in senders) > duration_seconds, chaos.hits


def acknowledged(senders: list[Sender]) -> dict[str, list[int]]:
    """What each sender was told is stored."""
    return {sender.name: list(range(sender.acknowledged)) for sender in senders}


def told(conversation: Conversation) -> dict[str, list[int]]:
    """The numbers in the log, in its order, by sender."""
    numbers: dict[str, list[int]] = {}
    page_id = None
    while True:
        query = {"limit": "100", "kind": "MessageEvent", "source": "user"} | ({"page_id": page_id} if page_id else {})
        page = conversation.get("/events/search", params=query).raise_for_status().json()
        for event in page["items"]:
            sender, number = event["llm_message"]["content"][0]["text"].rpartition("# ")[2].split()
            numbers.setdefault(sender, []).append(int(number))
        page_id = page["next_page_id"]
        if page_id is None:
            return numbers
