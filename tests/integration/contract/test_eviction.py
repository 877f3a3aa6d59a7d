"""A conversation that nobody uses leaves memory, and nobody notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.faults.owner import runner_id
from tests.integration.contract.conversations import Conversation, Conversations
from tests.integration.contract.viewer import Viewer
from tests.server_process import Server
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: its conversations leave after half a second."""
    environment = {"OH_CONVERSATION_IDLE_TTL_SECONDS": "0.5"}
    with Server(tmp_path_factory.mktemp("eviction"), environment) as running:
        yield running


def wait_evicted(server: Server, one: Conversation) -> None:
    wait_until(lambda: not runner_id(server.conversations_path, one.id), "the conversation is let go")


def test_evicted_conversation_is_read_and_goes_on(server: Server, conversation: Conversations) -> None:
    """Reads do not open it; its `updated_at` stays. A socket from before has what comes after, each event once."""
    one = conversation()
    with Viewer(one) as viewer:
        one.run_to("finished", "SAY hello")
        viewer.until("full_state=finished")
        wait_evicted(server, one)
        before = one.info
        assert one.events
        assert not runner_id(server.conversations_path, one.id)
        one.run_to("finished", "SAY again")
        viewer.until("agent: again")
        viewer.until("full_state=finished")
        wait_evicted(server, one)
        received = [frame["id"] for frame in viewer.frames if frame.get("key") != "full_state"]
    assert received == [event["id"] for event in one.events]
    assert before["updated_at"] < one.info["updated_at"]


def claim(server: Server, one: Conversation) -> str:
    """Another text after each time the conversation is let go or opened."""
    return (server.conversations_path / one.id.replace("-", "") / "owner.json").read_text()


def test_conversation_at_work_is_not_evicted(server: Server, conversation: Conversations, llm: ScriptedLlm) -> None:
    """Neither one that runs nor one that has a shell command; another one leaves meanwhile."""
    running, shell, idle = conversation(), conversation(), conversation()
    running.send("HOLD eviction", "SAY done", run=True)
    llm.wait_held("eviction")
    claims = [claim(server, one) for one in (running, shell)]
    command = shell.post("/bash/start_bash_command", {"command": "sleep 600"}).raise_for_status().json()
    wait_evicted(server, idle)
    idle.send("SAY nothing")
    wait_evicted(server, idle)
    assert [claim(server, one) for one in (running, shell)] == claims
    llm.release("eviction")
    running.wait_status("finished")
    shell.post(f"/bash/bash_commands/{command['id']}/stop").raise_for_status()
    wait_evicted(server, running)
    wait_evicted(server, shell)
