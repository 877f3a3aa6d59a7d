"""Whether an LLM may be used: drafts that are tried out, and ChatGPT subscriptions."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakeredis import FakeAsyncRedis
from openhands.sdk.llm.auth import openai
from openhands.sdk.utils.cipher import Cipher

from service.catalog.keys import Keys
from service.catalog.oauth_jobs import OAuthJobs
from service.demo.scripted_llm import ScriptedLlm
from service.errors import NotFound, RemoteUnavailable
from service.requests.message import Request
from service.runner.operations.subscription import SubscriptionOperations
from service.runner.workers import Workers
from tests.integration.contract.conversations import JsonObject
from tests.server_process import Server, free_port

SUBSCRIPTION = "/api/llm/subscription/openai"
NOBODY = {"vendor": "openai", "connected": False, "account_email": None, "expires_at": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody has signed in at."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, {"OH_PERSISTENCE_DIR": str(directory / "kept")}) as running:
        yield running


# Drafts


def verdict(http: httpx.Client, llm: JsonObject) -> JsonObject:
    found: JsonObject = http.post("/api/profiles/draft/validate", json={"llm": llm}).raise_for_status().json()
    return found


def test_llm_that_answers_is_valid(http: httpx.Client, llm: ScriptedLlm) -> None:
    """One call for one token, and nothing is saved."""
    before = len(llm.requests)
    assert verdict(http, llm.settings) == {"valid": True, "error": None}
    [asked] = llm.requests[before:]
    assert 1 in (asked.body.get("max_tokens"), asked.body.get("max_completion_tokens"))
    assert http.get("/api/profiles").json()["profiles"] == []


def test_llm_that_cannot_be_reached_is_not(http: httpx.Client, llm: ScriptedLlm) -> None:
    """With the reason; the key is not told."""
    found = verdict(http, llm.settings | {"base_url": f"http://127.0.0.1:{free_port()}/v1", "api_key": "k3y"})
    assert found["valid"] is False
    assert found["error"]["type"]
    assert "k3y" not in json.dumps(found)


def test_draft_has_the_key_of_its_provider_connection(http: httpx.Client, llm: ScriptedLlm) -> None:
    connection = {"display_name": "c", "api_key": llm.settings["api_key"], "base_url": llm.settings["base_url"]}
    connection_id = http.post("/api/llm/provider-connections", json=connection).raise_for_status().json()["id"]
    draft = {"model": llm.settings["model"], "provider_connection_id": connection_id}
    assert verdict(http, draft) == {"valid": True, "error": None}


def test_trial_lasts_no_longer_than_the_draft_waits(http: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        asked = time.monotonic()
        assert verdict(http, {"model": "openai/x", "api_key": "k", "base_url": url, "timeout": 1})["valid"] is True
    assert time.monotonic() - asked < 10


@pytest.mark.parametrize(("name", "content"), [("draft", {}), ("draft", {"llm": {"model": 3}}), ("-x", None)])
def test_what_is_no_draft_is_refused(http: httpx.Client, llm: ScriptedLlm, name: str, content: Any) -> None:
    wanted = {"llm": llm.settings} if content is None else content
    assert http.post(f"/api/profiles/{name}/validate", json=wanted).status_code == 422


# Subscriptions


def test_nobody_is_signed_in(http: httpx.Client, server: Server) -> None:
    """Asking and signing out make nothing."""
    assert http.get(f"{SUBSCRIPTION}/status").json() == NOBODY
    assert http.post(f"{SUBSCRIPTION}/logout").json() == NOBODY
    models = http.get(f"{SUBSCRIPTION}/models").json()
    assert (models["vendor"], models["models"] == sorted(models["models"]) != []) == ("openai", True)
    assert not (server.directory / "kept" / "auth").exists()


def test_draft_of_a_subscription_wants_somebody_to_be_signed_in(http: httpx.Client) -> None:
    found = verdict(http, {"model": "openai/gpt-5", "auth_type": "subscription"})
    assert (found["valid"], found["error"]["type"]) == (False, "ValueError")
    assert "login" in found["error"]["message"]


def test_offline_says_so(http: httpx.Client) -> None:
    """Here nothing but loopback is reached."""
    answer = http.post(f"{SUBSCRIPTION}/device/start")
    assert answer.status_code == 502
    assert "OpenAI" in answer.json()["detail"]


def test_unknown_login_is_404(http: httpx.Client) -> None:
    assert http.post(f"{SUBSCRIPTION}/device/poll", json={"device_code": "nope"}).status_code == 404
    assert http.post(f"{SUBSCRIPTION}/device/poll", json={}).status_code == 422


class Issuer:
    """Stands for OpenAI's accounts: a code that a person enters, or has not yet."""

    def __init__(self) -> None:
        self.is_entered = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                status, content = issuer.answer(self.path)
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, bytes]:
        if path.endswith("/usercode"):
            return 200, json.dumps({"user_code": "ABCD", "device_auth_id": "d3vice", "interval": "2"}).encode()
        if path.endswith("/deviceauth/token"):
            found = {"authorization_code": "c", "code_verifier": "v"}
            return (200, json.dumps(found).encode()) if self.is_entered else (403, b"{}")
        return 200, json.dumps({"access_token": "acc3ss", "refresh_token": "r3fresh", "expires_in": 3600}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """Where the SDK finds it, which no setting says."""
    stand = Issuer()
    monkeypatch.setattr(openai, "ISSUER", stand.url)
    yield stand
    stand.close()


@pytest.fixture
async def runners(tmp_path: Path) -> AsyncIterator[list[SubscriptionOperations]]:
    """Two that share a disk and a Redis."""
    workers, cipher = Workers(), Cipher("key")
    jobs = OAuthJobs(FakeAsyncRedis(), Keys("fanout"))
    yield [SubscriptionOperations(tmp_path, workers, jobs, cipher) for _ in range(2)]
    workers.close()


async def ask(runner: SubscriptionOperations, operation: str, **content: str) -> JsonObject:
    request = Request("id", operation, None, "", {}, json.dumps(content).encode())
    found: JsonObject = json.loads((await runner.table[operation](request)).body)
    return found


async def test_login_goes_on_at_any_runner(
    runners: list[SubscriptionOperations], issuer: Issuer, tmp_path: Path
) -> None:
    """The next question may land anywhere; tokens are kept for the agents and told to nobody."""
    first, second = runners
    begun = await ask(first, "subscription.start")
    assert (begun["user_code"], begun["interval_seconds"]) == ("ABCD", 2)
    assert begun["verification_uri"].startswith(issuer.url)
    assert begun["expires_at"] > time.time() * 1000
    assert "d3vice" not in json.dumps(begun)
    pending = await ask(second, "subscription.poll", device_code=begun["device_code"])
    assert pending == NOBODY
    issuer.is_entered = True
    done = await ask(second, "subscription.poll", device_code=begun["device_code"])
    assert (done["connected"], done["expires_at"] > time.time() * 1000) == (True, True)
    assert await ask(first, "subscription.status") == done
    assert "acc3ss" not in json.dumps(done)
    assert any("acc3ss" in path.read_text() for path in (tmp_path / "auth").iterdir())
    assert await ask(first, "subscription.logout") == NOBODY
    for over in (begun["device_code"], "unknown"):
        with pytest.raises(NotFound):
            await ask(first, "subscription.poll", device_code=over)


async def test_signing_out_ends_logins_that_have_begun(runners: list[SubscriptionOperations], issuer: Issuer) -> None:
    first, second = runners
    before = await ask(first, "subscription.start")
    await ask(second, "subscription.logout")
    issuer.is_entered = True
    with pytest.raises(NotFound):
        await ask(first, "subscription.poll", device_code=before["device_code"])
    after = await ask(second, "subscription.start")
    assert (await ask(first, "subscription.poll", device_code=after["device_code"]))["connected"] is True
    with pytest.raises(NotFound):
        await ask(second, "subscription.poll", device_code=after["device_code"])


async def test_issuer_that_refuses_is_told(runners: list[SubscriptionOperations], issuer: Issuer) -> None:
    issuer.answer = lambda path: (500, b"{}")  # type: ignore[method-assign]
    with pytest.raises(RemoteUnavailable, match="500"):
        await ask(runners[0], "subscription.start")
