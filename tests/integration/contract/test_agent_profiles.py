"""Agent profiles, and the conversations that are started with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

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
def _nothing_is_left(server: Server) -> Iterator[None]:
    yield
    shutil.rmtree(server.directory / "kept", ignore_errors=True)


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


def active(http: httpx.Client) -> JsonObject:
    """The active profile as it is listed; it is asked for once, for that makes one."""
    found = listed(http)
    return next(each for each in found["profiles"] if each["id"] == found["active_agent_profile_id"])


def configure(http: httpx.Client, diff: JsonObject) -> None:
    http.patch("/api/settings", json={"agent_settings_diff": diff}).raise_for_status()


def test_first_list_makes_a_profile_of_the_settings(http: httpx.Client) -> None:
    """Once, and active; a single profile is asked for in vain before, and an LLM without a key has no profile."""
    assert http.get(f"{PROFILES}/default").status_code == 404
    assert http.delete(f"{PROFILES}/default").status_code == 200
    made = active(http)
    assert (made["name"], made["agent_kind"], made["revision"]) == ("default", "openhands", 0)
    assert made["llm_profile_ref"] == "default"
    assert listed(http)["profiles"] == [made]
    assert http.get("/api/profiles").json()["profiles"] == []
    assert http.get("/api/settings").json()["active_agent_profile_id"] == made["id"]


def test_profile_of_the_settings_can_be_launched(http: httpx.Client) -> None:
    """It names the active LLM profile; without one the settings' LLM becomes one, with its key."""
    configure(http, {"llm": {"model": "openai/scripted", "api_key": API_KEY}})
    assert active(http)["llm_profile_ref"] == "default"
    [llm] = http.get("/api/profiles").json()["profiles"]
    assert (llm["name"], llm["api_key_set"]) == ("default", True)
    assert http.post(f"{PROFILES}/default/materialize").json()["valid"]
    http.post("/api/profiles/better", json={"llm": {"model": "openai/b", "api_key": API_KEY}}).raise_for_status()
    http.post("/api/profiles/better/activate").raise_for_status()
    http.delete(f"{PROFILES}/default").raise_for_status()
    assert active(http)["llm_profile_ref"] == "better"


def test_settings_of_an_acp_agent_end_with_its_profile(http: httpx.Client) -> None:
    """The profile made of them is of that kind; MCP servers stay."""
    configure(http, {"agent_kind": "acp", "acp_server": "codex"})
    configure(http, {"mcp_config": {"kept": {"command": "true"}}})
    assert active(http)["agent_kind"] == "acp"
    http.delete(f"{PROFILES}/default").raise_for_status()
    settings = http.get("/api/settings").json()["agent_settings"]
    assert (settings["agent_kind"], list(settings["mcp_config"])) == ("openhands", ["kept"])
    assert active(http)["agent_kind"] == "openhands"


def test_unreadable_default_is_not_replaced(http: httpx.Client, server: Server) -> None:
    active(http)
    path = server.directory / "kept" / "agent-profiles" / "default.json"
    path.write_text("{")
    assert listed(http) == {"profiles": [], "active_agent_profile_id": None}
    assert path.read_text() == "{"


def test_profile_is_saved_and_keeps_its_id(http: httpx.Client) -> None:
    """The path's name counts; the revision grows; id and revision are nobody's to choose."""
    content = {"agent_kind": "openhands", "llm_profile_ref": "l", "name": "other", "id": UNKNOWN}
    http.post(f"{PROFILES}/coder", json=content).raise_for_status()
    first = http.get(f"{PROFILES}/coder").json()["profile"]["id"]
    assert first != UNKNOWN
    assert save(http, "coder", disabled_skills=["x"], revision=40) == first
    profile = http.get(f"{PROFILES}/coder").json()
    assert profile["name"] == profile["profile"]["name"] == "coder"
    assert (profile["profile"]["id"], profile["profile"]["revision"]) == (first, 1)
    assert listed(http)["profiles"][0] == {
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
    assert http.get(f"{PROFILES}/{name}").status_code in (404, 422)


def test_what_is_wrong_with_a_profile_begins_with_its_kind(http: httpx.Client) -> None:
    """Saved or previewed; nothing of what was sent is repeated."""
    wrong = {"agent_kind": "acp", "acp_server": "none"}
    for answer in (
        http.post(f"{PROFILES}/x", json=wrong),
        http.post(f"{PROFILES}/x/materialize", json={"profile": wrong}),
    ):
        assert answer.status_code == 422
        [problem] = answer.json()["detail"]
        assert (problem["loc"], problem.keys()) == (["acp", "acp_server"], {"loc", "type", "msg"})
    contents: tuple[Any, ...] = ([], "x")
    for content in contents:
        [problem] = http.post(f"{PROFILES}/x", json=content).json()["detail"]
        assert (problem["type"], problem["loc"]) == ("dict_type", ["body"])


def test_there_are_fifty_at_most(http: httpx.Client, server: Server) -> None:
    save(http, "first")
    folder = server.directory / "kept" / "agent-profiles"
    for number in range(50 - len(listed(http)["profiles"])):
        (folder / f"p{number}.json").write_text((folder / "first.json").read_text())
    content = {"agent_kind": "openhands", "llm_profile_ref": "scripted"}
    assert http.post(f"{PROFILES}/one-more", json=content).status_code == 409
    assert http.post(f"{PROFILES}/first", json=content).status_code == 201


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
    """By id; when it is deleted the one called default takes its place, which is made if there is none."""
    first, default = save(http, "first"), save(http, "default")
    answer = http.post(f"{PROFILES}/{first}/activate").json()
    assert (answer["id"], answer["agent_settings_applied"]) == (first, False)
    assert listed(http)["active_agent_profile_id"] == first
    http.delete(f"{PROFILES}/first").raise_for_status()
    assert listed(http)["active_agent_profile_id"] == default
    http.delete(f"{PROFILES}/default").raise_for_status()
    assert active(http)["name"] == "default"
    assert active(http)["id"] != default
    assert http.post(f"{PROFILES}/{UNKNOWN}/activate").status_code == 404
    assert http.post(f"{PROFILES}/nope/activate").status_code == 404


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
    assert http.post(f"{PROFILES}/good/materialize", json={"unknown": 1}).status_code == 422


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


def test_profile_limits_later_secrets_too(http: httpx.Client, conversation: Conversations, llm_profile: str) -> None:
    """Names that it does not allow are left out without an error, in a fork as well; without a list all are allowed."""
    secrets = {"secrets": {"ALLOWED": "a", "OTHER": "b"}}
    for refs, kept in ((["ALLOWED"], ["ALLOWED"]), ([], []), (None, ["ALLOWED", "OTHER"])):
        one = conversation.adopt(start(http, conversation, save(http, "coder", secret_refs=refs)).json()["id"])
        fork = conversation.adopt(http.post(f"{PATH}/{one.id}/fork").json()["id"])
        for each in (one, fork):
            http.post(f"{PATH}/{each.id}/secrets", json=secrets).raise_for_status()
            assert sorted(each.info["secret_registry"]["secret_sources"]) == kept


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
