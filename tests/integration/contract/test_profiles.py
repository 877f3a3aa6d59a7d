"""LLM profiles, meta-profiles and provider connections, and which models there are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from tests.server_process import Server

JsonObject = dict[str, Any]
KEY = "sk-of-the-profile"
FOLDERS = ("profiles", "meta-profiles", "agent-profiles", "provider-connections")


@pytest.fixture(autouse=True)
def root(server: Server) -> Iterator[Path]:
    """Where the server keeps them; empty before and after the test."""
    path = server.directory / "home" / ".openhands"
    for folder in FOLDERS:
        shutil.rmtree(path / folder, ignore_errors=True)
    yield path
    for folder in FOLDERS:
        shutil.rmtree(path / folder, ignore_errors=True)
    (path / "settings.json").unlink(missing_ok=True)


def save(http: httpx.Client, name: str, **llm: Any) -> httpx.Response:
    return http.post(f"/api/profiles/{name}", json={"llm": {"model": "openai/a", "api_key": KEY, **llm}})


def active(http: httpx.Client) -> str | None:
    found: str | None = http.get("/api/profiles").json()["active_profile"]
    return found


def test_reading_makes_no_folder(http: httpx.Client, root: Path) -> None:
    assert http.get("/api/profiles").json() == {"profiles": [], "active_profile": None}
    assert http.get("/api/meta-profiles").json() == {"meta_profiles": [], "active_meta_profile": None}
    assert http.get("/api/llm/provider-connections").json() == []
    for path in ("/api/profiles/nobody", "/api/meta-profiles/nobody"):
        assert http.get(path).status_code == 404
    assert not any((root / folder).exists() for folder in FOLDERS)


def test_name_in_a_path_is_decoded_and_leads_nowhere_else(http: httpx.Client, root: Path) -> None:
    assert save(http, "%61bc").status_code == 201
    assert [path.name for path in (root / "profiles").glob("*.json")] == ["abc.json"]
    (root / "kept.json").write_text("{}")
    for kind in ("profiles", "meta-profiles", "agent-profiles"):
        for method in ("GET", "POST", "DELETE"):
            for name in ("..%2Fkept", "%2E%2E%2Fkept", "a%00b", "a%2Fb"):
                assert http.request(method, f"/api/{kind}/{name}", json={}).status_code == 422, (method, kind, name)
    assert (root / "kept.json").read_text() == "{}"


def test_profile_is_saved_and_shown_as_asked(http: httpx.Client, root: Path) -> None:
    assert save(http, "one").status_code == 201
    assert save(http, "one.json", model="openai/b").status_code == 201
    assert KEY not in (root / "profiles" / "one.json").read_text()
    [summary] = http.get("/api/profiles").json()["profiles"]
    assert (summary["name"], summary["model"], summary["api_key_set"]) == ("one", "openai/b", True)
    shown = http.get("/api/profiles/one").json()
    assert (shown["config"]["api_key"], shown["api_key_set"]) == (None, True)
    shown = http.get("/api/profiles/one", headers={"X-Expose-Secrets": "plaintext"}).json()
    assert shown["config"]["api_key"] == KEY
    shown = http.get("/api/profiles/one", headers={"X-Expose-Secrets": "encrypted"}).json()
    assert shown["config"]["api_key"].startswith("gAAAAA")


def test_keys_of_newer_clients_are_passed_over(http: httpx.Client) -> None:
    """As the published server does."""
    assert save(http, "one", from_the_future=1).status_code == 201
    assert "from_the_future" not in http.get("/api/profiles/one").json()["config"]


def test_profile_that_is_not_there_is_404(http: httpx.Client) -> None:
    """In the same words wherever it is named, and without the server's own paths, whether or not there is another."""
    for _ in range(2):
        answers = [http.get("/api/profiles/none"), http.post("/api/profiles/none/activate")]
        assert [(one.status_code, one.json()["detail"]) for one in answers] == [(404, "Profile 'none' not found")] * 2
        save(http, "another").raise_for_status()


def test_name_that_no_profile_can_have_is_told_as_such(http: httpx.Client) -> None:
    """By where it stands and what is wrong with it, on every route."""
    for kind in ("profiles", "meta-profiles", "agent-profiles"):
        for method in ("GET", "DELETE", "POST"):
            for name, wrong in (("-x", "string_pattern_mismatch"), ("a" * 65, "string_too_long")):
                answer = http.request(method, f"/api/{kind}/{name}", json={})
                assert answer.status_code == 422, (method, kind, name)
                [problem] = answer.json()["detail"]
                assert (problem["type"], problem["loc"]) == (wrong, ["path", "name"])
    [problem] = http.post("/api/profiles/one/rename", json={"new_name": ".x"}).json()["detail"]
    assert (problem["type"], problem["loc"]) == ("string_pattern_mismatch", ["body", "new_name"])


def test_changes_are_told_in_the_words_that_clients_know(http: httpx.Client) -> None:
    one, agent, meta = "/api/profiles/one", "/api/agent-profiles/a", "/api/meta-profiles/m"
    routes = {"classifier_model": "one", "classes": [{"description": "d", "model": "one"}]}
    http.post(agent, json={"llm_profile_ref": "one"}).raise_for_status()
    agent_id = http.get(agent).json()["profile"]["id"]
    told = [
        save(http, "one"),
        save(http, "other"),
        http.post(f"{one}/activate"),
        http.post(f"{one}/rename", json={"new_name": "one"}),
        http.post(f"{one}/rename", json={"new_name": "two"}),
        http.delete("/api/profiles/other"),
        http.post(meta, json=routes),
        http.post(f"{meta}/activate"),
        http.delete(meta),
        http.post(agent, json={"llm_profile_ref": "two"}),
        http.post(f"/api/agent-profiles/{agent_id}/activate"),
        http.post(f"{agent}/rename", json={"new_name": "b"}),
        http.delete("/api/agent-profiles/b"),
    ]
    assert [answer.json()["message"] for answer in told] == [
        "Profile 'one' saved",
        "Profile 'other' saved",
        "Profile 'one' activated and applied to current settings",
        "Profile 'one' unchanged (same name)",
        "Profile 'one' renamed to 'two'",
        "Profile 'other' deleted",
        "Meta-profile 'm' saved",
        "Meta-profile 'm' activated",
        "Meta-profile 'm' deleted",
        "Agent profile 'a' saved",
        f"Agent profile '{agent_id}' activated",
        "Agent profile 'a' renamed to 'b'",
        "Agent profile 'b' deleted",
    ]
    save(http, "taken")
    wrong = [
        http.post("/api/profiles/none/rename", json={"new_name": "x"}),
        http.post("/api/profiles/two/rename", json={"new_name": "taken"}),
        http.get("/api/meta-profiles/none"),
        http.post("/api/meta-profiles/none/activate"),
        http.patch("/api/settings", json={"active_profile": "none"}),
        http.patch("/api/settings", json={"active_meta_profile": "none"}),
        http.delete("/api/llm/provider-connections/none"),
    ]
    assert [answer.json()["detail"] for answer in wrong] == [
        "Profile 'none' not found",
        "Profile 'taken' already exists",
        "Meta-profile 'none' not found",
        "Meta-profile 'none' not found",
        "Profile 'none' not found",
        "Meta-profile 'none' not found",
        "Provider connection 'none' not found",
    ]


def test_profiles_that_are_none_are_refused(http: httpx.Client) -> None:
    assert save(http, ".hidden").status_code == 422
    assert http.post("/api/profiles/one", json={"llm": {"model": 3}}).status_code == 422
    assert http.get("/api/profiles").json()["profiles"] == []


def test_active_profile_follows_its_name(http: httpx.Client) -> None:
    save(http, "one")
    save(http, "other")
    assert http.post("/api/profiles/one/activate").json()["llm_applied"] is True
    settings = http.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"}).json()
    assert settings["agent_settings"]["llm"]["api_key"] == KEY
    assert http.post("/api/profiles/one/rename", json={"new_name": "other"}).status_code == 409
    assert http.post("/api/profiles/one/rename", json={"new_name": "two"}).json()["name"] == "two"
    assert active(http) == "two"
    assert http.delete("/api/profiles/two").status_code == http.delete("/api/profiles/two").status_code == 200
    assert active(http) is None
    assert http.post("/api/profiles/two/activate").status_code == 404
    assert http.post("/api/profiles/two/rename", json={"new_name": "three"}).status_code == 404


def test_meta_profiles(http: httpx.Client) -> None:
    path, config = (
        "/api/meta-profiles/m",
        {"classifier_model": "one", "classes": [{"description": "d", "model": "one"}]},
    )
    assert http.post(path, json=config).status_code == 201
    assert http.post(path, json={"classifier_model": "one"}).status_code == 422
    assert http.post(path, json={**config, "unknown": 1}).status_code == 201
    assert http.get(path).json()["config"]["classes"] == config["classes"]
    assert http.post(f"{path}/activate").json()["applied"] is True
    listed = http.get("/api/meta-profiles").json()
    assert listed == {
        "meta_profiles": [{"name": "m", "classifier_model": "one", "num_classes": 1}],
        "active_meta_profile": "m",
    }
    assert http.delete(path).status_code == 200
    assert http.get("/api/meta-profiles").json()["active_meta_profile"] is None
    assert http.post(f"{path}/activate").status_code == 404


def routing(http: httpx.Client) -> tuple[str | None, str | None, bool, JsonObject | None]:
    """What the settings say of choosing among LLMs: the pointer, and what new agents are given."""
    settings = http.get("/api/settings").json()
    agent = settings["agent_settings"]
    chooses = agent.get("enable_classify_and_switch_llm_tool", False)
    return settings["active_meta_profile"], agent.get("active_meta_profile"), chooses, agent.get("meta_profile")


@pytest.mark.parametrize("by_settings", [False, True])
def test_active_meta_profile_is_what_new_agents_choose_by(http: httpx.Client, by_settings: bool) -> None:
    """Until it is deleted, or none is to be active."""
    path = "/api/meta-profiles/m"
    config = {"classifier_model": "one", "classes": [{"description": "d", "model": "one"}]}
    http.post(path, json=config).raise_for_status()
    if by_settings:
        http.patch("/api/settings", json={"active_meta_profile": "m"}).raise_for_status()
    else:
        http.post(f"{path}/activate").raise_for_status()
    assert routing(http) == ("m", "m", True, http.get(path).json()["config"])
    if by_settings:
        http.patch("/api/settings", json={"active_meta_profile": None}).raise_for_status()
    else:
        http.delete(path).raise_for_status()
    assert routing(http) == (None, None, False, None)


def test_acp_server_chooses_among_no_llms(http: httpx.Client) -> None:
    path = "/api/meta-profiles/m"
    config = {"classifier_model": "one", "classes": [{"description": "d", "model": "one"}]}
    http.post(path, json=config).raise_for_status()
    http.post(f"{path}/activate").raise_for_status()
    acp = {"agent_kind": "acp", "acp_server": "claude-code"}
    http.patch("/api/settings", json={"agent_settings_diff": acp}).raise_for_status()
    assert routing(http) == (None, None, False, None)
    assert http.post(f"{path}/activate").json()["applied"] is False
    assert http.get("/api/meta-profiles").json()["active_meta_profile"] is None


def test_provider_connections(http: httpx.Client, root: Path) -> None:
    path = "/api/llm/provider-connections"
    added = http.post(path, json={"display_name": "mine", "api_key": KEY, "base_url": "http://llm.example"})
    assert (added.status_code, added.json()["api_key_set"]) == (201, True)
    connection = added.json()
    assert http.get(path).json() == [connection]
    assert KEY not in (root / "provider-connections" / "provider_connections.json").read_text()
    one = f"{path}/{connection['id']}"
    changed = http.patch(one, json={"display_name": "ours", "base_url": None}).json()
    assert (changed["display_name"], changed["base_url"], changed["api_key_set"]) == ("ours", None, True)
    refusals: list[JsonObject] = [{}, {"api_key": None}, {"api_key": "**********"}, {"unknown": 1}]
    assert [http.patch(one, json=wrong).status_code for wrong in refusals] == [422] * 4
    for answer in (
        http.patch(one, json={"provider": "x", "unknown": 1}),
        http.post(path, json={"display_name": "mine", "api_key": KEY, "unknown": 1}),
    ):
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "unknown"])
    assert http.get(path).json() == [changed]
    save(http, "linked", provider_connection_id=connection["id"], api_key=None)
    shown = http.get("/api/profiles/linked", headers={"X-Expose-Secrets": "plaintext"}).json()
    assert shown["config"]["api_key"] == KEY
    shown = http.get("/api/profiles/linked").json()
    assert (shown["config"]["api_key"], shown["api_key_set"]) == (None, True)
    assert http.delete(one).status_code == 409
    http.delete("/api/profiles/linked").raise_for_status()
    assert http.delete(one).json()["api_key_set"] is False
    assert http.delete(one).status_code == http.patch(one, json={"provider": "x"}).status_code == 404


def test_models(http: httpx.Client) -> None:
    """Named as an LLM's settings want them."""

    def models(**query: str) -> list[str]:
        found: list[str] = http.get("/api/llm/models", params=query).raise_for_status().json()["models"]
        return found

    assert {"openai", "anthropic", "hosted_vllm", "litellm_proxy"} <= set(
        http.get("/api/llm/providers").json()["providers"]
    )
    verified = set(http.get("/api/llm/models/verified").json()["models"]["openai"])
    assert verified & set(models(provider="openai"))
    azure = models(provider="azure")
    assert azure
    assert all(model.startswith("azure/") for model in azure)
    assert models(provider="nobody") == []
    assert set(azure) < set(models())
    assert set(models(provider="")) < set(models())
    assert not {model for model in models(provider="") if model.startswith("azure/")}


# What must not go wrong


def test_old_word_for_encrypted_is_understood(http: httpx.Client) -> None:
    save(http, "one").raise_for_status()
    shown = http.get("/api/profiles/one", headers={"X-Expose-Secrets": "true"}).json()
    assert shown["config"]["api_key"].startswith("gAAAAA")
    assert http.get("/api/profiles/one", headers={"X-Expose-Secrets": "please"}).status_code == 400


def test_there_are_fifty_profiles_and_sixty_four_connections_at_most(http: httpx.Client, root: Path) -> None:
    """One that is there may still be saved again."""
    save(http, "first").raise_for_status()
    for number in range(49):
        shutil.copy(root / "profiles" / "first.json", root / "profiles" / f"p{number}.json")
    assert (save(http, "another").status_code, save(http, "first").status_code) == (409, 201)
    connection = {"display_name": "c", "api_key": "k"}
    answers = [http.post("/api/llm/provider-connections", json=connection).status_code for _ in range(65)]
    assert answers == [201] * 64 + [409]


def test_profile_under_an_unknown_key_is_not_activated_without_one(http: httpx.Client, root: Path) -> None:
    save(http, "foreign").raise_for_status()
    path = root / "profiles" / "foreign.json"
    content = json.loads(path.read_text())
    content["api_key"] = Fernet(Fernet.generate_key()).encrypt(b"theirs").decode()
    path.write_text(json.dumps(content))
    for answer in (
        http.post("/api/profiles/foreign/activate"),
        http.patch("/api/settings", json={"active_profile": "foreign"}),
    ):
        assert answer.status_code == 409
        assert "OH_SECRET_KEY" in answer.json()["detail"]
    assert active(http) is None


def test_settings_that_cannot_be_read_keep_nobody_from_the_profiles(http: httpx.Client, root: Path) -> None:
    """Nothing is shown as active then, and what may change what is active is refused before it has any effect."""
    save(http, "one").raise_for_status()
    (root / "settings.json").write_text("{not json")
    for kind in ("profiles", "meta-profiles"):
        listed = http.get(f"/api/{kind}").raise_for_status().json()
        assert [value for value in listed.values() if not isinstance(value, list)] == [None]
    changes = [
        http.post("/api/profiles/one/activate"),
        http.post("/api/profiles/one/rename", json={"new_name": "two"}),
        http.delete("/api/profiles/one"),
    ]
    assert [answer.status_code for answer in changes] == [409] * 3
    assert [each["name"] for each in http.get("/api/profiles").json()["profiles"]] == ["one"]
    assert (root / "settings.json").read_text() == "{not json"


def test_name_of_a_profile_that_is_gone_is_not_active(http: httpx.Client, root: Path) -> None:
    """As a process leaves it that dies between deleting the profile and forgetting its name."""
    save(http, "one").raise_for_status()
    http.post("/api/profiles/one/activate").raise_for_status()
    (root / "profiles" / "one.json").unlink()
    assert active(http) is None


def test_models_are_named_as_they_are_asked_for(http: httpx.Client) -> None:
    """Those of unknown providers have no made-up one in front."""
    models = http.get("/api/llm/models").json()["models"]
    assert not [model for model in models if model.startswith("other/")]
    assert len(models) > 100
