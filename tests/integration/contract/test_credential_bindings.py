"""`PUT .../credential-bindings/{name}`: the login of an ACP agent, kept up to date at a service on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.integration.contract.conversations import Conversation, Conversations
from tests.server_process import Server
from tests.waiting import wait_until

NAME = "CODEX_AUTH_JSON"
TOO_LATE = "Credential binding activation arrived after ACP initialization"
START_SECONDS = 60.0


def login(token: str) -> str:
    """A login as Codex keeps it in a file."""
    return json.dumps({"auth_mode": "chatgpt", "tokens": {"refresh_token": token}})


class CredentialService:
    """Holds the newest login, and hands it to who knows the token of the day. `/<status>` answers with that."""

    def __init__(self) -> None:
        self.value, self.version, self.token = login("first"), 1, "today"
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(service.answer(self.path, self.headers["authorization"]))

            def do_PUT(self) -> None:
                given = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert given["expected_version"] == str(service.version)
                service.value, service.version = given["value"], service.version + 1
                self._answer((200, {"version": str(service.version)}))

            def _answer(self, answer: tuple[int, Any]) -> None:
                content = json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, token: str | None) -> tuple[int, Any]:
        match path.removeprefix("/"):
            case "nothing":
                return 200, {"nothing": 1}
            case "no-login":
                return 200, {"value": "no login", "version": "1"}
            case status if status.isdigit():
                return int(status), {}
        if token != self.token:
            return 401, {}
        return 200, {"value": self.value, "version": str(self.version)}


@pytest.fixture
def service() -> Iterator[CredentialService]:
    service = CredentialService()
    thread = threading.Thread(target=service.server.serve_forever)
    thread.start()
    yield service
    service.server.shutdown()
    thread.join()
    service.server.server_close()


def bind(
    http: httpx.Client, conversation_id: object, url: str, token: str = "today", name: str = NAME
) -> httpx.Response:
    body = {"url": url, "headers": {"Authorization": token}}
    return http.put(f"/api/conversations/{conversation_id}/credential-bindings/{name}", json=body)


def said(one: Conversation, *lines: str) -> list[str]:
    """What the agent has answered so far, once it has run these lines too."""
    before = len(answers(one))
    one.send(*lines, run=True)
    return wait_until(lambda: found if len(found := answers(one)) > before else [], "it has answered", START_SECONDS)


def answers(one: Conversation) -> list[str]:
    return [event["action"]["message"] for event in one.events if event["kind"] == "ActionEvent"]


def test_agent_starts_with_the_login_and_what_it_renews_is_written_back(
    acp: Callable[..., Conversation], http: httpx.Client, service: CredentialService
) -> None:
    """The login is masked in what the agent says."""
    one = acp()
    answer = bind(http, one.id, service.url)
    assert (answer.status_code, answer.content) == (204, b"")
    assert said(one, "FILE CODEX_HOME/auth.json") == ["<secret-hidden>"]
    said(one, f"WRITE CODEX_HOME/auth.json {login('second')}", "SAY renewed")
    wait_until(lambda: service.version == 2, "the service has the new login")
    assert json.loads(service.value)["tokens"]["refresh_token"] == "second"


def test_it_can_be_said_before_the_conversation_is_created(
    acp: Callable[..., Conversation], http: httpx.Client, service: CredentialService
) -> None:
    chosen = str(uuid4())
    assert bind(http, chosen, service.url).status_code == 204
    one = acp(conversation_id=chosen)
    assert said(one, "FILE CODEX_HOME/auth.json") == ["<secret-hidden>"]


def test_it_outlives_the_process_and_goes_with_the_conversation(
    acp: Callable[..., Conversation], http: httpx.Client, service: CredentialService, server: Server
) -> None:
    """It is stored without the token being readable."""
    one = acp()
    bind(http, one.id, service.url).raise_for_status()
    stored = server.conversations_path / ".credential_bindings" / UUID(one.id).hex
    assert b"today" not in stored.read_bytes()
    server.kill()
    server.start()
    assert said(one, "FILE CODEX_HOME/auth.json") == ["<secret-hidden>"]
    one.delete().raise_for_status()
    assert not stored.exists()


def test_a_running_agent_takes_other_headers_and_no_other_service(
    acp: Callable[..., Conversation], http: httpx.Client, service: CredentialService
) -> None:
    one = acp()
    bind(http, one.id, service.url).raise_for_status()
    said(one, "SAY started")
    service.token = "tomorrow"
    assert bind(http, one.id, service.url, "tomorrow").status_code == 204
    elsewhere = bind(http, one.id, f"{service.url}/elsewhere", "tomorrow")
    assert (elsewhere.status_code, elsewhere.json()["detail"]) == (409, TOO_LATE)
    said(one, f"WRITE CODEX_HOME/auth.json {login('second')}", "SAY renewed")
    wait_until(lambda: service.version == 2, "the service has the new login")


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("401", 403, "Credential binding authorization was rejected"),
        ("403", 403, "Credential binding authorization was rejected"),
        ("404", 422, "Credential binding source is invalid"),
        ("409", 409, "Credential binding source changed"),
        ("nothing", 422, "Credential binding source is invalid"),
        ("no-login", 422, "Credential binding source is invalid"),
        ("500", 502, "Credential binding source is unavailable"),
        ("501", 501, "Credential binding source is unsupported"),
    ],
)
def test_service_that_does_not_give_a_login(
    http: httpx.Client, service: CredentialService, path: str, status: int, detail: str
) -> None:
    answer = bind(http, uuid4(), f"{service.url}/{path}")
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)


def test_service_that_is_not_there(http: httpx.Client) -> None:
    assert bind(http, uuid4(), "http://127.0.0.1:1/").status_code == 502
    assert bind(http, uuid4(), "no address").status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": "http://x", "headers": None},
        {"url": "http://x", "more": 1},
        [1],
        {"url": f"http://x/{'x' * 4096}"},
        {"url": "http://x", "headers": {"x": ""}},
        {"url": "http://x", "headers": {"x": "v" * 8193}},
        {"url": "http://x", "headers": {f"x-{number}": "v" for number in range(17)}},
    ],
)
def test_bad_bodies(http: httpx.Client, body: object) -> None:
    """The service is not asked."""
    answer = http.put(f"/api/conversations/{uuid4()}/credential-bindings/{NAME}", json=body)
    assert (answer.status_code, answer.json()["detail"][0]["loc"][0]) == (422, "body")


def test_other_names_and_other_agents(
    http: httpx.Client, service: CredentialService, conversation: Conversations
) -> None:
    assert bind(http, uuid4(), service.url, name="OTHER").status_code == 404
    assert bind(http, "no-id", service.url).status_code == 422
    answer = bind(http, conversation().id, service.url)
    assert (answer.status_code, answer.json()["detail"]) == (409, TOO_LATE)


def test_agent_whose_profile_does_not_allow_it_gets_none(
    http: httpx.Client, service: CredentialService, server: Server
) -> None:
    profile = {"agent_kind": "acp", "acp_server": "codex", "secret_refs": []}
    http.post("/api/agent-profiles/unbound", json=profile).raise_for_status()
    profile_id = http.get("/api/agent-profiles/unbound").raise_for_status().json()["profile"]["id"]
    body = {"agent_profile_id": profile_id, "workspace": {"working_dir": str(server.directory / "unbound")}}
    one = http.post("/api/conversations", json=body).raise_for_status().json()
    answer = bind(http, one["id"], service.url)
    assert (answer.status_code, answer.json()["detail"]) == (403, "Credential binding authorization was rejected")
    assert not (server.conversations_path / ".credential_bindings" / UUID(one["id"]).hex).exists()
    http.delete("/api/agent-profiles/unbound").raise_for_status()
