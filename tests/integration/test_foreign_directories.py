"""A data directory of the published server opens as it is, and can be given back to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event import MessageEvent, ObservationEvent, PauseEvent
from openhands.sdk.llm import content_to_str
from openhands.sdk.utils.cipher import Cipher
from openhands.tools.terminal import TerminalTool

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversation, terminal
from tests.published_server import API_KEY, DATA, NAMES, SECRET, SECRET_KEY, Foreign, JsonObject, install
from tests.server_process import Server

PATH = "/api/conversations"


class Deployment(NamedTuple):
    """A server over a directory that the published server has filled."""

    server: Server
    http: httpx.Client
    llm: ScriptedLlm
    originals: dict[str, Foreign]
    """By name; tests only read them."""
    twins: dict[str, Foreign]
    """The same under other ids, for tests that go on with them."""
    leaving: dict[str, Foreign]
    """Once more, to be given back."""
    gone_back: Foreign
    """`a` once more, which a client of the published server has navigated to its first message."""

    def handle(self, foreign: Foreign) -> Conversation:
        return Conversation(self.http, str(foreign.id), self.llm)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One server for all tests of this module."""
    directory = tmp_path_factory.mktemp("server")
    conversations, workspaces = directory / "conversations", directory / "workspaces"
    with ScriptedLlm() as llm:

        def put(name: str, place: str, *, as_twin: bool = True) -> Foreign:
            place_of_work = workspaces / place
            return install(name, conversations, workspaces=place_of_work, llm_url=llm.base_url, as_twin=as_twin)

        originals = {name: put(name, "originals", as_twin=False) for name in NAMES}
        twins = {name: put(name, "twins") for name in NAMES}
        leaving = {name: put(name, "leaving") for name in NAMES}
        gone_back = put("a", "gone-back")
        opened = plain(gone_back, conversations)
        opened.navigate_to(opened.state.events[1].id)
        opened.close()
        with (
            Server(directory, {"OH_SECRET_KEY": SECRET_KEY}) as server,
            httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http,
        ):
            yield Deployment(server, http, llm, originals, twins, leaving, gone_back)


BY_NAME = pytest.mark.parametrize("name", NAMES)


def plain(foreign: Foreign, conversations: Path) -> LocalConversation:
    """A conversation opened by the SDK alone, with its own store, as the published server does."""
    assert TerminalTool.name == "terminal", "the tool must be imported"
    return LocalConversation(
        agent=None,
        workspace=foreign.info["workspace"]["working_dir"],
        persistence_dir=str(conversations),
        conversation_id=foreign.id,
        visualizer=None,
        cipher=Cipher(SECRET_KEY),
    )


# Reading


def test_conversations_are_listed(deployment: Deployment) -> None:
    """In the order of their making, with what the published server knew of each."""
    page = deployment.http.get(f"{PATH}/search", params={"sort_order": "CREATED_AT"}).raise_for_status().json()
    expected = {foreign.info["id"]: foreign.info for foreign in deployment.originals.values()}
    listed = [item for item in page["items"] if item["id"] in expected]
    assert [item["id"] for item in listed] == sorted(expected, key=lambda each: expected[each]["created_at"])
    shown = ("title", "tags", "created_at", "updated_at", "execution_status")
    for item in listed:
        assert {key: item[key] for key in shown} == {key: expected[item["id"]][key] for key in shown}


def test_conversations_are_found_by_status(deployment: Deployment) -> None:
    """Before anybody has opened one."""
    page = deployment.http.get(f"{PATH}/search", params={"status": "idle"}).raise_for_status().json()
    assert deployment.originals["b"].info["id"] in [item["id"] for item in page["items"]]
    assert deployment.originals["a"].info["id"] not in [item["id"] for item in page["items"]]


@BY_NAME
def test_info_is_what_the_published_server_told(deployment: Deployment, name: str) -> None:
    """Every key and value of it, nulls included."""
    foreign = deployment.originals[name]
    info = deployment.http.get(f"{PATH}/{foreign.id}").raise_for_status().json()
    assert info == foreign.info


@BY_NAME
def test_events_are_the_stored_bytes(deployment: Deployment, name: str) -> None:
    """All of them, in order, not one byte differs; as many as the published server counted."""
    foreign = deployment.originals[name]
    path = f"{PATH}/{foreign.id}/events"
    stored = [file.read_bytes() for file in foreign.event_paths]
    page = deployment.http.get(f"{path}/search").raise_for_status()
    assert page.content == b'{"items":[' + b",".join(stored) + b'],"next_page_id":null}'
    assert deployment.http.get(f"{path}/count").json() == foreign.events_count == len(stored)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"kind": "MessageEvent"}, 1),
        ({"source": "agent"}, 4),
        ({"body": "CALL FINISH"}, 1),
        ({"timestamp__gte": "2026-11-23T20:23:06"}, 5),
        ({"kind": "ObservationEvent", "timestamp__lt": "2026-11-23T20:23:06"}, 1),
    ],
    ids=str,
)
def test_events_are_filtered(deployment: Deployment, filters: dict[str, str], count: int) -> None:
    """By what is in them."""
    path = f"{PATH}/{deployment.originals['a'].id}/events/count"
    assert deployment.http.get(path, params=filters).raise_for_status().json() == count


@BY_NAME
def test_agents_answer_is_found(deployment: Deployment, name: str) -> None:
    """A finish message, nothing, and words."""
    answer = deployment.http.get(f"{PATH}/{deployment.originals[name].id}/agent_final_response").json()
    assert answer == {"response": {"a": "bye", "b": "", "c": "all done"}[name]}


@BY_NAME
def test_reading_leaves_the_published_servers_files_alone(deployment: Deployment, name: str) -> None:
    """What is ours lies beside them."""
    foreign = deployment.originals[name]
    before = {file: file.read_bytes() for file in foreign.path.rglob("*") if file.is_file()}
    conversation = deployment.handle(foreign)
    assert conversation.info["id"] == str(foreign.id)
    assert conversation.get("/events/search").status_code == 200
    ours = {"owner.json", "snapshot.jsonl"}
    after = {file: file.read_bytes() for file in foreign.path.rglob("*") if file.is_file() and file.name not in ours}
    assert after == {file: data for file, data in before.items() if file.name not in ours}
    template = DATA / "conversations" / foreign.id.hex
    assert {file.relative_to(foreign.path) for file in after} == {
        file.relative_to(template) for file in template.rglob("*") if file.is_file()
    }


# Going on


@BY_NAME
def test_conversation_continues(deployment: Deployment, name: str) -> None:
    """A new message runs to its end, with the key and the history that the published server has left."""
    conversation = deployment.handle(deployment.twins[name])
    before = conversation.events

    conversation.run_to("finished", f"SAY went on with {name}")

    assert conversation.events[: len(before)] == before
    assert conversation.get("/agent_final_response").json() == {"response": f"went on with {name}"}
    request = deployment.llm.agent_requests[-1]
    assert request.api_key == API_KEY
    texts = [text for event in before if event["kind"] == "MessageEvent" for text in _texts(event)]
    assert all(text in request.text for text in texts)
    assert len(request.messages) >= len(texts) + 2


def test_where_a_client_has_gone_back_to_is_kept(deployment: Deployment) -> None:
    """HEAD is not the last event then, and what was said behind it does not count, also when the run goes on."""
    foreign = deployment.gone_back
    conversation = deployment.handle(foreign)
    first_message = json.loads(foreign.event_paths[1].read_bytes())["id"]

    assert conversation.info["leaf_event_id"] == first_message
    assert conversation.get("/agent_final_response").json() == {"response": ""}

    asked_before = len(deployment.llm.agent_requests)
    conversation.run_to("finished", "SAY another way")

    roles = [message["role"] for message in deployment.llm.agent_requests[asked_before].messages]
    assert roles == ["system", "user"]


def test_stored_secret_reaches_the_terminal(deployment: Deployment) -> None:
    """It was encrypted by the published server; the policy to ask first holds too, and its value is masked."""
    conversation = deployment.handle(deployment.twins["c"])
    conversation.run_to("waiting_for_confirmation", terminal("echo $TOK has ${#TOK} characters"), "SAY done")
    conversation.post("/events/respond_to_confirmation", {"accept": True}).raise_for_status()
    conversation.wait_status("finished", timeout_seconds=60)
    results = [event for event in conversation.events if event["kind"] == "ObservationEvent"]
    shown = "".join(part["text"] for part in results[-1]["observation"]["content"])
    assert f"has {len(SECRET)} characters" in shown
    assert SECRET not in conversation.get("/events/search").text


def _texts(event: JsonObject) -> list[str]:
    return [part["text"] for part in event["llm_message"]["content"]]


# Giving back; these stop the server, and come last


@pytest.fixture(scope="module")
def given_back(deployment: Deployment) -> dict[str, Foreign]:
    """What is left when our server has gone on with each conversation and was stopped."""
    for foreign in deployment.leaving.values():
        deployment.handle(foreign).run_to("finished", "SAY went on")
    assert deployment.server.terminate() == 0
    return deployment.leaving


@BY_NAME
def test_directory_opens_with_the_plain_sdk_again(given_back: dict[str, Foreign], name: str) -> None:
    """With its own store it finds all events, where the conversation stands and how it ended, and can go on."""
    foreign = given_back[name]
    conversation = plain(foreign, foreign.path.parent)

    state = conversation.state
    assert [event.id for event in state.events] == [file.name[12:-5] for file in foreign.event_paths]
    assert state.execution_status is ConversationExecutionStatus.FINISHED
    branch = state.active_branch()
    last = [event for event in branch if isinstance(event, MessageEvent)][-1]
    assert content_to_str(last.llm_message.content) == ["went on"]
    assert all(event in branch for event in state.events if isinstance(event, ObservationEvent))
    before = len(state.events)
    with state:
        state.append_event(PauseEvent())
    conversation.close()
    assert len(foreign.event_paths) == before + 1
