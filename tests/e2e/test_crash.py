"""What a client finds after the server was killed in the middle of something and started again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.e2e.remote_client import call, terminal
from tests.server_process import Server
from tests.waiting import wait_until

Event = dict[str, Any]


class Conversation:
    """One conversation over plain HTTP, which survives its server."""

    def __init__(self, server: Server, llm: ScriptedLlm, project: Path, **agent: Any) -> None:
        self._server = server
        tools = [{"name": "terminal", "params": {"terminal_type": "subprocess"}}]
        request = {
            "agent": {"llm": llm.settings, "tools": tools, **agent},
            "workspace": {"working_dir": str(project)},
            "autotitle": False,
        }
        self.id: str = httpx.post(self._path(""), json=request).raise_for_status().json()["id"]

    def send(self, *lines: str, run: bool) -> None:
        content = [{"type": "text", "text": "\n".join(lines)}]
        httpx.post(self._path(f"/{self.id}/events"), json={"content": content, "run": run}).raise_for_status()

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(self._path(f"/{self.id}")).raise_for_status().json()
        return found

    def events(self, kind: str) -> list[Event]:
        page = httpx.get(self._path(f"/{self.id}/events/search"), params={"kind": kind}).raise_for_status().json()
        items: list[Event] = page["items"]
        return items

    def wait_status(self, status: str) -> None:
        wait_until(lambda: self.info()["execution_status"] == status, f"the conversation is {status}", 30.0)

    def _path(self, path: str) -> str:
        return f"{self._server.url}/api/conversations{path}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, which is killed; it leaves cut-off runs to the client."""
    with Server(tmp_path / "server", {"OH_RESUME_RUNS": "false"}) as server:
        yield server


@pytest.fixture
def resuming_server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, which is killed and goes on by itself."""
    with Server(tmp_path / "server") as server:
        yield server


def test_killed_in_a_tool_call_the_conversation_is_repaired_and_goes_on(
    server: Server, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """Both calls of a parallel batch get their error observation, and a new run finishes with them in its prompt."""
    started, project = tmp_path / "started", tmp_path / "project"
    conversation = Conversation(server, scripted_llm, project, tool_concurrency_limit=2)
    sleeping = terminal(f"touch {started}; sleep 60")
    conversation.send(f"{sleeping} && {call('think', thought='meanwhile')}", run=True)
    wait_until(started.exists, "the tool is running", 30.0)

    server.kill()
    server.start()

    listed = httpx.get(f"{server.url}/api/conversations/search").json()["items"]
    assert [item["id"] for item in listed] == [conversation.id]
    conversation.wait_status("error")
    actions, errors = conversation.events("ActionEvent"), conversation.events("AgentErrorEvent")
    assert [error["tool_call_id"] for error in errors] == [action["tool_call_id"] for action in actions]
    assert len(errors) == 2
    assert errors[0]["parent_id"] == actions[-1]["id"]

    conversation.send("SAY back again", run=True)
    conversation.wait_status("finished")

    asked = scripted_llm.requests[-1].messages
    answered = [message["tool_call_id"] for message in asked if message["role"] == "tool"]
    assert answered == [action["tool_call_id"] for action in actions]
    assert httpx.get(f"{server.url}/api/conversations/{conversation.id}/agent_final_response").json() == {
        "response": "back again"
    }


def test_a_message_acknowledged_while_a_tool_ran_survives_the_server(
    server: Server, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """What was answered 200 is in the conversation after a kill, once, and the agent reads it."""
    started, project = tmp_path / "started", tmp_path / "project"
    conversation = Conversation(server, scripted_llm, project)
    conversation.send(terminal(f"touch {started}; sleep 60"), run=True)
    wait_until(started.exists, "the tool is running", 30.0)
    conversation.send("SAY first accepted", run=False)
    conversation.send("SAY second accepted", run=False)

    server.kill()
    server.start()

    def said() -> list[str]:
        return [message["llm_message"]["content"][0]["text"] for message in conversation.events("MessageEvent")]

    wait_until(lambda: len(said()) == 3, "the accepted messages are in the log", 30.0)
    assert said()[1:] == ["SAY first accepted", "SAY second accepted"]
    server.kill()
    server.start()
    assert len(said()) == 3

    conversation.send("SAY third", run=True)
    conversation.wait_status("finished")
    assert "second accepted" in scripted_llm.requests[-1].text


def test_stopped_by_sigterm_a_running_conversation_is_paused(
    server: Server, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """A run is interrupted within the stop, its open call closed, and it can be continued after the restart."""
    started, project = tmp_path / "started", tmp_path / "project"
    conversation = Conversation(server, scripted_llm, project)
    conversation.send(terminal(f"touch {started}; sleep 60"), run=True)
    wait_until(started.exists, "the tool is running", 30.0)

    assert server.terminate() == 0
    server.start()

    assert conversation.info()["execution_status"] == "paused"
    assert len(conversation.events("AgentErrorEvent")) == 1
    assert len(conversation.events("InterruptEvent")) == 1
    conversation.send("SAY resumed", run=True)
    conversation.wait_status("finished")


def test_run_cut_off_by_a_kill_is_continued(resuming_server: Server, scripted_llm: ScriptedLlm, tmp_path: Path) -> None:
    """The next owner closes the open call and goes on to the end, without a client asking for it."""
    started, project = tmp_path / "started", tmp_path / "project"
    conversation = Conversation(resuming_server, scripted_llm, project)
    conversation.send(terminal(f"touch {started}; sleep 60"), "SAY done all the same", run=True)
    wait_until(started.exists, "the tool is running", 30.0)

    resuming_server.kill()
    resuming_server.start()

    conversation.wait_status("finished")
    assert len(conversation.events("AgentErrorEvent")) == 1
    assert conversation.events("MessageEvent")[-1]["llm_message"]["content"][0]["text"] == "done all the same"


def test_run_that_kills_its_server_again_and_again_is_given_up(
    resuming_server: Server, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """After the third time the conversation is left in error with an event that says why."""
    conversation = Conversation(resuming_server, scripted_llm, tmp_path / "project")
    conversation.send("HOLD for_ever", "SAY never", run=True)

    for death in range(1, 4):
        asked = partial(scripted_llm_was_asked, scripted_llm, death)
        wait_until(asked, f"the agent has asked the LLM {death} times", 30.0)
        resuming_server.kill()
        resuming_server.start()

    conversation.wait_status("error")
    assert [event["code"] for event in conversation.events("ConversationErrorEvent")] == ["RunInterruptedRepeatedly"]
    assert len(scripted_llm.requests) == 3


def scripted_llm_was_asked(llm: ScriptedLlm, times: int) -> bool:
    """Whether that many requests have reached the LLM."""
    return len(llm.requests) >= times
