"""Agent profiles, and the conversations that are started with them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from service.demo.scripted_llm import API_KEY, ScriptedLlm
from tests.integration.contract.conversations import PATH, Conversations, JsonObject
from tests.server_process import Server

PROFILES = "/api/agent-profiles"
UNKNOWN = "6b1f0d5e-3c0f-4b52-9f54-0d5a2a4f7c11"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with profiles of its own."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, {"OH_PERSISTENCE_DIR": str(directory / "kept")}) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(http: httpx.Client) -> Iterator[None]:
    yield
    for profile in listed(http)["profiles"]:
        http.delete(f"{PROFILES}/{profile['name']}").raise_for_status()


@pytest.fixture
def llm_profile(http: httpx.Client, llm: ScriptedLlm) -> str:
    http.post("/api/profiles/scripted", json={"llm": llm.settings}).raise_for_status()
    return "scripted"


def listed(http: httpx.Client) -> JsonObject:
    found: JsonObject = http.get(PROFILES).raise_for_status().json()
    return found


def save(http: httpx.Client, name: str, **fields: object) -> str:
    """Save one; its id."""
    content = {"agent_kind": "openhands", "llm_profile_ref": "scripted"} | fields
    answer = http.post(f"{PROFILES}/{name}", json=content)
    assert answer.status_code == 201, answer.text
    return next(str(each["id"]) for each in listed(http)["profiles"] if each["name"] == name)


def test_asking_makes_nothing(http: httpx.Client, server: Server) -> None:
    """Not a default profile either."""
    assert listed(http) == {"profiles": [], "active_agent_profile_id": None}
    assert http.get(f"{PROFILES}/default").status_code == 404
    assert http.delete(f"{PROFILES}/default").status_code == 200
    assert not list((server.directory / "kept").glob("agent-profiles/*.json"))


def test_profile_is_saved_and_keeps_its_id(http: httpx.Client) -> None:
    """The path's name counts; the revision grows; id and revision are nobody's to choose."""
    content = {"agent_kind": "openhands", "llm_profile_ref": "l", "name": "other", "id": UNKNOWN}
    http.post(f"{PROFILES}/coder", json=content).raise_for_status()
    first = listed(http)["profiles"][0]["id"]
    assert first != UNKNOWN
    assert save(http, "coder", disabled_skills=["x"], revision=40) == first
    profile = http.get(f"{PROFILES}/coder").json()
    assert profile["name"] == profile["profile"]["name"] == "coder"
    assert (profile["profile"]["id"], profile["profile"]["revision"]) == (first, 1)
    [summary] = listed(http)["profiles"]
    assert summary == {
        "id": first,
        "name": "coder",
        "agent_kind": "openhands",
        "revision": 1,
        "llm_profile_ref": "scripted",
        "mcp_server_refs": None,
    }


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("x", {"agent_kind": "openhands"}, 422),
        ("x", {"agent_kind": "none", "llm_profile_ref": "l"}, 422),
        ("x", {"llm_profile_ref": "l", "unknown": 1}, 422),
        ("x", [], 422),
        ("-x", {"llm_profile_ref": "l"}, 422),
    ],
)
def test_what_is_no_profile_is_refused(http: httpx.Client, name: str, content: object, status: int) -> None:
    assert http.post(f"{PROFILES}/{name}", json=content).status_code == status
    assert listed(http)["profiles"] == []


def test_there_are_fifty_at_most(http: httpx.Client, server: Server) -> None:
    save(http, "first")
    folder = server.directory / "kept" / "agent-profiles"
    for number in range(49):
        (folder / f"p{number}.json").write_text((folder / "first.json").read_text())
    content = {"agent_kind": "openhands", "llm_profile_ref": "scripted"}
    assert http.post(f"{PROFILES}/one-more", json=content).status_code == 409
    assert http.post(f"{PROFILES}/first", json=content).status_code == 201
    for number in range(49):
        (folder / f"p{number}.json").unlink()


def test_profile_is_renamed(http: httpx.Client) -> None:
    """Under its id; an unknown one is 404, and a name that is taken 409."""
    first = save(http, "old")
    save(http, "taken")
    assert http.post(f"{PROFILES}/old/rename", json={"new_name": "new"}).json()["name"] == "new"
    assert {each["name"]: each["id"] for each in listed(http)["profiles"]}["new"] == first
    assert http.post(f"{PROFILES}/new/rename", json={"new_name": "new"}).status_code == 200
    assert http.post(f"{PROFILES}/old/rename", json={"new_name": "x"}).status_code == 404
    assert http.post(f"{PROFILES}/new/rename", json={"new_name": "taken"}).status_code == 409


def test_active_one_is_a_pointer(http: httpx.Client) -> None:
    """By id; when it is deleted the one called default takes its place, if there is one."""
    first, default = save(http, "first"), save(http, "default")
    answer = http.post(f"{PROFILES}/{first}/activate").json()
    assert (answer["id"], answer["agent_settings_applied"]) == (first, False)
    assert listed(http)["active_agent_profile_id"] == first
    http.delete(f"{PROFILES}/first").raise_for_status()
    assert listed(http)["active_agent_profile_id"] == default
    http.delete(f"{PROFILES}/default").raise_for_status()
    assert listed(http)["active_agent_profile_id"] is None
    assert http.post(f"{PROFILES}/{UNKNOWN}/activate").status_code == 404
    assert http.post(f"{PROFILES}/nope/activate").status_code == 422


def test_preview_tells_what_is_missing(http: httpx.Client, llm_profile: str) -> None:
    """Of a saved one and of a draft; nothing secret is told."""
    save(http, "good")
    good = http.post(f"{PROFILES}/good/materialize").json()
    assert (good["valid"], good["llm_profile_resolved"], good["llm_api_key_set"]) == (True, True, True)
    draft = {"profile": {"agent_kind": "openhands", "llm_profile_ref": "nosuch", "mcp_server_refs": ["gone"]}}
    bad = http.post(f"{PROFILES}/draft/materialize", json=draft).json()
    assert (bad["valid"], bad["llm_profile_resolved"]) == (False, False)
    assert bad["dangling_mcp_server_refs"] == ["gone"]
    assert API_KEY not in json.dumps([good, bad])
    assert http.post(f"{PROFILES}/nosuch/materialize").status_code == 404
    assert http.post(f"{PROFILES}/draft/materialize", json={"profile": {}}).status_code == 422


# Conversations


def start(http: httpx.Client, conversation: Conversations, profile_id: str, **fields: object) -> httpx.Response:
    wanted = {"agent_profile_id": profile_id, "workspace": {"working_dir": conversation.working_dir}, **fields}
    return http.post(PATH, json={"autotitle": False} | wanted)


def test_conversation_is_started_with_a_profile(
    http: httpx.Client, conversation: Conversations, llm_profile: str, llm: ScriptedLlm
) -> None:
    """With its LLM, its persona and only the secrets it allows; the conversation tells of it, and of no key."""
    words = {"persona": "You are a lighthouse keeper.", "system_message_suffix": "Mind the gap."}
    profile_id = save(http, "coder", secret_refs=["ALLOWED"], **words)
    secrets = {name: {"kind": "StaticSecret", "value": f"value of {name}"} for name in ("ALLOWED", "OTHER")}
    created = start(http, conversation, profile_id, secrets=secrets)
    assert created.status_code == 201, created.text
    assert API_KEY not in created.text
    one = conversation.adopt(created.json()["id"])
    launched = one.info["launched_agent_profile"]
    assert (launched["agent_profile_id"], launched["revision"]) == (profile_id, 0)
    assert list(one.info["secret_registry"]["secret_sources"]) == ["ALLOWED"]
    one.run_to("finished", "SAY from a profile")
    assert one.outline[-1] == "agent: from a profile"
    asked = llm.agent_requests[-1]
    assert asked.api_key == API_KEY
    assert all(each in asked.text for each in words.values())


def test_profile_that_cannot_be_launched_starts_nothing(http: httpx.Client, conversation: Conversations) -> None:
    unknown = start(http, conversation, UNKNOWN)
    assert (unknown.status_code, unknown.json()["detail"]) == (404, f"Agent profile with id '{UNKNOWN}' not found")
    refs = {"llm_profile_ref": "nosuch", "mcp_server_refs": ["none"]}
    dangling = start(http, conversation, save(http, "dangling", **refs))
    assert dangling.status_code == 422
    told = dangling.json()["detail"]
    assert told["code"] == "unresolved_profile_references"
    assert (told["dangling_llm_profile_ref"], told["dangling_mcp_server_refs"]) == ("nosuch", ["none"])
    assert "nosuch" in told["message"]
    assert start(http, conversation, "nope").status_code == 422
    both = start(http, conversation, UNKNOWN, agent_settings={"agent_kind": "openhands"})
    assert both.status_code == 422


def test_secrets_of_a_profile_are_listed(http: httpx.Client) -> None:
    for name in ("ALLOWED", "OTHER"):
        http.put("/api/settings/secrets", json={"name": name, "value": "v"}).raise_for_status()
    profile_id = save(http, "coder", secret_refs=["ALLOWED"])
    found = http.get("/api/settings/secrets", params={"agent_profile_id": profile_id}).json()["secrets"]
    assert [each["name"] for each in found] == ["ALLOWED"]
    assert http.get("/api/settings/secrets", params={"agent_profile_id": UNKNOWN}).status_code == 404
