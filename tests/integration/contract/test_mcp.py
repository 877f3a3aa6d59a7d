"""MCP servers tried out and authorized at, and ACP servers asked for their models."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import agent_of, user_message
from tests.mcp_server import served
from tests.server_process import REPOSITORY, Server
from tests.waiting import wait_until
from tests.webhook_receiver import Post, WebhookReceiver

JsonObject = dict[str, Any]

OAUTH = {"strategy": "oauth2"}


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    """The URL of an MCP server without authorization."""
    with served(with_oauth=False) as url:
        yield url


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The URL of an MCP server that wants an OAuth token, and gives it to everybody who asks."""
    with served(with_oauth=True) as url:
        yield url


def posted(http: httpx.Client, path: str, content: object) -> JsonObject:
    found: JsonObject = http.post(f"/api/{path}", json=content).raise_for_status().json()
    return found


# Test


def test_server_over_stdio(http: httpx.Client) -> None:
    server = {"type": "stdio", "command": sys.executable, "args": ["-m", "tests.mcp_stdio"], "cwd": str(REPOSITORY)}
    found = posted(http, "mcp/test", {"server": server, "timeout": 20})
    assert found == {"ok": True, "tools": ["greet"]}


@pytest.mark.parametrize("form", [{"type": "shttp"}, {"type": "http"}, {"transport": "streamable-http"}, {}])
def test_server_over_http_in_every_form(http: httpx.Client, plain: str, form: JsonObject) -> None:
    assert posted(http, "mcp/test", {"server": {"url": plain, **form}}) == {"ok": True, "tools": ["greet"]}


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("somebody", {"is_error": False, "text": "Hello somebody"}),
        ("", {"is_error": True, "text": "Error calling tool 'greet': nobody is there"}),
        ("slow", {"is_error": True, "text": "Tool 'greet' call timed out after 1.0 seconds"}),
    ],
)
def test_tool_is_called(http: httpx.Client, plain: str, name: str, result: JsonObject) -> None:
    call = {"name": "greet", "arguments": {"name": name}}
    found = posted(http, "mcp/test", {"server": {"url": plain}, "timeout": 1, "tool_call": call})
    assert found == {"ok": True, "tools": ["greet"], "tool_result": result}


def test_tool_that_the_server_does_not_have(http: httpx.Client, plain: str) -> None:
    found = posted(http, "mcp/test", {"server": {"url": plain}, "tool_call": {"name": "wave"}})
    assert found["tool_result"] == {
        "is_error": True,
        "text": "Tool 'wave' not advertised by server (available: greet)",
    }


@pytest.mark.parametrize(
    ("tried", "kind"),
    [
        ({"url": "http://127.0.0.1:1/mcp"}, "connection"),
        ({"command": "/no/such/program"}, "connection"),
        ({"command": "sleep", "args": ["60"]}, "timeout"),
    ],
)
def test_server_that_does_not_work_is_an_answer(http: httpx.Client, tried: JsonObject, kind: str) -> None:
    found = posted(http, "mcp/test", {"server": tried, "timeout": 1})
    assert (found["ok"], found["error_kind"], bool(found["error"])) == (False, kind, True)
    assert found.keys() == {"ok", "error", "error_kind"}


def test_remote_401_is_an_answer_too(http: httpx.Client, guarded: str) -> None:
    for auth in ({}, {"auth": OAUTH}, {"auth": {"strategy": "bearer", "value": "wrong"}}):
        found = posted(http, "mcp/test", {"server": {"url": guarded, **auth}, "timeout": 5})
        assert found["ok"] is False, auth


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"server": {}},
        {"server": {"url": "http://x", "unknown": 1}},
        {"server": {"type": "stdio"}},
        {"server": {"url": "http://x"}, "timeout": 0},
        {"server": {"url": "http://x"}, "timeout": 121},
    ],
)
def test_what_is_no_server_is_422(http: httpx.Client, content: JsonObject) -> None:
    assert http.post("/api/mcp/test", json=content).status_code == 422


# OAuth


def authorizing(http: httpx.Client, url: str, state: JsonObject | None = None) -> JsonObject:
    call = {"name": "greet", "arguments": {"name": "you"}}
    return posted(
        http, "mcp/oauth/start", {"server": {"url": url, "auth": OAUTH | {"state": state}}, "tool_call": call}
    )


def led_to(authorization_url: str) -> str:
    """Where a browser ends up once its user has agreed."""
    answer = httpx.get(authorization_url, trust_env=False)
    assert answer.status_code == 302
    return answer.headers["location"]


def test_authorization_from_start_to_tools(http: httpx.Client, guarded: str) -> None:
    begun = authorizing(http, guarded)
    assert begun.keys() == {"ok", "job_id", "authorization_url"}
    status = f"/api/mcp/oauth/status/{begun['job_id']}"
    told = http.get(status).raise_for_status().json()
    assert told == {
        "ok": True,
        "status": "authorizing",
        "job_id": begun["job_id"],
        "authorization_url": begun["authorization_url"],
        "callback_ready": True,
    }

    callback = f"mcp/oauth/callback/{begun['job_id']}"
    url = led_to(begun["authorization_url"])
    for wrong, reason in (
        ("https" + url.removeprefix("http"), "Invalid OAuth callback URL"),
        ("http://example.org/callback?code=x", "Invalid OAuth callback URL"),
        ("http://localhost:1/callback", "Unexpected OAuth callback URL"),
        ("http://localhost:99999/callback", "Unexpected OAuth callback URL"),
        (url.replace("/callback", "/other"), "Unexpected OAuth callback URL"),
    ):
        refused = http.post(f"/api/{callback}", json={"callback_url": wrong})
        assert (refused.status_code, refused.json()["detail"]) == (400, reason)
    ended = posted(http, callback, {"callback_url": url})
    assert (ended["status"], ended["tools"]) == ("succeeded", ["greet"])
    assert ended["tool_result"] == {"is_error": False, "text": "Hello you"}
    assert http.get(status).json() == ended
    assert http.post(f"/api/{callback}", json={"callback_url": url}).status_code == 409

    # What the client is given is encrypted, and as good as the token itself.
    state = ended["oauth_state"]
    assert state["tokens"]["access_token"].startswith("gAAAA")
    found = posted(http, "mcp/test", {"server": {"url": guarded, "auth": OAUTH | {"state": state}}})
    assert (found["ok"], found["tools"]) == (True, ["greet"])
    assert found["oauth_state"].keys() == state.keys()
    again = authorizing(http, guarded, state)
    assert again.keys() == {"ok", "job_id"}
    assert http.get(f"/api/mcp/oauth/status/{again['job_id']}").json()["status"] == "succeeded"
    stored = http.post("/api/settings/mcp/guarded", json={"url": guarded, "auth": OAUTH | {"state": state}})
    assert stored.status_code == 201
    http.delete("/api/settings/mcp/guarded").raise_for_status()


def test_server_that_wants_no_authorization_gives_no_tokens(http: httpx.Client, plain: str) -> None:
    begun = authorizing(http, plain)
    assert begun.keys() == {"ok", "job_id"}
    told = http.get(f"/api/mcp/oauth/status/{begun['job_id']}").json()
    assert (told["status"], "oauth_state" in told) == ("succeeded", False)


def test_refused_authorization_has_failed(http: httpx.Client, guarded: str) -> None:
    begun = authorizing(http, guarded)
    url = led_to(begun["authorization_url"]).partition("?")[0]
    ended = posted(http, f"mcp/oauth/callback/{begun['job_id']}", {"callback_url": f"{url}?error=access_denied"})
    assert (ended["ok"], ended["status"]) == (False, "failed")
    assert "access_denied" in ended["error"]


def test_server_out_of_reach_fails_at_once(http: httpx.Client) -> None:
    begun = authorizing(http, "http://127.0.0.1:1/mcp")
    assert (begun["ok"], begun["error_kind"]) == (False, "connection")
    assert http.get(f"/api/mcp/oauth/status/{begun['job_id']}").json()["status"] == "failed"


def test_only_oauth_is_authorized(http: httpx.Client, plain: str) -> None:
    assert http.post("/api/mcp/oauth/start", json={"server": {"url": plain}}).status_code == 400


def test_unknown_authorization_is_404(http: httpx.Client) -> None:
    job_id = uuid4().hex
    assert http.get(f"/api/mcp/oauth/status/{job_id}").status_code == 404
    callback = http.post(f"/api/mcp/oauth/callback/{job_id}", json={"callback_url": "http://localhost:1/callback"})
    assert callback.status_code == 404


# Conversations


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, receiver: WebhookReceiver) -> Iterator[httpx.Client]:
    """A client of a server that tells the receiver."""
    environment = {"OH_WEBHOOKS": json.dumps([{"base_url": receiver.url}]), "OH_SESSION_API_KEYS_0": "a key"}
    with Server(tmp_path_factory.mktemp("tokens"), environment) as running:
        headers = {"X-Session-API-Key": "a key"}
        with httpx.Client(base_url=running.url, timeout=30, trust_env=False, headers=headers) as client:
            yield client


def expired(http: httpx.Client, url: str) -> JsonObject:
    """A server with tokens that have to be renewed first, as a client may store it."""
    begun = authorizing(http, url)
    led = {"callback_url": led_to(begun["authorization_url"])}
    state = posted(http, f"mcp/oauth/callback/{begun['job_id']}", led)["oauth_state"]
    return {"url": url, "transport": "http", "auth": OAUTH | {"state": state | {"token_expires_at": 1}}}


def tools_with(http: httpx.Client, llm: ScriptedLlm, tmp_path: Path, server: JsonObject) -> set[str]:
    """What the agent of a new conversation is given."""
    agent = agent_of(llm) | {"mcp_config": {"guarded": server}}
    content = {"agent": agent, "workspace": {"working_dir": str(tmp_path)}, "secrets_encrypted": True}
    one = posted(http, "conversations", content | {"initial_message": user_message("SAY hello")})
    found = http.get(f"/api/conversations/{one['id']}/events/search").raise_for_status().json()["items"]
    return {tool["title"] for tool in found[0]["tools"]}


def test_renewed_tokens_are_stored_with_the_server(
    keyed: httpx.Client, receiver: WebhookReceiver, llm: ScriptedLlm, guarded: str, tmp_path: Path
) -> None:
    """And the next conversation has those, whatever it brings: the old ones can be renewed once only."""
    server = expired(keyed, guarded)
    keyed.post("/api/settings/mcp/guarded", json=server).raise_for_status()

    def state() -> JsonObject:
        shown = keyed.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"}).raise_for_status().json()
        kept: JsonObject = shown["agent_settings"]["mcp_config"]["guarded"]["auth"]["state"]
        return kept

    before = state()["tokens"]["access_token"]
    assert "greet" in tools_with(keyed, llm, tmp_path, server)
    wait_until(lambda: state()["token_expires_at"] > time.time(), "the tokens are stored")
    assert state()["tokens"]["access_token"] != before
    assert "greet" in tools_with(keyed, llm, tmp_path, server)
    assert not [post for post in receiver.posts if post.path.endswith("/mcp-oauth-state")]
    keyed.delete("/api/settings/mcp/guarded").raise_for_status()


def test_renewed_tokens_of_a_conversations_own_server_are_told(
    keyed: httpx.Client, receiver: WebhookReceiver, llm: ScriptedLlm, guarded: str, tmp_path: Path
) -> None:
    assert "greet" in tools_with(keyed, llm, tmp_path, expired(keyed, guarded))

    def told() -> list[Post]:
        posts = [post for post in receiver.posts if post.path.endswith("/mcp-oauth-state")]
        for post in posts:
            assert post.content["oauth_state"].keys() == {"tokens", "client_info", "token_expires_at"}
        return [post for post in posts if post.content["oauth_state"]["token_expires_at"] > time.time()]

    post = wait_until(told, "the receiver is told")[-1]
    assert (post.headers["x-session-api-key"], post.content["server_url"]) == ("a key", guarded)
    assert not post.content["oauth_state"]["tokens"]["access_token"].startswith("gAAAA")
    shown = keyed.get("/api/settings").raise_for_status().json()
    assert "guarded" not in (shown["agent_settings"]["mcp_config"] or {})


# ACP


def test_acp_server_that_cannot_be_started_is_an_answer(http: httpx.Client) -> None:
    settings = {"agent_kind": "acp", "acp_server": "custom", "acp_command": ["/no/such/program"]}
    found = posted(http, "acp/models", {"agent_settings": settings, "secrets": {"TOKEN": "x"}, "of_newer_clients": 1})
    assert found["available_models"] == []
    assert found["error"]["code"]
    assert found["error"]["detail"]


@pytest.mark.parametrize("content", [{}, {"agent_settings": {"agent_kind": "acp", "acp_server": "custom"}}])
def test_no_acp_server_is_422(http: httpx.Client, content: JsonObject) -> None:
    assert http.post("/api/acp/models", json=content).status_code == 422
