"""Before a sandbox is frozen every conversation is closed, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.faults.owner import runner_id
from tests.integration.contract.conversations import Conversations
from tests.integration.contract.viewer import Viewer
from tests.server_process import Server

ROUTE = "/api/conversations/prepare-for-sandbox-pause"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: it closes the conversations of all tests."""
    with Server(tmp_path_factory.mktemp("sandbox"), {}) as running:
        yield running


def test_every_conversation_is_closed(
    http: httpx.Client, server: Server, conversation: Conversations, llm: ScriptedLlm
) -> None:
    """One that runs is paused first and goes on when it is told to; an open socket has what comes after."""
    idle, running = conversation(), conversation()
    idle.run_to("finished", "SAY hello")
    running.send("HOLD pause", "SAY done", run=True)
    llm.wait_held("pause")
    with Viewer(running) as viewer:
        answer = http.post(ROUTE)
        assert (answer.status_code, answer.content) == (204, b"")
        assert [runner_id(server.conversations_path, one.id) for one in (idle, running)] == ["", ""]
        assert idle.info["execution_status"] == "finished"
        assert running.info["execution_status"] == "paused"
        llm.release("pause")
        running.post("/run").raise_for_status()
        viewer.until("full_state=finished")
    idle.run_to("finished", "SAY again")
    assert len({event["id"] for event in idle.events}) == len(idle.events)


def test_nothing_to_close_is_no_error(http: httpx.Client) -> None:
    assert [http.post(ROUTE).status_code for _ in range(2)] == [204, 204]
