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

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.faults.owner import owner_pid
from tests.faults.senders import acknowledged, sending, told
from tests.integration.contract.conversations import Conversations
from tests.waiting import wait_until

SENDERS = 3
SEED = int(os.environ.get("FANOUT_CHAOS_SEED", "0")) or random.randrange(1, 1 << 31)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A deployment of the test's own, which it damages."""
    with Cluster(tmp_path / "cluster", {"OH_LEASE_TTL_SECONDS": "2", "OH_DRAIN_SECONDS": "4"}) as cluster:
        yield cluster


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
        chaos, pause = Chaos(cluster, one.id, dice), threading.Event()
        end = time.monotonic() + duration_seconds
        with sending(one, SENDERS) as senders:
            while time.monotonic() < end:
                chaos.hit()
                pause.wait(dice.uniform(0.2, 2.0))
        wait_until(lambda: cluster.is_ready, "the deployment has recovered", 60.0)
        wait_until(lambda: told(one) == acknowledged(senders), f"the log is what was acknowledged: {chaos.hits}", 30.0)
        # The run that the last message started is continued as often as it was cut off, or given up with a reason.
        one.wait_status("finished", "error", "idle", timeout_seconds=30)
    assert sum(sender.acknowledged for sender in senders) > duration_seconds, chaos.hits
