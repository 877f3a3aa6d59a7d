"""A deployment of many processes with a deferred start: one request starts all of it, and who comes later follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.catalog.init_record import Initialization, InitRecord
from service.catalog.keys import Keys
from service.redis_source import RedisSource
from service.settings import Settings
from service.settings.sealed import seal
from tests.child_process import ChildProcess
from tests.cluster_process import Cluster
from tests.server_process import FANOUT, Sandbox, free_port
from tests.waiting import wait_until

INIT_KEY = "known-to-who-starts-it"
KEY = "late-key"
CONFIGURATION = {"session_api_keys": [KEY], "env": {"GIVEN_LATE": "yes"}}
ENVIRONMENT = {"OH_DEFERRED_INIT": "true", "OH_SECRET_KEY": INIT_KEY}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two web servers and two runners, dormant."""
    with Cluster(tmp_path / "cluster", ENVIRONMENT) as running:
        yield running


def init(url: str, timeout_seconds: float = 60.0) -> httpx.Response:
    headers = {"X-Init-API-Key": INIT_KEY}
    return httpx.post(f"{url}/api/init", json=CONFIGURATION, headers=headers, timeout=timeout_seconds, trust_env=False)


def state(url: str) -> str:
    return str(httpx.get(f"{url}/api/init", timeout=30, trust_env=False).json()["state"])


def status(url: str) -> int | None:
    """Of a request with the key that came late; None when nobody answers."""
    headers = {"X-Session-API-Key": KEY}
    try:
        return httpx.get(f"{url}/api/conversations/count", headers=headers, timeout=30, trust_env=False).status_code
    except httpx.TransportError:
        return None


def late_variable(url: str) -> str:
    """What a shell of some runner says of it."""
    answer = httpx.post(
        f"{url}/api/bash/execute_bash_command",
        json={"command": "echo $GIVEN_LATE"},
        headers={"X-Session-API-Key": KEY},
        timeout=30,
        trust_env=False,
    )
    return str(answer.raise_for_status().json()["stdout"]).strip()


def test_one_request_starts_all(cluster: Cluster) -> None:
    one, other = cluster.web_urls
    assert [state(url) for url in cluster.web_urls] == ["dormant", "dormant"]
    assert init(one).status_code == 200
    assert status(other) == 200
    assert late_variable(other) == "yes"
    assert init(other).json()["detail"] == "server already in state: ready"


def test_what_redis_forgets_is_told_again(cluster: Cluster) -> None:
    """A web server and runners that start after `FLUSHALL` are configured by the others."""
    one, other = cluster.web_urls
    assert init(one).status_code == 200
    cluster.redis.client.flushall()
    cluster.web_servers[1].kill()
    cluster.web_servers[1].start()
    cluster.web_servers[1].wait_until(lambda: status(other) == 200, "the new web server has the configuration", 30)
    cluster.runners.kill()
    cluster.runners.start()
    cluster.runners.wait_until(lambda: runs_commands(other), "the new runners have the configuration", 60)
    assert late_variable(other) == "yes"


def runs_commands(url: str) -> bool:
    try:
        return late_variable(url) == "yes"
    except httpx.HTTPStatusError:
        return False


def test_it_goes_on_when_the_caller_hangs_up(cluster: Cluster) -> None:
    one, other = cluster.web_urls
    with pytest.raises(httpx.ReadTimeout):
        init(one, timeout_seconds=0.02)
    wait_until(lambda: state(other) == "ready", "the configuration is taken", 30)
    assert status(other) == 200


def test_attempt_of_a_web_worker_that_died_runs_out(cluster: Cluster) -> None:
    """By hand: it was proposed, a runner has begun with it, and nobody is there to say that it is ready."""
    one, other = cluster.web_urls
    wait_until(lambda: state(one) == "dormant", "it is dormant", 10)

    async def propose() -> None:
        source = RedisSource(cluster.redis.url, "fanout")
        redis = source.commands()
        sealed = seal(b"{}", Settings.model_validate({"secret_key": INIT_KEY}))
        assert await Initialization(redis, Keys("fanout")).propose(InitRecord.new(sealed), 3.0)
        await redis.aclose()

    asyncio.run(propose())
    assert state(one) == "initializing"
    refused = init(other)
    assert (refused.status_code, refused.json()["detail"]) == (400, "server already in state: initializing")
    wait_until(lambda: state(one) == "dormant", "the attempt has run out", 15)
    assert init(other).status_code == 200
    assert status(one) == 200
    assert late_variable(one) == "yes"


def test_web_server_with_another_secret_key_stays_dormant_and_says_why(cluster: Cluster, tmp_path: Path) -> None:
    assert init(cluster.url).status_code == 200
    port = free_port()
    sandbox = Sandbox(tmp_path / "stranger", ENVIRONMENT | {"REDIS_URL": cluster.redis.url, "OH_SECRET_KEY": "other"})
    command = [*FANOUT, "web", "--host", "127.0.0.1", "--port", str(port)]
    stranger = ChildProcess("stranger", command, tmp_path / "stranger", sandbox.environment)
    url = f"http://127.0.0.1:{port}"
    try:
        stranger.start()
        stranger.wait_until(lambda: status(url) is not None, "it answers", 60)
        assert status(url) == 503
        told = httpx.get(f"{url}/api/init", timeout=30, trust_env=False).json()
        assert told["state"] == "dormant"
        assert "another secret key" in told["error"]
    finally:
        stranger.close()
        sandbox.close()
