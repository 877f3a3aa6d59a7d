"""Settings that show in what conversations and redirects become."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.contract.conversations import Conversations, agent_of, call
from tests.server_process import Server

SKILL = "---\nname: waving\ndescription: How to wave\n---\nWave.\n"
TOOL = """
from openhands.sdk import Action, Observation, ToolDefinition
from openhands.sdk.tool import ToolExecutor, register_tool


class WaveAction(Action):
    at: str


class WaveObservation(Observation):
    pass


class WaveExecutor(ToolExecutor):
    def __call__(self, action, conversation=None):
        return WaveObservation.from_text(text=f"waved at {action.at}")


class WaveTool(ToolDefinition[WaveAction, WaveObservation]):
    @classmethod
    def create(cls, conv_state=None, **params):
        types = {"action_type": WaveAction, "observation_type": WaveObservation}
        return [cls(description="Waves.", executor=WaveExecutor(), **types)]


register_tool("wave", WaveTool)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that knows a marketplace and a folder of tools, manages the skills of ACP agents, and is behind a proxy."""
    directory = tmp_path_factory.mktemp("server")
    market = directory / "market"
    (market / ".plugin").mkdir(parents=True)
    (market / "skills" / "waving").mkdir(parents=True)
    (market / "skills" / "waving" / "SKILL.md").write_text(SKILL)
    skills = [{"name": "waving", "source": "./skills/waving"}]
    (market / ".plugin" / "marketplace.json").write_text(
        json.dumps({"name": "market", "owner": {"name": "o"}, "skills": skills})
    )
    tools = directory / "tools"
    tools.mkdir()
    (tools / "tool_that_waves.py").write_text(TOOL)
    environment = {
        "OH_EXTRA_PYTHON_PATH": f"{directory / 'nowhere'}:{tools}",
        "OH_REGISTERED_MARKETPLACES": json.dumps([{"name": "market", "source": str(market), "auto_load": True}]),
        "OH_ACP_SKILL_SOURCING": "openhands_managed",
        "OH_TRUST_FORWARDED_HEADERS": "true",
    }
    with Server(directory, environment) as running:
        yield running


def shown_skills(conversation: Conversations, agent: dict[str, object]) -> list[str]:
    one = conversation(agent=agent)
    one.run_to("finished", "SAY hello")
    shown = one.get(params={"include_skills": "true"}).json()["agent"]["agent_context"]
    return [skill["name"] for skill in shown["skills"]]


def test_agents_have_the_skills_of_the_marketplaces(conversation: Conversations) -> None:
    assert shown_skills(conversation, agent_of(conversation.llm)) == ["waving"]


def test_skills_of_the_marketplaces_are_listed(http: httpx.Client, tmp_path: Path) -> None:
    """Beside those that a request names; one that it names alike stands in their place."""

    def listed(*marketplaces: dict[str, object]) -> set[str]:
        content = {"load_user": False, "registered_marketplaces": marketplaces}
        found = http.post("/api/skills", json=content).raise_for_status().json()["skills"]
        return {skill["name"] for skill in found}

    assert listed() == listed({"name": "another", "source": str(tmp_path)}) == {"waving"}
    assert listed({"name": "market", "source": str(tmp_path)}) == set()


def test_agent_that_names_marketplaces_has_those_alone(conversation: Conversations, tmp_path: Path) -> None:
    own = {"registered_marketplaces": [{"name": "own", "source": str(tmp_path)}]}
    assert shown_skills(conversation, agent_of(conversation.llm) | {"agent_context": own}) == []


def test_acp_agents_get_their_skills_from_here(conversation: Conversations) -> None:
    """By default they are left out, for the other program has skills of its own."""
    skill = {"name": "given", "content": "Give.", "trigger": None}
    one = conversation(
        agent={"kind": "ACPAgent", "acp_command": ["never-started"], "agent_context": {"skills": [skill]}}
    )
    shown = one.get(params={"include_skills": "true"}).json()["agent"]["agent_context"]
    assert [each["name"] for each in shown["skills"]] == ["given"]


def test_tools_are_found_in_the_folders_given_for_them(conversation: Conversations) -> None:
    """They are registered with the conversation that brings them, and no tools to choose among for others."""
    own = {"name": "wave_back", "description": "d", "parameters": {"type": "object", "properties": {}}}
    one = conversation(
        agent=agent_of(conversation.llm, {"name": "wave"}),
        tool_module_qualnames={"wave": "tool_that_waves"},
        client_tools=[own],
    )
    one.run_to("finished", call("wave", at="you"), "SAY waved")
    [seen] = [event["observation"] for event in one.events if event["kind"] == "ObservationEvent"]
    assert seen["content"][0]["text"] == "waved at you"
    assert "wave" in conversation.http.get("/api/tools/").json()
    offered = {tool["name"] for tool in conversation.http.get("/api/tools/catalog").json()["tools"]}
    assert "terminal" in offered
    assert not {"wave", "wave_back"} & offered


def test_redirects_lead_to_where_the_proxy_is(conversation: Conversations) -> None:
    forwarded = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "public.example"}
    answer = conversation.http.get("/alive/", headers=forwarded)
    assert answer.headers["location"] == "https://public.example/alive"
