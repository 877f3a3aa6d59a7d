"""What changes an agent while its conversation lives: another LLM, a stored profile, an ACP model, a plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.demo.scripted_llm import API_KEY, ScriptedLlm
from tests.integration.contract.conversations import (
    FILE_EDITOR,
    Conversation,
    Conversations,
    JsonObject,
    agent_of,
    state_updates,
)
from tests.server_process import Server
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with profiles of its own."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, {"OH_PERSISTENCE_DIR": str(directory / "kept")}) as running:
        yield running


@pytest.fixture
def other() -> Iterator[ScriptedLlm]:
    """The LLM to go on with."""
    with ScriptedLlm() as scripted:
        yield scripted


@pytest.fixture
def profile(http: httpx.Client, other: ScriptedLlm) -> Iterator[str]:
    """The name of a stored LLM profile, which asks the other LLM."""
    http.post("/api/profiles/other", json={"llm": other.settings}).raise_for_status()
    yield "other"
    http.delete("/api/profiles/other")


def llm_of(other: ScriptedLlm) -> JsonObject:
    return other.settings | {"usage_id": "other"}


def test_llm_is_switched(conversation: Conversations, llm: ScriptedLlm, other: ScriptedLlm) -> None:
    """The next step asks the other one, whose costs are counted apart; readers get the agent, without its key."""
    one = conversation()
    one.run_to("finished", "SAY one")
    before = len(llm.requests)
    assert one.post("/switch_llm", {"llm": llm_of(other)}).json() == {"success": True}
    one.run_to("finished", "SAY two")
    assert (len(llm.requests), len(other.requests)) == (before, 1)
    assert other.requests[0].api_key == API_KEY
    info = one.info
    assert info["agent"]["llm"]["base_url"] == other.settings["base_url"]
    assert info["agent"]["llm"]["api_key"] is None
    assert {"agent", "other"} <= info["stats"]["usage_to_metrics"].keys()
    [told] = state_updates(one.events, "agent")
    assert told["llm"]["usage_id"] == "other"
    assert API_KEY not in json.dumps(told)
    assert "other" in state_updates(one.events, "stats")[-1]["usage_to_metrics"]


def test_llm_is_switched_while_the_old_one_is_asked(
    conversation: Conversations, llm: ScriptedLlm, other: ScriptedLlm
) -> None:
    """At once; the run goes on with it."""
    one = conversation()
    one.send("HOLD switch", 'CALL think {"thought": "hm"}', "SAY done", run=True)
    llm.wait_held("switch")
    one.post("/switch_llm", {"llm": llm_of(other)}).raise_for_status()
    assert one.info["agent"]["llm"]["usage_id"] == "other"
    llm.release("switch")
    one.wait_status("finished")
    assert len(other.requests) == 1


def test_switch_waits_for_a_tool_on_disk_and_without_its_key(
    conversation: Conversations, server: Server, llm: ScriptedLlm, other: ScriptedLlm, tmp_path: Path
) -> None:
    """It is answered, encrypted where it waits, and in effect after the tool."""
    gate = tmp_path / "go"
    one = conversation.with_terminal()
    one.send(
        f"CALL terminal {json.dumps({'command': f'while [ ! -e {gate} ]; do sleep 0.05; done'})}", "SAY x", run=True
    )
    one.wait_event("the tool runs", lambda event: event["kind"] == "ActionEvent")
    one.post("/switch_llm", {"llm": llm_of(other)}).raise_for_status()
    waiting = list((server.conversations_path / one.id.replace("-", "") / "inbox").glob("*.switch_llm.*"))
    contents = [path.read_text() for path in waiting]
    assert len(contents) == 1
    assert API_KEY not in contents[0]
    gate.touch()
    one.wait_status("finished")
    assert len(other.requests) == 1


def test_profile_is_switched_to(conversation: Conversations, profile: str, other: ScriptedLlm) -> None:
    one = conversation()
    assert one.post("/switch_profile", {"profile_name": profile}).json() == {"success": True}
    one.run_to("finished", "SAY one")
    assert other.requests[0].api_key == API_KEY
    assert one.info["agent"]["llm"]["usage_id"] == "profile:other"


@pytest.mark.parametrize(
    ("route", "content", "status", "reason"),
    [
        ("switch_llm", {}, 422, "llm"),
        ("switch_llm", {"llm": {"model": 3}}, 422, "not well formed"),
        ("switch_llm", {"llm": {"model": "m", "provider_connection_id": "nobody"}}, 422, "nobody"),
        ("switch_profile", {"profile_name": "nosuch"}, 404, "Profile 'nosuch' not found"),
        ("switch_profile", {"profile_name": "../x"}, 400, "Invalid profile name"),
        ("switch_acp_model", {"model": "m"}, 400, "switch_acp_model is only supported for ACP conversations."),
        ("switch_acp_model", {}, 422, "model"),
        ("load_plugin", {}, 422, "plugin_ref"),
        ("load_plugin", {"plugin_ref": "p"}, 400, ""),
    ],
)
def test_refusals(conversation: Conversations, route: str, content: JsonObject, status: int, reason: str) -> None:
    one = conversation()
    answer = one.post(f"/{route}", content)
    assert answer.status_code == status, answer.text
    assert reason in str(answer.json()["detail"])
    assert one.events == []


@pytest.mark.parametrize("route", ["switch_llm", "switch_profile", "switch_acp_model", "load_plugin"])
def test_unknown_conversation_is_404(conversation: Conversations, llm: ScriptedLlm, route: str) -> None:
    content = {"llm": llm.settings, "profile_name": "p", "model": "m", "plugin_ref": "p"}
    assert conversation.unknown().post(f"/{route}", content).status_code == 404


@pytest.fixture
def marketplace(tmp_path: Path) -> Path:
    """A folder with one plugin, which has a skill."""
    root = tmp_path / "market"
    plugin = root / "plugins" / "helper"
    (root / ".plugin").mkdir(parents=True)
    (plugin / ".plugin").mkdir(parents=True)
    (plugin / "skills" / "waving").mkdir(parents=True)
    (root / ".plugin" / "marketplace.json").write_text(
        json.dumps(
            {"name": "market", "owner": {"name": "o"}, "plugins": [{"name": "helper", "source": "./plugins/helper"}]}
        )
    )
    (plugin / ".plugin" / "plugin.json").write_text(json.dumps({"name": "helper", "version": "1.0.0"}))
    (plugin / "skills" / "waving" / "SKILL.md").write_text("---\nname: waving\ndescription: How to wave\n---\nWave.\n")
    return root


def with_marketplace(conversation: Conversations, root: Path) -> Conversation:
    registered = [{"name": "market", "source": str(root)}]
    agent = agent_of(conversation.llm, FILE_EDITOR) | {"agent_context": {"registered_marketplaces": registered}}
    return conversation(agent=agent)


def test_plugin_is_loaded(conversation: Conversations, marketplace: Path) -> None:
    """Its skills are the agent's from then on; one that no marketplace has is 404."""
    one = with_marketplace(conversation, marketplace)
    assert one.post("/load_plugin", {"plugin_ref": "helper@market"}).json() == {"success": True}
    shown = one.get(params={"include_skills": "true"}).json()
    assert "waving" in [skill["name"].rpartition(":")[2] for skill in shown["agent"]["agent_context"]["skills"]]
    for unknown in ("nosuch@market", "helper@nowhere"):
        assert one.post("/load_plugin", {"plugin_ref": unknown}).status_code == 404


# Where it runs


def test_runtime_is_available(conversation: Conversations) -> None:
    expected = {"runtime_status": "available", "can_resume": True, "runtime_error": None}
    one = conversation()
    assert one.get("/runtime").json() == one.post("/runtime/reprovision").json() == expected
    assert conversation.unknown().get("/runtime").status_code == 404
    assert conversation.handle("nope").get("/runtime").status_code == 422


# Messages that meet a run


def held(conversation: Conversations, llm: ScriptedLlm, gate: str) -> Conversation:
    """A conversation whose LLM is being asked."""
    one = conversation()
    one.send(f"HOLD {gate}", "SAY first", run=True)
    llm.wait_held(gate)
    return one


def message(strategy: str | None, text: str = "SAY second", **fields: object) -> JsonObject:
    content = {"role": "user", "content": [{"type": "text", "text": text}], **fields}
    return content if strategy is None else content | {"multitask_strategy": strategy}


def test_message_is_refused_during_a_run_if_wanted(conversation: Conversations, llm: ScriptedLlm) -> None:
    """Nothing of it is stored, unless it was before; without a run it is taken."""
    one = held(conversation, llm, "reject")
    known = {"Idempotency-Key": "known"}
    one.http.post(f"{one.path}/events", json=message(None), headers=known).raise_for_status()
    before = one.outline
    refused = one.post("/events", message("reject", run=True))
    assert (refused.status_code, "already running" in refused.json()["detail"]) == (409, True)
    again = one.http.post(f"{one.path}/events", json=message("reject"), headers=known)
    assert again.json() == {"success": True}
    assert one.outline == before
    llm.release("reject")
    one.wait_status("finished")
    # The message from before may have made the run go on once more.
    wait_until(lambda: one.post("/events", message("reject")).is_success, "the message is taken")


def test_message_may_interrupt_a_run(conversation: Conversations, llm: ScriptedLlm) -> None:
    """What the LLM is asked is given up, and the message starts a run of its own, which has both."""
    one = held(conversation, llm, "interrupt")
    before = len(llm.requests)
    one.post("/events", message("interrupt")).raise_for_status()
    wait_until(lambda: len(llm.requests) > before, "the LLM is asked again")
    assert one.outline == ["user", "InterruptEvent", "user"]
    llm.release("interrupt")
    one.wait_status("finished")
    assert [line.partition(":")[0] for line in one.outline] == ["user", "InterruptEvent", "user", "agent"]


def test_message_waits_its_turn_otherwise(conversation: Conversations, llm: ScriptedLlm) -> None:
    one = held(conversation, llm, "enqueue")
    one.post("/events", message("enqueue", run=True)).raise_for_status()
    llm.release("enqueue")
    one.wait_event("the second is answered", lambda event: "second" in str(event) and event["source"] == "agent")
    assert one.post("/events", message("never")).status_code == 422
