"""Settings, MCP entries and secrets: what is kept, shown and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server_process import Server

JsonObject = dict[str, Any]
KEY = "sk-of-the-settings"


@pytest.fixture
def root(server: Server) -> Iterator[Path]:
    """Where the server keeps them; empty again after the test."""
    path = server.directory / "home" / ".openhands"
    yield path
    for name in ("settings.json", "secrets.json"):
        (path / name).unlink(missing_ok=True)


def change(http: httpx.Client, **wanted: Any) -> JsonObject:
    changed: JsonObject = http.patch("/api/settings", json=wanted).raise_for_status().json()
    return changed


def get(http: httpx.Client, **headers: str) -> JsonObject:
    found: JsonObject = http.get("/api/settings", headers=headers).raise_for_status().json()
    return found


def test_schemas_name_what_can_be_set(http: httpx.Client) -> None:
    agent = http.get("/api/settings/agent-schema").raise_for_status().json()
    assert {"general", "llm", "condenser", "verification", "acp"} <= {section["key"] for section in agent["sections"]}
    conversation = http.get("/api/settings/conversation-schema").raise_for_status().json()
    assert "general" in {section["key"] for section in conversation["sections"]}


def test_reading_stores_nothing(http: httpx.Client, root: Path) -> None:
    before = sorted(root.rglob("*"))
    settings = get(http)
    assert settings["agent_settings"]["agent_kind"] == "openhands"
    assert settings["conversation_settings"]["max_iterations"] == 500
    assert settings["active_profile"] is None
    assert http.get("/api/settings/secrets").json() == {"secrets": []}
    assert sorted(root.rglob("*")) == before


def test_changes_are_merged(http: httpx.Client, root: Path) -> None:
    change(http, agent_settings_diff={"llm": {"model": "openai/a"}}, misc_settings_diff={"a": {"b": 1, "c": 2}})
    change(http, conversation_settings_diff={"max_iterations": 7}, misc_settings_diff={"a": {"b": None}, "d": None})
    settings = get(http)
    assert settings["agent_settings"]["llm"]["model"] == "openai/a"
    assert settings["conversation_settings"]["max_iterations"] == 7
    assert settings["misc_settings"] == {"a": {"c": 2}, "d": None}
    assert json.loads((root / "settings.json").read_text())["schema_version"] == 6


def test_secrets_of_settings_are_encrypted_and_shown_as_asked(http: httpx.Client, root: Path) -> None:
    changed = change(http, agent_settings_diff={"llm": {"api_key": KEY}})
    assert changed["llm_api_key_is_set"] is True
    assert changed["agent_settings"]["llm"]["api_key"] == "**********"
    assert KEY not in (root / "settings.json").read_text()
    assert (root / "settings.json").stat().st_mode & 0o777 == 0o600
    plain = get(http, **{"X-Expose-Secrets": "plaintext"})
    assert plain["agent_settings"]["llm"]["api_key"] == KEY
    token = get(http, **{"X-Expose-Secrets": "encrypted"})["agent_settings"]["llm"]["api_key"]
    assert token.startswith("gAAAAA")
    for sent_back in (token, "**********"):
        change(http, agent_settings_diff={"llm": {"api_key": sent_back}})
        assert get(http, **{"X-Expose-Secrets": "plaintext"})["agent_settings"]["llm"]["api_key"] == KEY
    refused = http.get("/api/settings", headers={"X-Expose-Secrets": "please"})
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("Invalid X-Expose-Secrets header value: ")
    assert get(http, **{"X-Expose-Secrets": ""}) == get(http)


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({}, 400),
        ({"misc_settings_diff": None}, 400),
        ({"unknown": 1}, 422),
        ({"agent_settings_diff": {"unknown": 1}}, 422),
        ({"agent_settings_diff": {"llm": {"unknown": 1}}}, 422),
        ({"agent_settings_diff": {"llm": {"model": 1}}}, 422),
        ({"conversation_settings_diff": {"unknown": 1}}, 422),
        ({"conversation_settings_diff": {"max_iterations": None}}, 422),
        ({"active_profile": "nobody"}, 404),
        ({"active_meta_profile": "nobody"}, 404),
        ({"active_agent_profile_id": "0b8f6d34-7d61-4c63-9d4c-0f1f3b4d5a6e"}, 404),
        ({"active_agent_profile_id": "no id"}, 422),
    ],
)
def test_what_makes_no_sense_changes_nothing(http: httpx.Client, root: Path, wanted: JsonObject, status: int) -> None:
    change(http, misc_settings_diff={"kept": True})
    before = (root / "settings.json").read_bytes()
    assert http.patch("/api/settings", json=wanted).status_code == status
    assert (root / "settings.json").read_bytes() == before


@pytest.mark.parametrize(("pointer", "kind"), [("active_profile", "Profile"), ("active_meta_profile", "Meta-profile")])
def test_pointer_to_nothing_is_named(http: httpx.Client, root: Path, pointer: str, kind: str) -> None:
    assert http.patch("/api/settings", json={pointer: "nobody"}).json() == {"detail": f"{kind} 'nobody' not found"}


def test_file_that_cannot_be_read_is_left_alone(http: httpx.Client, root: Path) -> None:
    token = "gAAAAA" + "B" * 94
    later = {"schema_version": 99, "misc_settings": {}}
    for content in ("{broken", json.dumps({"agent_settings": {"llm": {"api_key": token}}}), json.dumps(later)):
        (root / "settings.json").write_text(content)
        assert http.patch("/api/settings", json={"misc_settings_diff": {"a": 1}}).status_code == 409
        assert http.get("/api/settings").status_code == 409
        assert (root / "settings.json").read_text() == content


@pytest.mark.parametrize("content", ["[]", '{"custom_secrets": 5}', '{"custom_secrets": {"A": "x"}}'])
def test_secrets_that_cannot_be_read_are_left_alone(http: httpx.Client, root: Path, content: str) -> None:
    (root / "secrets.json").write_text(content)
    for answer in (
        http.get("/api/settings/secrets"),
        http.get("/api/settings/secrets/A"),
        http.put("/api/settings/secrets", json={"name": "A", "value": "x"}),
        http.delete("/api/settings/secrets/A"),
    ):
        assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (409, "Secrets file is corrupted")
    assert (root / "secrets.json").read_text() == content


def test_changes_at_the_same_time_lose_nothing(http: httpx.Client, root: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: change(http, misc_settings_diff={f"key-{number}": number}), range(16)))
    assert get(http)["misc_settings"] == {f"key-{number}": number for number in range(16)}


def test_mcp_servers_are_added_changed_and_removed(http: httpx.Client, root: Path) -> None:
    path, server = "/api/settings/mcp/tools", {"url": "http://mcp.example/mcp", "headers": {"X-Key": KEY}}
    added = http.post(path, json=server)
    assert added.status_code == 201
    assert added.json()["agent_settings"]["mcp_config"]["tools"]["headers"]["X-Key"] != KEY
    assert KEY not in (root / "settings.json").read_text()
    assert http.post(path, json=server).status_code == 409
    assert http.post("/api/settings/mcp/empty", json={}).status_code == 422
    assert http.patch(path, json={"unknown": 1}).status_code == 422
    changed = http.patch(path, json={"enabled": False}).raise_for_status().json()
    assert changed["agent_settings"]["mcp_config"]["tools"]["enabled"] is False
    plain = get(http, **{"X-Expose-Secrets": "plaintext"})["agent_settings"]["mcp_config"]["tools"]
    assert plain["headers"]["X-Key"] == KEY
    assert "tools" not in http.delete(path).raise_for_status().json()["agent_settings"]["mcp_config"]
    missing = http.delete(path)
    assert (missing.status_code, missing.json()) == (404, {"detail": "MCP server 'tools' was not found"})
    assert http.patch(path, json={"enabled": True}).status_code == 404


@pytest.mark.parametrize(("written", "key"), [("sp%20ace", "sp ace"), ("a%2Fb", "a/b"), ("%2525", "%25")])
def test_mcp_server_has_the_name_that_its_path_encodes(http: httpx.Client, root: Path, written: str, key: str) -> None:
    path = f"/api/settings/mcp/{written}"
    added = http.post(path, json={"url": "http://mcp.example/mcp"})
    assert list(added.json()["agent_settings"]["mcp_config"]) == [key]
    assert http.delete(path).raise_for_status().json()["agent_settings"]["mcp_config"] == {}


def test_secrets_are_stored_told_of_and_deleted(http: httpx.Client, root: Path) -> None:
    put = http.put("/api/settings/secrets", json={"name": "TOKEN", "value": KEY, "description": "for tests"})
    assert put.json() == {"name": "TOKEN", "description": "for tests"}
    assert KEY not in (root / "secrets.json").read_text()
    assert http.get("/api/settings/secrets").json() == {"secrets": [put.json()]}
    got = http.get("/api/settings/secrets/TOKEN")
    assert (got.text, got.headers["content-type"].split(";")[0]) == (KEY, "text/plain")
    assert http.get("/api/settings/secrets/%54OKEN").text == KEY
    http.put("/api/settings/secrets", json={"name": "TOKEN", "value": "new"}).raise_for_status()
    assert http.get("/api/settings/secrets").json() == {"secrets": [{"name": "TOKEN", "description": None}]}
    assert http.delete("/api/settings/secrets/TOKEN").json() == {"deleted": True}
    for request in (http.get, http.delete):
        missing = request("/api/settings/secrets/TOKEN")
        assert (missing.status_code, missing.json()) == (404, {"detail": "Secret not found"})


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ({"name": "1A", "value": "x"}, "Invalid secret name format"),
        ({"name": "A" * 65, "value": "x"}, "Invalid secret name format"),
        ({"name": "A", "value": " "}, "Secret value must not be empty or redacted"),
        ({"name": "A", "value": "**********"}, "Secret value must not be empty or redacted"),
    ],
)
def test_secrets_that_are_none_are_refused(http: httpx.Client, secret: JsonObject, reason: str) -> None:
    refused = http.put("/api/settings/secrets", json=secret)
    assert (refused.status_code, refused.json()["detail"].split(":")[0]) == (422, reason)
    assert http.put("/api/settings/secrets", json={"name": "A"}).status_code == 422


def test_name_that_no_secret_has_is_refused(http: httpx.Client) -> None:
    for request in (http.get, http.delete):
        refused = request("/api/settings/secrets/bad-name")
        assert (refused.status_code, refused.json()["detail"].split(":")[0]) == (422, "Invalid secret name format")


@pytest.mark.parametrize("profile_id", ["00000000-0000-4000-8000-0000000000f1", "nope", ""])
def test_secrets_of_no_agent_profile_are_not_found(http: httpx.Client, profile_id: str) -> None:
    missing = http.get("/api/settings/secrets", params={"agent_profile_id": profile_id})
    assert (missing.status_code, missing.json()) == (404, {"detail": "Agent profile not found"})


def test_agent_of_an_acp_server_is_set(http: httpx.Client) -> None:
    """Another kind begins with its own defaults, and keeps what is set of it; its secrets are not shown."""
    diff = {"agent_kind": "acp", "acp_server": "codex", "acp_model": "m"}
    shown = http.patch("/api/settings", json={"agent_settings_diff": diff}).raise_for_status().json()["agent_settings"]
    assert (shown["agent_kind"], shown["acp_server"], shown["acp_model"]) == ("acp", "codex", "m")
    again = http.patch("/api/settings", json={"agent_settings_diff": {"acp_model": None}}).json()["agent_settings"]
    assert (again["acp_server"], again["acp_model"]) == ("codex", None)
    refused = http.patch("/api/settings", json={"agent_settings_diff": {"condenser": {}}})
    assert refused.status_code == 422
    back = http.patch("/api/settings", json={"agent_settings_diff": {"agent_kind": "openhands"}}).json()
    assert back["agent_settings"]["agent_kind"] == "openhands"
