"""`POST /api/conversations`: what is refused, with what words, and without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from service.demo.scripted_llm import API_KEY, ScriptedLlm
from tests.integration.contract.conversations import (
    PATH,
    TERMINAL,
    Conversations,
    JsonObject,
    agent_of,
    made,
    user_message,
)
from tests.server_process import Server


@pytest.fixture
def nothing_made(server: Server, project: Path) -> Iterator[Path]:
    """A directory to be, for a create that is refused: neither it nor a conversation must be there afterwards."""
    workspace = project / "to-be"
    before = made(server)
    yield workspace
    assert made(server) == before
    assert not workspace.exists()


@pytest.mark.parametrize("role", ["assistant", "system", "tool"])
def test_create_refuses_an_initial_message_of_another_role(
    role: str, conversation: Conversations, nothing_made: Path
) -> None:
    """Only users talk to the agent; nothing is made for anyone else."""
    message = user_message("SAY hello") | {"role": role}

    refused = conversation.create(workspace={"working_dir": str(nothing_made)}, initial_message=message)

    assert refused.status_code == 422
    assert refused.json() == {"detail": "Only user messages are allowed to be sent to the agent."}


INVALID: dict[str, tuple[JsonObject, str, list[str | int]]] = {
    "no agent source": ({"agent": None}, "value_error", ["body"]),
    "profile and agent": ({"agent_profile_id": str(uuid4())}, "value_error", ["body"]),
    "profile and settings": (
        {"agent": None, "agent_settings": {}, "agent_profile_id": str(uuid4())},
        "value_error",
        ["body"],
    ),
    "unknown agent kind": ({"agent": {"kind": "Nope", "llm": {}}}, "value_error", ["body", "agent"]),
    "agent without llm": ({"agent": {"kind": "Agent"}}, "missing", ["body", "agent", "llm"]),
    "empty agent": ({"agent": {}}, "value_error", ["body", "agent"]),
    "llm without model": ({"agent": {"kind": "Agent", "llm": {}}}, "value_error", ["body", "agent", "llm"]),
    "unknown settings kind": ({"agent": None, "agent_settings": {"agent_kind": "nope"}}, "value_error", ["body"]),
    "id that is no uuid": ({"conversation_id": "notauuid"}, "uuid_parsing", ["body", "conversation_id"]),
    "id that is a number": ({"conversation_id": 5}, "uuid_type", ["body", "conversation_id"]),
    "no iterations": ({"max_iterations": 0}, "greater_than_equal", ["body", "max_iterations"]),
    "iterations in words": ({"max_iterations": "abc"}, "int_parsing", ["body", "max_iterations"]),
    "tag key with a space": ({"tags": {"Bad Name": "v"}}, "value_error", ["body", "tags"]),
    "tag value too long": ({"tags": {"ok": "v" * 257}}, "value_error", ["body", "tags"]),
    "plain text as secret": (
        {"secrets": {"A": "plain"}},
        "model_attributes_type",
        ["body", "secrets", "A"],
    ),
    "policy without kind": ({"confirmation_policy": {}}, "value_error", ["body", "confirmation_policy"]),
    "unknown policy": ({"confirmation_policy": {"kind": "Nope"}}, "value_error", ["body", "confirmation_policy"]),
    "unknown analyzer": ({"security_analyzer": {"kind": "Nope"}}, "value_error", ["body", "security_analyzer"]),
    "text as message content": (
        {"initial_message": {"content": "text"}},
        "list_type",
        ["body", "initial_message", "content"],
    ),
    "unknown message role": (
        {"initial_message": {"role": "robot"}},
        "literal_error",
        ["body", "initial_message", "role"],
    ),
    "stuck detection in words": ({"stuck_detection": "perhaps"}, "bool_parsing", ["body", "stuck_detection"]),
}


@pytest.mark.parametrize(("fields", "kind", "loc"), INVALID.values(), ids=INVALID.keys())
def test_create_refuses_what_does_not_validate(
    fields: JsonObject, kind: str, loc: list[str | int], conversation: Conversations, nothing_made: Path
) -> None:
    """What is wrong is said once, with its place in the body."""
    refused = conversation.create(workspace={"working_dir": str(nothing_made)}, **fields)

    assert refused.status_code == 422
    [problem] = refused.json()["detail"]
    assert (problem["type"], problem["loc"]) == (kind, loc)


def test_create_says_what_can_be_the_source_of_an_agent(conversation: Conversations, nothing_made: Path) -> None:
    """The text is the published server's."""
    refused = conversation.create(workspace={"working_dir": str(nothing_made)}, agent=None)

    [problem] = refused.json()["detail"]
    sources = "One of `agent`, `agent_settings`, or `agent_profile_id` must be provided"
    assert problem["msg"] == f"Value error, {sources}"


def test_create_without_agent_and_workspace_names_the_workspace_only(http: httpx.Client, nothing_made: Path) -> None:
    """A missing field hides what could only be found by looking at all of them."""
    refused = http.post(PATH, json={})

    assert refused.status_code == 422
    missing = {"type": "missing", "loc": ["body", "workspace"], "msg": "Field required", "input": {}}
    assert refused.json() == {"detail": [missing]}


MALFORMED: dict[str, JsonObject] = {
    "workspace without a directory": {"workspace": {}},
    "workspace as text": {"workspace": "x"},
    "model of the settings that is no text": {"agent": None, "agent_settings": {"llm": {"model": 5}}},
    "tag value that is no text": {"tags": {"ok": 3}},
    "tags as a list": {"tags": []},
    "remote workspace": {"workspace": {"working_dir": "/nowhere", "kind": "RemoteWorkspace"}},
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_create_refuses_malformed_values_without_failing(
    fields: JsonObject, conversation: Conversations, nothing_made: Path
) -> None:
    """Shapes the SDK's models stumble over are the client's mistake, with a reason, and not the server's failure."""
    refused = conversation.create(**({"workspace": {"working_dir": str(nothing_made)}} | fields))

    assert refused.status_code == 422
    assert refused.json()["detail"]


@pytest.mark.parametrize("content", [b"", b"{nope", b"[]", b'"text"', b"null"])
def test_create_refuses_a_body_that_is_no_object(content: bytes, http: httpx.Client, nothing_made: Path) -> None:
    """Whatever is no JSON object is 422 with the body named."""
    refused = http.post(PATH, content=content, headers={"content-type": "application/json"})

    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"][0] == "body"


def test_create_refuses_a_directory_that_cannot_be_made(conversation: Conversations, nothing_made: Path) -> None:
    """A working directory below a file is refused, and the answer says which and why."""
    file = nothing_made.parent / "file"
    file.touch()

    refused = conversation.create(workspace={"working_dir": str(file / "below")})

    assert refused.status_code == 422
    assert str(file / "below") in refused.json()["detail"]


def test_create_refuses_an_unknown_profile(conversation: Conversations, nothing_made: Path) -> None:
    """A profile nobody has saved is 404, by its id."""
    profile = uuid4()
    workspace = {"working_dir": str(nothing_made)}

    refused = conversation.create(workspace=workspace, agent=None, agent_profile_id=str(profile))

    assert refused.status_code == 404
    assert refused.json() == {"detail": f"Agent profile with id '{profile}' not found"}


def test_create_refuses_a_container_on_a_local_server(conversation: Conversations, nothing_made: Path) -> None:
    """A server without containers says so."""
    refused = conversation.create(workspace={"working_dir": str(nothing_made)}, conversation_runtime="docker")

    assert refused.status_code == 422
    assert refused.json() == {"detail": "This server only runs local conversations"}


def test_create_refuses_a_tool_that_is_not_registered(
    conversation: Conversations, llm: ScriptedLlm, nothing_made: Path
) -> None:
    """A tool nobody knows is named at once, not at the first message."""
    agent = agent_of(llm, TERMINAL, {"name": "no_such_tool"})

    refused = conversation.create(workspace={"working_dir": str(nothing_made)}, agent=agent)

    assert refused.status_code == 422
    assert "not registered: no_such_tool" in refused.json()["detail"]


def test_create_refuses_a_param_that_a_tool_does_not_have(
    conversation: Conversations, llm: ScriptedLlm, nothing_made: Path
) -> None:
    """Which would fail with the first message; beside it is one that the tool has, and one that every tool has."""
    params = {"no_change_timeout_seconds": 9, "response_schema": {"type": "object"}, "no_such_param": 1}
    agent = agent_of(llm, {"name": "terminal", "params": params})

    refused = conversation.create(workspace={"working_dir": str(nothing_made)}, agent=agent)

    assert refused.status_code == 422
    assert refused.json()["detail"].endswith("cannot have: got an unexpected keyword argument 'no_such_param'")


def test_create_refuses_a_used_tool_whose_module_cannot_be_imported(
    conversation: Conversations, llm: ScriptedLlm, nothing_made: Path
) -> None:
    """A tool of the agent whose declared module is not there is named."""
    refused = conversation.create(
        workspace={"working_dir": str(nothing_made)},
        agent=agent_of(llm, {"name": "custom"}),
        tool_module_qualnames={"custom": "no.such.module"},
    )

    assert refused.status_code == 422
    expected = "The agent uses tools whose modules the agent server cannot import: 'custom' ("
    assert refused.json()["detail"].startswith(expected)


def test_settings_that_no_agent_can_be_made_of_are_refused_with_a_code(http: httpx.Client, nothing_made: Path) -> None:
    """As an agent profile is that cannot be launched."""
    wanted = {
        "agent_settings": {"agent_kind": "acp", "acp_server": "custom"},
        "workspace": {"working_dir": str(nothing_made)},
    }
    refused = http.post(PATH, json=wanted)
    assert (refused.status_code, refused.json()["detail"]["code"]) == (422, "invalid_agent_launch")
    assert "acp_command" in refused.json()["detail"]["message"]


def test_refusal_does_not_repeat_keys(conversation: Conversations, llm: ScriptedLlm, nothing_made: Path) -> None:
    """The input a refusal shows has the LLM's key and secrets taken out."""
    refused = conversation.create(
        workspace={"working_dir": str(nothing_made)},
        agent={"kind": "Nope", "llm": llm.settings},
        agent_settings={"llm": {"api_key": "another-key"}},
    )

    assert refused.status_code == 422
    assert refused.json()["detail"][0]["input"]["llm"]["api_key"] == "<redacted>"
    assert API_KEY not in refused.text
    assert "another-key" not in refused.text
