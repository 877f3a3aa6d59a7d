"""What agents reach of the server they run on, in one process and over several: children, and secrets by their URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.child_process import PRELOADED
from tests.integration.contract.conversations import TERMINAL, Conversation, Conversations, agent_of, call, terminal
from tests.server_process import FANOUT, Server

KEY = "key-of-the-tests"
SECRET = "kept-where-no-shell-finds-it"

COMMANDS = {
    "one process": [PRELOADED, "serve"],
    "several": [*FANOUT, "serve", "--workers", "2", "--runners", "1"],
}


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose key is in a file, where the SDK does not look."""
    directory = tmp_path_factory.mktemp("server")
    configuration = directory / "configuration.json"
    configuration.write_text(json.dumps({"session_api_keys": [KEY], "secret_key": "tests-only"}))
    environment = {"OPENHANDS_AGENT_SERVER_CONFIG_PATH": str(configuration)}
    with Server(directory, environment, COMMANDS[request.param]) as running:
        yield running


@pytest.fixture
def conversation(server: Server, scripted_llm: ScriptedLlm) -> Iterator[Conversations]:
    with httpx.Client(base_url=server.url, headers={"X-Session-API-Key": KEY}, timeout=30, trust_env=False) as http:
        yield Conversations(http, scripted_llm, str(server.directory / "project"))


def result_of(one: Conversation, tool: str) -> dict[str, Any]:
    """What the tool's only call has led to."""
    event = next(event for event in one.events if event["kind"] == "ObservationEvent" and event["tool_name"] == tool)
    return dict(event["observation"])


def test_agent_starts_a_child_on_its_own_server(conversation: Conversations, scripted_llm: ScriptedLlm) -> None:
    """Its tool posts to the server, with a key that no environment holds; the parent waits for the answer meanwhile."""
    parent = conversation(agent=agent_of(scripted_llm, {"name": "start_child_conversation"}))
    parent.run_to(
        "finished",
        call("start_child_conversation", task="SAY the part is done", title="Kid", isolation="shared"),
        "SAY delegated",
    )
    told = result_of(parent, "start_child_conversation")
    assert not told["is_error"], told
    child = conversation.handle(told["conversation_id"])
    child.wait_status("finished")
    assert child.outline == ["user", "agent: the part is done"]
    assert (child.info["title"], child.info["parent_conversation_id"]) == ("Kid", parent.id)


def test_secret_at_an_own_url_is_looked_up_without_a_request(
    conversation: Conversations, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """It comes without a key, so a request would be refused; and it is hidden in what the agent sees."""
    put = conversation.http.put("/api/settings/secrets", json={"name": "TOKEN", "value": SECRET})
    assert put.is_success, put.text
    urls = {
        "RELATIVE": "/api/settings/secrets/TOKEN",
        "ABSOLUTE": f"{conversation.http.base_url}/api/settings/secrets/TOKEN",
    }
    one = conversation(
        agent=agent_of(scripted_llm, TERMINAL),
        secrets={name: {"kind": "LookupSecret", "url": url} for name, url in urls.items()},
    )
    written = tmp_path / "written"
    one.run_to("finished", terminal(f'printf "%s" "$RELATIVE,$ABSOLUTE" | tee {written}'), "SAY done")
    assert written.read_text() == f"{SECRET},{SECRET}"
    assert SECRET not in json.dumps(one.events)


def test_shells_know_the_address_and_no_key(conversation: Conversations, server: Server) -> None:
    """The agent's and those of `/api/bash`: what tools read is not for commands."""
    answer = conversation.http.post("/api/bash/execute_bash_command", json={"command": "env"}).raise_for_status().json()
    assert f"OH_INTERNAL_SERVER_URL={server.url}" in answer["stdout"]
    assert KEY not in answer["stdout"]
