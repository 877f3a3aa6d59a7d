"""Forking a conversation, and going on from another of its events."""

from __future__ import annotations

from uuid import UUID, uuid4

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import (
    PATH,
    Conversation,
    Conversations,
    JsonObject,
    agent_of,
    made,
    terminal,
    user_message,
)
from tests.server_process import Server


def forked(conversations: Conversations, source: Conversation, **body: object) -> Conversation:
    """A fork that the end of the test deletes."""
    response = source.post("/fork", body)
    assert response.status_code == 201, response.text
    return conversations.adopt(response.json()["id"])


def tree(events: list[JsonObject]) -> list[JsonObject]:
    """The events without state updates, which a branch leaves out."""
    return [event for event in events if event["kind"] != "ConversationStateUpdateEvent"]


def message_id(conversation: Conversation, number: int) -> str:
    """The id of a user's message; 0 is the first."""
    messages = [event for event in conversation.events if event["kind"] == "MessageEvent" and event["source"] == "user"]
    return str(messages[number]["id"])


def test_fork_has_the_events_and_goes_on_by_itself(conversation: Conversations) -> None:
    """The same ids and times; what either says later is its own; the agent remembers."""
    source = conversation(tags={"kept": "there"})
    source.run_to("finished", "SAY the first")

    response = source.post("/fork")
    fork = conversation.adopt(response.json()["id"])

    assert response.status_code == 201
    info = response.json()
    assert (info["execution_status"], info["runtime_info"]) == ("idle", None)
    assert (info["title"], info["tags"]) == (None, {})
    assert info["forked_from_conversation_id"] == source.id
    assert info["leaf_event_id"] == source.info["leaf_event_id"]
    assert info["workspace"] == source.info["workspace"]
    assert info["stats"]["usage_to_metrics"] == {}
    assert fork.events == source.events
    before = source.events
    fork.run_to("finished", "SAY the second")
    assert source.events == before
    assert fork.outline == [*source.outline, "user", "agent: the second"]
    assert source.info["sub_conversation_ids"] == []


def test_fork_is_as_was_asked_and_listed_at_once(conversation: Conversations, http: httpx.Client) -> None:
    """Id, title, tags and the costs so far."""
    source = conversation()
    source.run_to("finished", "SAY ok")
    wanted = {"id": str(uuid4()), "title": "Another", "tags": {"a": "b"}, "reset_metrics": False}

    fork = forked(conversation, source, **wanted)

    info = fork.info
    assert {name: info[name] for name in ("id", "title", "tags")} == {
        name: wanted[name] for name in ("id", "title", "tags")
    }
    assert info["stats"] == source.info["stats"]
    assert http.get(f"{PATH}/search").json()["items"][0]["id"] == fork.id


def test_fork_from_an_event_has_its_ancestors_only(conversation: Conversations) -> None:
    """No state updates, and the sequence is dense again."""
    source = conversation()
    source.run_to("finished", "SAY the first")
    source.run_to("finished", "SAY the second")
    second = message_id(source, 1)

    fork = forked(conversation, source, from_event_id=second)

    until = [event["id"] for event in tree(source.events)]
    assert [event["id"] for event in fork.events] == until[: until.index(second) + 1]
    assert (fork.info["leaf_event_id"], fork.info["last_user_message_id"]) == (second, second)
    assert fork.info["forked_from_event_id"] == second


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"from_event_id": "nothing"}, 404, "Unknown from_event_id: nothing"),
        ({"id": "no uuid"}, 422, None),
        ({"tags": {"Bad Key": "x"}}, 422, None),
        ({"title": "x" * 201}, 422, None),
    ],
)
def test_refused_fork_leaves_nothing(
    conversation: Conversations, server: Server, body: JsonObject, status: int, detail: str | None
) -> None:
    """Neither a directory nor a part of one."""
    source = conversation()
    source.run_to("finished", "SAY ok")
    before = made(server)

    response = source.post("/fork", body)

    assert response.status_code == status
    assert detail is None or response.json()["detail"] == detail
    assert made(server) == before


def test_id_of_another_conversation_is_409(conversation: Conversations) -> None:
    """The other is as it was."""
    source, other = conversation(), conversation()

    response = source.post("/fork", {"id": other.id})

    assert response.status_code == 409
    assert response.json()["detail"] == f"Conversation with id {other.id} already exists"
    assert other.info["forked_from_conversation_id"] is None


def test_repeated_fork_with_its_key_is_the_same(conversation: Conversations) -> None:
    """One fork, found again."""
    source = conversation()
    headers = {"Idempotency-Key": str(uuid4())}

    first = source.http.post(f"{source.path}/fork", headers=headers)
    again = source.http.post(f"{source.path}/fork", headers=headers)

    fork = conversation.adopt(first.json()["id"])
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == fork.id


def test_skills_are_told_on_request_only(conversation: Conversations, llm: ScriptedLlm) -> None:
    """Of a fork, of one that was made before with the same key, and of a conversation that has moved."""
    skill = {"name": "greeting", "content": "Say hello", "trigger": None}
    source = conversation(agent=agent_of(llm) | {"agent_context": {"skills": [skill]}})
    without = conversation(agent=agent_of(llm) | {"agent_context": {"skills": []}})

    def skills(source: Conversation, key: str, route: str, body: JsonObject, *, asked_for: bool) -> list[str]:
        response = source.http.post(
            f"{source.path}{route}", json=body, params={"include_skills": asked_for}, headers={"Idempotency-Key": key}
        )
        info = response.raise_for_status().json()
        conversation.adopt(info["id"])
        return [each["name"] for each in info["agent"]["agent_context"]["skills"]]

    for route, body in (("/fork", {}), ("/navigate", {"event_id": None})):
        for one, its in ((source, ["greeting"]), (without, [])):
            key = str(uuid4())
            told = [skills(one, key, route, body, asked_for=asked_for) for asked_for in (True, False, True)]
            assert told == [its, [], its], route


def test_fork_keeps_secrets_and_the_key_of_the_llm(conversation: Conversations, server: Server) -> None:
    """On disk encrypted, as those of its source."""
    source = conversation(secrets={"TOKEN": {"kind": "StaticSecret", "value": "hidden-value"}})
    fork = forked(conversation, source)

    state = (server.conversations_path / UUID(fork.id).hex / "base_state.json").read_text()
    assert "TOKEN" in fork.info["secret_registry"]["secret_sources"]
    assert "hidden-value" not in state
    fork.run_to("finished", "SAY the LLM was called with its key")


def test_fork_during_a_tool_does_not_wait_nor_do_its_work_again(conversation: Conversations) -> None:
    """The open call has an error as its result in the fork, and goes on in the source."""
    source = conversation.with_terminal()
    source.send(terminal("sleep 30"), "SAY done", run=True)
    source.wait_event("the call is made", lambda event: event["kind"] == "ActionEvent")

    fork = forked(conversation, source)

    assert fork.outline[-2:] == ["call terminal", "error terminal"]
    assert (source.status, fork.status) == ("running", "idle")
    fork.run_to("finished", "SAY here")
    assert fork.outline[-1] == "agent: here"
    source.post("/interrupt").raise_for_status()


def test_fork_outlives_its_source(conversation: Conversations) -> None:
    """They share no file."""
    source = conversation()
    source.run_to("finished", "SAY ok")
    fork = forked(conversation, source)
    outline = fork.outline

    source.delete().raise_for_status()

    assert fork.outline == outline
    fork.run_to("finished", "SAY still here")


def test_navigate_goes_on_from_another_event(conversation: Conversations) -> None:
    """Both branches stay in the log; the answer is that of the active one."""
    created = conversation()
    created.run_to("finished", "SAY the first")
    first = created.info["leaf_event_id"]
    created.run_to("finished", "SAY the second")
    told_at, length = created.info["updated_at"], len(created.events)

    response = created.post("/navigate", {"event_id": first})

    assert (response.status_code, response.json()["leaf_event_id"]) == (200, first)
    assert response.json()["runtime_info"] is None
    info = created.info
    assert (info["leaf_event_id"], info["updated_at"], info["execution_status"]) == (first, told_at, "finished")
    assert len(created.events) == length
    assert created.get("/agent_final_response").json() == {"response": "the first"}
    created.run_to("finished", "SAY the third")
    assert [line for line in created.outline if line.startswith("agent")] == [
        "agent: the first",
        "agent: the second",
        "agent: the third",
    ]
    third = next(event for event in created.events if event["id"] == message_id(created, 2))
    assert third["parent_id"] == first


@pytest.mark.parametrize("body", [{"event_id": None}, {}])
def test_navigate_to_the_beginning_makes_a_new_root(conversation: Conversations, body: JsonObject) -> None:
    """No event is the empty tree."""
    created = conversation()
    created.run_to("finished", "SAY the first")

    response = created.post("/navigate", body)

    assert (response.status_code, response.json()["leaf_event_id"]) == (200, None)
    created.send("SAY anew")

    assert [event.get("parent_id") for event in tree(created.events)].count("__root__") == 1


@pytest.mark.parametrize(("body", "status"), [({"event_id": "nothing"}, 404), (None, 422), ({"event_id": 5}, 422)])
def test_refused_navigation_moves_nothing(conversation: Conversations, body: JsonObject | None, status: int) -> None:
    """With the reason."""
    created = conversation()
    created.run_to("finished", "SAY ok")
    leaf = created.info["leaf_event_id"]

    response = created.post("/navigate", body)

    assert response.status_code == status
    assert status != 404 or response.json()["detail"] == "Unknown event_id: nothing"
    assert created.info["leaf_event_id"] == leaf


def test_navigate_during_a_run_is_409(conversation: Conversations) -> None:
    """It would move the branch under the agent."""
    created = conversation()
    gate = uuid4().hex
    created.post("/events", user_message(f"HOLD {gate}", "SAY ok", run=True)).raise_for_status()

    response = created.post("/navigate", {"event_id": None})

    created.llm.release(gate)
    assert response.status_code == 409
    created.wait_status("finished")
