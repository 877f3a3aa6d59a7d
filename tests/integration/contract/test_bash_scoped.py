"""`/api/conversations/{id}/bash`: commands that belong to a conversation, its history and its workspace."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from tests.integration.contract.bash import Bash
from tests.integration.contract.conversations import Conversation, Conversations
from tests.server_process import Server
from tests.waiting import wait_until


@pytest.fixture
def one(conversation: Conversations) -> Conversation:
    return conversation()


@pytest.fixture
def scoped(http: httpx.Client, one: Conversation) -> Bash:
    """The commands of `one`."""
    return Bash(http, f"{one.path}/bash")


@pytest.fixture
def bash(http: httpx.Client) -> Bash:
    """The machine's own commands."""
    return Bash(http)


def test_every_route_has_its_copy(scoped: Bash, tmp_path: Path) -> None:
    """The seven of the contract, each answering about the conversation's commands."""
    gate = tmp_path / "go"
    command = scoped.start(f"while [ ! -e {gate} ]; do sleep 0.05; done")
    assert scoped.post(f"bash_commands/{command['id']}/stop") == {"success": True}
    [stopped] = scoped.outputs(command["id"])
    assert stopped["exit_code"] == -15
    output = scoped.execute("echo scoped")
    assert [event["id"] for event in scoped.search(command_id__eq=output["command_id"])["items"]] == [output["id"]]
    assert scoped.answer("GET", f"bash_events/{output['id']}").json() == output
    assert scoped.answer("GET", "bash_events/", json=[output["id"], "nope"]).json() == [output, None]
    assert scoped.answer("DELETE", "bash_events").json() == {"cleared_count": 4}


def test_history_is_the_conversations_own(one: Conversation, scoped: Bash, bash: Bash, http: httpx.Client) -> None:
    """Neither in the machine's history nor ended there; part of the conversation's archive."""
    output = scoped.execute("echo mine")
    assert bash.answer("GET", f"bash_events/{output['id']}").status_code == 404
    assert bash.answer("POST", f"bash_commands/{output['command_id']}/stop").status_code == 404
    archive = http.get(f"/api/file/download-trajectory/{one.id}").raise_for_status()
    with zipfile.ZipFile(BytesIO(archive.content)) as opened:
        texts = [opened.read(name) for name in opened.namelist() if "bash_events" in name]
    assert any(b"echo mine" in text for text in texts)


def test_commands_run_in_the_workspace(conversation: Conversations, scoped: Bash) -> None:
    output = scoped.execute("pwd")
    assert output["stdout"] == f"{conversation.working_dir}\n"
    assert scoped.search(kind__eq="BashCommand")["items"][0]["cwd"] == conversation.working_dir


def test_commands_stay_inside(conversation: Conversations, scoped: Bash, tmp_path: Path) -> None:
    (Path(conversation.working_dir) / "way-out").symlink_to(tmp_path.parent)
    for outside in ("/", "sub", f"{conversation.working_dir}/..", f"{conversation.working_dir}/way-out"):
        answer = scoped.answer("POST", "start_bash_command", json={"command": "pwd", "cwd": outside})
        assert (answer.status_code, answer.json()["detail"]) == (422, "cwd must be inside the conversation workspace")


def test_commands_of_an_unknown_conversation(http: httpx.Client, conversation: Conversations) -> None:
    unknown = conversation.unknown()
    answer = Bash(http, f"{unknown.path}/bash").answer("POST", "start_bash_command", json={"command": "pwd"})
    assert (answer.status_code, answer.json()["detail"]) == (404, f"Conversation not found: {unknown.id}")
    malformed = http.get("/api/conversations/nope/bash/bash_events/search")
    assert malformed.status_code == 422
    assert malformed.json()["detail"][0]["loc"] == ["path", "runtime_conversation_id"]


def test_deleting_the_conversation_ends_its_commands(
    one: Conversation, scoped: Bash, bash: Bash, server: Server
) -> None:
    alive = server.directory / "alive"
    scoped.start(f"while :; do touch {alive}; sleep 0.05; done")
    wait_until(alive.exists, "the command runs")
    one.delete()

    def is_quiet() -> bool:
        alive.unlink(missing_ok=True)
        return not bash.execute("sleep 0.3")["exit_code"] and not alive.exists()

    wait_until(is_quiet, "the command has ended")
    assert not (server.conversations_path / one.id.replace("-", "")).exists()
