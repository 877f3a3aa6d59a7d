"""`DELETE` and `PATCH` of a conversation, and what every route says of one that is not there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import (
    PATH,
    Conversation,
    Conversations,
    JsonObject,
    made,
    terminal,
    user_message,
)
from tests.integration.contract.viewer import Viewer
from tests.server_process import Server
from tests.waiting import wait_until

GONE = 4004


# Delete


def test_delete_removes_the_conversation_and_keeps_its_workspace(
    conversation: Conversations, server: Server, project: Path
) -> None:
    """Events, state and record are gone from disk with the reply; the agent's files are not the server's to remove."""
    (project / "work").touch()
    created = conversation()
    created.run_to("finished", "SAY ok")
    directory = server.conversations_path / UUID(created.id).hex
    assert (directory / "base_state.json").is_file()

    response = created.delete()

    assert (response.status_code, response.json()) == (200, {"success": True})
    assert not directory.exists()
    assert (project / "work").exists()


def test_deleted_conversation_is_gone_from_every_read(conversation: Conversations, http: httpx.Client) -> None:
    """Neither alone, nor in a batch, nor in pages is it found again."""
    created = conversation()
    assert created.id in http.get(f"{PATH}/search").text

    created.delete().raise_for_status()

    assert created.get().status_code == 404
    assert http.get(PATH, params={"ids": created.id}).json() == [None]
    assert created.id not in http.get(f"{PATH}/search").text


def test_second_delete_is_404(conversation: Conversations) -> None:
    """What is gone cannot be deleted."""
    created = conversation()
    created.delete().raise_for_status()

    response = created.delete()

    assert response.status_code == 404
    assert response.json() == {"detail": "Not Found"}


def test_id_of_a_deleted_conversation_can_be_used_again(conversation: Conversations) -> None:
    """A create with its id makes a new conversation with nothing of the old one in it."""
    first = conversation(conversation_id=str(uuid4()), tags={"made": "first"})
    first.run_to("finished", "SAY the first")
    first.delete().raise_for_status()

    again = conversation.create(conversation_id=first.id)

    assert again.status_code == 201
    assert again.json()["tags"] == {}
    assert first.events == []
    first.run_to("finished", "SAY the second")
    assert first.outline == ["user", "agent: the second"]


def test_delete_closes_attached_sockets(conversation: Conversations) -> None:
    """Every viewer is told that there is nothing to come back to."""
    created = conversation()

    with Viewer(created) as one, Viewer(created) as other:
        created.delete().raise_for_status()

        assert one.wait_closed() == (GONE, "Conversation not found")
        assert other.wait_closed() == (GONE, "Conversation not found")


def test_delete_ends_a_run_without_waiting_for_the_llm(
    conversation: Conversations, llm: ScriptedLlm, server: Server
) -> None:
    """A silent LLM does not hold the delete up, and what it says afterwards brings nothing back."""
    created = conversation(initial_message=user_message("HOLD delete-llm", "SAY late"))
    llm.wait_held("delete-llm")

    created.delete().raise_for_status()

    assert not (server.conversations_path / UUID(created.id).hex).exists()
    llm.release("delete-llm")
    assert running(created.http) == 0


def running(http: httpx.Client) -> int:
    """How many conversations run."""
    return int(http.get(f"{PATH}/count", params={"status": "running"}).raise_for_status().json())


def test_delete_during_a_tool_answers_at_once(conversation: Conversations, server: Server, project: Path) -> None:
    """A command that goes on for a minute does not hold the delete up; it is ended and nothing is written back."""
    created = conversation.with_terminal()
    command = f"echo $$ > {project}/pid; touch {project}/started; sleep 60"
    created.send(terminal(command), "SAY after", run=True)
    wait_until((project / "started").exists, "the command is running")

    with Viewer(created) as viewer:
        created.delete().raise_for_status()

        assert viewer.wait_closed() == (GONE, "Conversation not found")
    assert not (server.conversations_path / UUID(created.id).hex).exists()
    shell = Path("/proc", (project / "pid").read_text().strip())
    wait_until(lambda: not shell.exists(), "the agent's shell has ended")
    assert not (server.conversations_path / UUID(created.id).hex).exists()


# Patch


@pytest.fixture
def created(conversation: Conversations) -> Conversation:
    """A conversation with a title and tags."""
    there = conversation(tags={"made": "first"})
    there.patch({"title": "The first title"}).raise_for_status()
    return there


def test_patch_sets_the_title(created: Conversation) -> None:
    """The new title is there with the reply, and the tags stay."""
    response = created.patch({"title": "Another"})

    assert (response.status_code, response.json()) == (200, {"success": True})
    assert (created.info["title"], created.info["tags"]) == ("Another", {"made": "first"})


def test_patch_trims_the_title(created: Conversation) -> None:
    """Blanks around a title are no part of it."""
    created.patch({"title": "  trimmed \n"}).raise_for_status()

    assert created.info["title"] == "trimmed"


def test_patch_takes_a_title_of_200_characters(created: Conversation) -> None:
    """200 is not too long, whatever the characters."""
    created.patch({"title": "ü" * 200}).raise_for_status()

    assert created.info["title"] == "ü" * 200


def test_patch_replaces_all_tags(created: Conversation) -> None:
    """The tags given are all there are, and the title stays."""
    created.patch({"tags": {"other": "one"}}).raise_for_status()

    assert (created.info["title"], created.info["tags"]) == ("The first title", {"other": "one"})
    created.patch({"tags": {}}).raise_for_status()
    assert created.info["tags"] == {}


@pytest.mark.parametrize("content", [{}, {"title": None, "tags": None}, {"nonsense": 1}], ids=json.dumps)
def test_patch_without_changes_only_counts_as_activity(content: JsonObject, created: Conversation) -> None:
    """Nothing is set, and `updated_at` moves all the same."""
    before = created.info

    response = created.patch(content)

    assert (response.status_code, response.json()) == (200, {"success": True})
    after = created.info
    assert after["updated_at"] > before["updated_at"]
    assert after | {"updated_at": before["updated_at"]} == before


@pytest.mark.parametrize(
    ("content", "kind", "field"),
    [
        ({"title": "   "}, "value_error", "title"),
        ({"title": ""}, "string_too_short", "title"),
        ({"title": "t" * 201}, "string_too_long", "title"),
        ({"title": 5}, "string_type", "title"),
        ({"tags": {"Bad Name": "v"}}, "value_error", "tags"),
        ({"tags": {"ok": "v" * 257}}, "value_error", "tags"),
    ],
    ids=["blank", "empty", "201 characters", "number", "tag with a space", "tag of 257 characters"],
)
def test_patch_refuses(content: JsonObject, kind: str, field: str, created: Conversation) -> None:
    """Titles have 1 to 200 characters, tags lower-case names and 256 characters; a refusal changes nothing."""
    before = created.info

    response = created.patch(content)

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert (problem["type"], problem["loc"]) == (kind, ["body", field])
    assert created.info == before


def test_patch_says_why_a_blank_title_is_refused(created: Conversation) -> None:
    """The text is the published server's."""
    [problem] = created.patch({"title": " "}).json()["detail"]

    assert problem["msg"] == "Value error, title must not be blank"


@pytest.mark.parametrize("content", [{"tags": {"ok": 1}}, {"tags": []}, [], "text", 5], ids=json.dumps)
def test_patch_refuses_malformed_values_without_failing(content: object, created: Conversation) -> None:
    """Shapes the SDK's models stumble over are the client's mistake, with a reason."""
    response = created.patch(content)

    assert response.status_code == 422
    assert response.json()["detail"]


def test_patch_without_a_body_is_422(created: Conversation) -> None:
    """There has to be one."""
    response = created.http.patch(created.path)

    assert response.status_code == 422
    assert response.json() == {"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}]}


def test_patch_tells_viewers_of_tags_and_not_of_a_title(conversation: Conversations) -> None:
    """Tags are part of the state and come as an event, a title is not; tags that stay the same are no news."""
    there = conversation()

    with Viewer(there) as viewer:
        there.patch({"title": "Only a title"}).raise_for_status()
        there.patch({"title": "And tags", "tags": {"a": "b"}}).raise_for_status()
        there.patch({"tags": {"a": "b"}}).raise_for_status()
        there.post("/pause").raise_for_status()

        lines = viewer.until("full_state=paused")
    assert lines == ["tags", "execution_status=paused", "PauseEvent", "full_state=paused"]
    assert viewer.frames[1]["value"] == {"a": "b"}


def test_patches_at_the_same_time_all_count(created: Conversation, server: Server) -> None:
    """In the record on disk, too: each is made of the one before it."""
    meta = server.conversations_path / UUID(created.id).hex / "meta.json"
    with ThreadPoolExecutor(2) as threads:
        for number in map(str, range(20)):
            changes: list[JsonObject] = [{"title": number}, {"tags": {"number": number}}]
            assert [answer.status_code for answer in threads.map(created.patch, changes)] == [200, 200]
            stored = json.loads(meta.read_text())
            assert (stored["title"], stored["tags"]) == (number, {"number": number})


def test_patch_outlives_the_next_run(created: Conversation) -> None:
    """A run does not bring the old title and tags back."""
    created.patch({"title": "Kept", "tags": {"kept": "too"}}).raise_for_status()

    created.run_to("finished", "SAY ok")

    assert (created.info["title"], created.info["tags"]) == ("Kept", {"kept": "too"})


# Not there


class Route(NamedTuple):
    """A request to a conversation, and the 404 it gets when there is none."""

    method: str
    route: str
    detail: str = "Not Found"
    content: object = None


UNDER_EVENTS = "Conversation not found: {id}"
ROUTES = [
    Route("GET", ""),
    Route("PATCH", "", content={"title": "x"}),
    Route("DELETE", ""),
    Route("POST", "/run"),
    Route("POST", "/pause"),
    Route("POST", "/interrupt"),
    Route("POST", "/secrets", content={"secrets": {"A": "b"}}),
    Route("POST", "/confirmation_policy", content={"policy": {"kind": "NeverConfirm"}}),
    Route("POST", "/security_analyzer", content={"security_analyzer": None}),
    Route("POST", "/ask_agent", "Conversation not found", {"question": "q"}),
    Route("POST", "/generate_title", content={"max_length": 10}),
    Route("POST", "/condense", "Conversation not found"),
    Route("POST", "/navigate", "Conversation not found", {"event_id": None}),
    Route("POST", "/fork", "Source conversation not found"),
    Route("POST", "/children", "Parent conversation not found", {"task": "x"}),
    Route("GET", "/agent_final_response"),
    Route("GET", "/events/search", UNDER_EVENTS),
    Route("GET", "/events/count", UNDER_EVENTS),
    Route("GET", "/events/abc", UNDER_EVENTS),
    Route("GET", "/events", UNDER_EVENTS, ["abc"]),
    Route("POST", "/events", UNDER_EVENTS, user_message("x")),
    Route("POST", "/events", UNDER_EVENTS, {"content": "bad"}),
    Route("POST", "/events", UNDER_EVENTS),
    Route("POST", "/events/respond_to_confirmation", UNDER_EVENTS, {"accept": True}),
    Route("POST", "/nosuchop"),
]


def route_id(route: Route) -> str:
    """How a route shows in a test's name."""
    return f"{route.method} {route.route or '/'}{' malformed' if route.content == {'content': 'bad'} else ''}"


def ask(there: Conversation, route: Route) -> httpx.Response:
    """Send the route's request."""
    return there.http.request(route.method, f"{there.path}{route.route}", json=route.content)


@pytest.mark.parametrize("route", ROUTES, ids=route_id)
def test_unknown_conversation_is_404(route: Route, conversation: Conversations) -> None:
    """Every route says so in the words clients of the published server know."""
    unknown = conversation.unknown()

    response = ask(unknown, route)

    assert response.status_code == 404
    assert response.json() == {"detail": route.detail.format(id=unknown.id)}


def test_unknown_id_is_printed_dashed_whatever_was_asked(conversation: Conversations) -> None:
    """The detail has the id in its usual form."""
    unknown = uuid4()

    response = conversation.handle(unknown.hex.upper()).get("/events/count")

    assert response.json() == {"detail": f"Conversation not found: {unknown}"}


def test_deleted_conversation_is_as_unknown_as_any(conversation: Conversations) -> None:
    """After a delete no route finds anything, though a runner had the conversation in hand a moment ago."""
    there = conversation()
    there.delete().raise_for_status()

    answers = {route_id(route): ask(there, route).status_code for route in ROUTES}

    assert set(answers.values()) == {404}, answers


@pytest.mark.parametrize("route", [route for route in ROUTES if route.route != "/nosuchop"], ids=route_id)
def test_id_that_is_no_uuid_is_422(route: Route, conversation: Conversations) -> None:
    """No route looks for what cannot be an id."""
    response = ask(conversation.handle("notauuid"), route)

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["path", "conversation_id"]


@pytest.mark.parametrize(
    ("operation", "content"),
    [
        ("pause", None),
        ("run", None),
        ("events", user_message("x")),
    ],
)
def test_nothing_is_made_by_asking(
    operation: str, content: object, conversation: Conversations, server: Server
) -> None:
    """A request to a conversation that is not there leaves no directory behind."""
    before = made(server)

    conversation.unknown().post(f"/{operation}", content)

    assert made(server) == before
