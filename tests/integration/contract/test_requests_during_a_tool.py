"""While a tool runs every request is answered at once; what it asks for happens in order, once the tool has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversation, Conversations, terminal, user_message
from tests.integration.contract.viewer import Viewer, frame_line
from tests.server_process import Server
from tests.waiting import wait_until

ANSWER_SECONDS = 10.0
"""A request that waited for the tool would wait for ever: the tool goes on until the test has had its answer."""


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    """Requests that fail when they are made to wait."""
    with httpx.Client(base_url=server.url, timeout=ANSWER_SECONDS, trust_env=False) as client:
        yield client


class Busy:
    """A conversation whose agent runs a command that ends when the test says so."""

    def __init__(self, conversation: Conversation, directory: Path) -> None:
        self.conversation = conversation
        self._started = directory / "started"
        self._released = directory / "released"

    def start(self, *then: str) -> None:
        """Return once the command is running. `then`: what else the agent is told to do."""
        command = f"touch {self._started}; until [ -e {self._released} ]; do sleep 0.02; done; echo ended"
        self.conversation.send(terminal(command), *then, "SAY after the tool", run=True)
        wait_until(self._started.exists, "the command is running")

    def release(self) -> None:
        """Let the command end."""
        self._released.touch()


@pytest.fixture
def busy(conversation: Conversations, project: Path) -> Iterator[Busy]:
    """A running command, ended with the test at the latest."""
    tool = Busy(conversation.with_terminal(), project)
    tool.start()
    yield tool
    tool.release()


@pytest.fixture
def busy_for_long(conversation: Conversations, project: Path, llm: ScriptedLlm) -> Iterator[Busy]:
    """A running command in a run that does not end after it: the LLM does not answer before the test's end."""
    tool = Busy(conversation.with_terminal(), project)
    tool.start("HOLD after the tool")
    yield tool
    tool.release()
    llm.release("after the tool")


def test_writes_are_answered_at_once_and_take_effect_in_order(busy_for_long: Busy) -> None:
    """Each write is acknowledged before the tool ends; afterwards the log shows them in the order they were sent."""
    busy = busy_for_long
    conversation = busy.conversation
    writes: dict[str, Callable[[], httpx.Response]] = {
        "message": lambda: conversation.post("/events", user_message("SAY second")),
        "policy": lambda: conversation.post("/confirmation_policy", {"policy": {"kind": "AlwaysConfirm"}}),
        "tags": lambda: conversation.patch({"title": "Renamed", "tags": {"a": "b"}}),
        "secrets": lambda: conversation.post("/secrets", {"secrets": {"DURING_TOOL": "a-secret-during-the-tool"}}),
        "analyzer": lambda: conversation.post(
            "/security_analyzer", {"security_analyzer": {"kind": "LLMSecurityAnalyzer"}}
        ),
        "another message": lambda: conversation.post("/events", user_message("SAY third")),
        "pause": lambda: conversation.post("/pause"),
    }
    with Viewer(conversation) as viewer:
        assert viewer.first["value"]["execution_status"] == "running"

        answers = {name: write().status_code for name, write in writes.items()}

        assert answers == dict.fromkeys(writes, 200)
        assert conversation.outline == ["user", "call terminal"]
        busy.release()
        lines = viewer.until("full_state=paused")

    told = ["result terminal", "user", "confirmation_policy", "tags", "security_analyzer", "PauseEvent"]
    effects = [line for line in lines if line in told]
    assert effects == [
        "result terminal",
        "user",
        "confirmation_policy",
        "tags",
        "security_analyzer",
        "user",
        "PauseEvent",
    ]
    logged = [frame_line(event) for event in conversation.events]
    assert [line for line in logged[logged.index("result terminal") :] if line in told] == effects
    info = conversation.info
    assert info["title"] == "Renamed"
    assert info["tags"] == {"a": "b"}
    assert info["confirmation_policy"] == {"kind": "AlwaysConfirm"}
    assert info["security_analyzer"]["kind"] == "LLMSecurityAnalyzer"
    assert list(info["secret_registry"]["secret_sources"]) == ["DURING_TOOL"]
    assert info["execution_status"] == "paused"


def test_reads_are_answered_at_once(busy: Busy) -> None:
    """The whole conversation can be read, searched, watched and asked while the tool runs."""
    conversation = busy.conversation

    assert conversation.status == "running"
    assert conversation.outline == ["user", "call terminal"]
    assert conversation.get("/events/count").status_code == 200
    assert conversation.get("/agent_final_response").json() == {"response": ""}
    assert conversation.post("/ask_agent", {"question": "SAY meanwhile"}).json() == {"response": "meanwhile"}
    assert conversation.post("/run").status_code == 409
    assert conversation.post("/events/respond_to_confirmation", {"accept": True}).status_code == 200
    with Viewer(conversation, "?resend_mode=all") as viewer:
        assert viewer.first["key"] == "full_state"
        assert "call terminal" in viewer.until("call terminal")
    with Viewer(conversation) as another:
        busy.release()
        assert "agent: after the tool" in another.until("full_state=finished")


def test_title_is_readable_before_the_tool_ends(busy: Busy) -> None:
    """A title is no part of the state that the tool holds, so it is there with the reply."""
    busy.conversation.patch({"title": "At once"}).raise_for_status()

    assert busy.conversation.info["title"] == "At once"
    assert busy.conversation.info["execution_status"] == "running"


def test_message_that_runs_is_worked_on_after_the_tool(busy: Busy) -> None:
    """A message acknowledged during the tool is seen by the agent when the tool has ended, within the same run."""
    conversation = busy.conversation

    conversation.send("SAY heard you", run=True)
    busy.release()
    conversation.wait_event("the agent has heard", lambda event: "heard you" in agent_text(event))

    conversation.wait_status("finished")
    assert conversation.outline[:4] == ["user", "call terminal", "result terminal", "user"]


def agent_text(event: dict[str, object]) -> str:
    """What the agent said, if the event is that."""
    return str(event.get("llm_message")) if event["source"] == "agent" else ""
