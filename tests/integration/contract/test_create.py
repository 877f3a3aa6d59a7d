"""`POST /api/conversations`: what is made, and what is found again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from service.demo.scripted_llm import API_KEY, ScriptedLlm
from tests.integration.contract.conversations import (
    PATH,
    Conversations,
    JsonObject,
    agent_of,
    made,
    user_message,
    wait_status,
)
from tests.server_process import Server
from tests.waiting import wait_until

MAX_CONCURRENT_RUNS = 10
"""The server's default."""


# What is made


def test_create_answers_201_with_the_new_conversation(conversation: Conversations, project: Path) -> None:
    """A new conversation is idle, works where it was told to, and is answered in full."""
    response = conversation.create()

    assert response.status_code == 201
    info = response.json()
    assert str(UUID(info["id"])) == info["id"]
    assert info["execution_status"] == "idle"
    assert info["workspace"] == {"working_dir": str(project), "kind": "LocalWorkspace"}
    assert conversation.handle(info["id"]).info == info | {"runtime_info": AVAILABLE}


AVAILABLE = {"runtime_status": "available", "can_resume": True, "runtime_error": None}

DEFAULTS: JsonObject = {
    "max_iterations": 500,
    "stuck_detection": True,
    "execution_status": "idle",
    "confirmation_policy": {"kind": "NeverConfirm"},
    "security_analyzer": None,
    "activated_knowledge_skills": [],
    "invoked_skills": [],
    "blocked_actions": {},
    "blocked_messages": {},
    "last_user_message_id": None,
    "leaf_event_id": None,
    "stats": {"usage_to_metrics": {}},
    "secret_registry": {"secret_sources": {}},
    "agent_state": {},
    "hook_config": None,
    "title": None,
    "metrics": None,
    "forked_from_conversation_id": None,
    "forked_from_event_id": None,
    "parent_conversation_id": None,
    "sub_conversation_ids": [],
    "tags": {},
    "current_model_id": None,
    "available_models": [],
    "supports_runtime_model_switch": False,
    "launched_agent_profile": None,
    "client_tools": [],
    "tool_module_qualnames": {},
    "runtime_info": None,
}

CHOSEN_BY_SERVER_OR_CLIENT = {"id", "agent", "workspace", "persistence_dir", "created_at", "updated_at"}


@pytest.mark.parametrize("field", DEFAULTS)
def test_create_reply_has_the_default_of(field: str, created_info: JsonObject) -> None:
    """Each field of a conversation made with the least has its documented default."""
    assert field in created_info
    assert created_info[field] == DEFAULTS[field]


def test_create_reply_has_exactly_the_fields_of_conversation_info(created_info: JsonObject) -> None:
    """No field is missing and none is invented."""
    assert created_info.keys() == DEFAULTS.keys() | CHOSEN_BY_SERVER_OR_CLIENT


@pytest.fixture(scope="module")
def created_info(http: httpx.Client, llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> JsonObject:
    """The reply to the smallest create there is."""
    workspace = {"working_dir": str(tmp_path_factory.mktemp("least"))}
    response = http.post(PATH, json={"agent": agent_of(llm), "workspace": workspace})
    info: JsonObject = response.raise_for_status().json()
    http.delete(f"{PATH}/{info['id']}")
    return info


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("confirmation_policy", {"kind": "AlwaysConfirm"}),
        ("confirmation_policy", {"kind": "ConfirmRisky", "threshold": "LOW", "confirm_unknown": False}),
        ("security_analyzer", {"kind": "LLMSecurityAnalyzer"}),
        ("max_iterations", 7),
        ("stuck_detection", False),
        ("tags", {"team": "core", "env": "dev"}),
    ],
    ids=str,
)
def test_create_follows_the_choice_of(field: str, value: object, conversation: Conversations) -> None:
    """What the client chooses is in the reply and is what counts from then on."""
    response = conversation.create(**{field: value})

    assert response.status_code == 201
    assert response.json()[field] == value
    created = conversation.handle(response.json()["id"])
    assert created.info[field] == value
    with created.socket() as socket:
        assert json.loads(socket.recv(timeout=20))["value"][field] == value


def test_create_appends_no_event(conversation: Conversations) -> None:
    """The log stays empty until the first message or run, whatever was chosen."""
    created = conversation(confirmation_policy={"kind": "AlwaysConfirm"}, tags={"a": "b"})

    assert created.get("/events/count").json() == 0


def test_create_uses_the_id_it_is_given(conversation: Conversations, server: Server) -> None:
    """The client's own id is the conversation's, and undashed the name of its directory."""
    chosen = uuid4()

    response = conversation.create(conversation_id=str(chosen))

    assert response.status_code == 201
    assert response.json()["id"] == str(chosen)
    assert response.json()["persistence_dir"] == str(server.conversations_path / chosen.hex)
    assert (server.conversations_path / chosen.hex / "meta.json").is_file()


def test_create_makes_the_workspace_and_a_repository_in_it(conversation: Conversations, project: Path) -> None:
    """A working directory that is not there is made, and put under git."""
    workspace = project / "deep" / "down"

    conversation(workspace={"working_dir": str(workspace)})

    assert (workspace / ".git").is_dir()


def test_create_keeps_a_relative_working_directory_relative(conversation: Conversations, server: Server) -> None:
    """A relative path is below the server's own directory and is shown as it was given."""
    workspace = f"relative/{uuid4().hex}"

    created = conversation(workspace={"working_dir": workspace})

    assert created.info["workspace"]["working_dir"] == workspace
    assert (server.directory / workspace).is_dir()


def test_create_inside_a_repository_makes_no_other(conversation: Conversations, project: Path) -> None:
    """A working directory below a repository belongs to that one."""
    (project / ".git").mkdir()

    conversation(workspace={"working_dir": str(project / "below")})

    assert (project / "below").is_dir()
    assert not (project / "below" / ".git").exists()


def test_create_takes_an_agent_without_kind(conversation: Conversations, llm: ScriptedLlm) -> None:
    """An agent with an `llm` is an `Agent`."""
    response = conversation.create(agent={"llm": llm.settings, "tools": []})

    assert response.status_code == 201
    assert response.json()["agent"]["kind"] == "Agent"


def test_create_from_settings_builds_the_usual_agent(conversation: Conversations, llm: ScriptedLlm) -> None:
    """`agent_settings` alone gives an agent with the usual tools and a condenser."""
    response = conversation.create(agent=None, agent_settings={"llm": llm.settings})

    assert response.status_code == 201
    agent = response.json()["agent"]
    assert {"terminal", "file_editor", "task_tracker"} <= {tool["name"] for tool in agent["tools"]}
    assert agent["condenser"]["kind"] == "LLMSummarizingCondenser"
    assert agent["llm"]["model"] == llm.settings["model"]


def test_create_prefers_the_agent_over_settings(conversation: Conversations, llm: ScriptedLlm) -> None:
    """Where both are given, `agent` counts and `agent_settings` is not looked at."""
    response = conversation.create(agent_settings={"llm": {"model": "openai/another"}})

    assert response.status_code == 201
    assert response.json()["agent"]["llm"]["model"] == llm.settings["model"]


def test_create_ignores_unknown_fields(conversation: Conversations) -> None:
    """Fields of newer or older clients are no error."""
    response = conversation.create(stuck_detection_thresholds={"monologue": 3}, nonsense=1)

    assert response.status_code == 201


def test_create_hides_keys_and_secrets(conversation: Conversations) -> None:
    """The reply shows that there are an LLM key and secrets, never their values; nor does the disk."""
    secrets = {
        "TOKEN": {"kind": "StaticSecret", "value": "s3cret-of-create"},
        "LOOKED_UP": {
            "kind": "LookupSecret",
            "url": "http://127.0.0.1:9/x",
            "headers": {"Authorization": "Bearer s3cret-of-create", "x-a": "b"},
        },
    }

    info = conversation.create(secrets=secrets).json()

    assert info["agent"]["llm"]["api_key"] is None
    sources = info["secret_registry"]["secret_sources"]
    assert sources["TOKEN"] == {"kind": "StaticSecret", "value": None, "description": None}
    assert (sources["LOOKED_UP"]["url"], sources["LOOKED_UP"]["headers"]) == ("http://127.0.0.1:9/x", {"x-a": "b"})
    directory = Path(info["persistence_dir"])
    written = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert b"s3cret-of-create" not in written
    assert API_KEY.encode() not in written


def test_create_ignores_an_unimportable_module_of_an_unused_tool(conversation: Conversations) -> None:
    """Only the modules of tools the agent has must be there."""
    response = conversation.create(tool_module_qualnames={"other": "no.such.module"})

    assert response.status_code == 201


# The same id again


@pytest.mark.parametrize(
    "form",
    [str, lambda each: each.hex, lambda each: str(each).upper(), lambda each: f"{{{each}}}", lambda each: each.urn],
    ids=["dashed", "undashed", "upper-case", "braced", "urn"],
)
def test_create_with_a_known_id_answers_200_and_changes_nothing(form: Any, conversation: Conversations) -> None:
    """The conversation that has the id, in whatever spelling, is answered as it is."""
    chosen = uuid4()
    first = conversation(conversation_id=str(chosen), tags={"made": "first"})

    again = conversation.create(conversation_id=form(chosen), tags={"made": "again"}, max_iterations=3)

    assert again.status_code == 200
    assert again.json() | {"runtime_info": AVAILABLE} == first.info
    assert first.info["tags"] == {"made": "first"}


def test_create_with_a_known_id_ignores_the_initial_message(conversation: Conversations, llm: ScriptedLlm) -> None:
    """A second create sends nothing to the agent."""
    first = conversation(conversation_id=str(uuid4()))
    first.run_to("finished", "SAY the one answer")
    asked = len(llm.requests)

    again = conversation.create(conversation_id=first.id, initial_message=user_message("SAY another", run=True))

    assert again.status_code == 200
    assert again.json()["execution_status"] == "finished"
    assert first.outline == ["user", "agent: the one answer"]
    assert len(llm.requests) == asked


def test_concurrent_creates_with_one_id_make_one_conversation(conversation: Conversations, server: Server) -> None:
    """Of five clients at once one gets 201 and four get 200, all the same conversation."""
    chosen = uuid4()
    before = made(server)

    with ThreadPoolExecutor(5) as clients:
        answers = list(clients.map(lambda _: conversation.create(conversation_id=str(chosen)), range(5)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert {answer.json()["id"] for answer in answers} == {str(chosen)}
    assert made(server) - before == {chosen.hex}


# The initial message


@pytest.mark.parametrize("run", [True, False, None], ids=["run", "no-run", "unsaid"])
def test_create_runs_the_initial_message_whatever_its_run_flag(run: bool | None, conversation: Conversations) -> None:
    """A first message given at creation is always worked on."""
    message = user_message("SAY hello") | ({} if run is None else {"run": run})
    if run is None:
        del message["run"]

    created = conversation(initial_message=message)

    created.wait_status("finished")
    assert created.outline == ["user", "agent: hello"]


def test_create_does_not_wait_for_the_run_it_starts(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The reply comes while the LLM is still silent, says `idle`, and which event the message is."""
    response = conversation.create(initial_message=user_message("HOLD create-does-not-wait", "SAY late"))

    assert response.status_code == 201
    assert response.json()["execution_status"] == "idle"
    message_id = response.json()["last_user_message_id"]
    said = conversation.handle(response.json()["id"]).get(f"/events/{message_id}").raise_for_status().json()
    assert said["source"] == "user"
    llm.wait_held("create-does-not-wait")
    created = conversation.handle(response.json()["id"])
    assert created.status == "running"
    llm.release("create-does-not-wait")
    created.wait_status("finished")


def test_create_with_an_empty_initial_message_starts_a_run(conversation: Conversations) -> None:
    """A first message without content is a message all the same."""
    created = conversation(initial_message={"role": "user", "content": []})

    created.wait_status("finished")
    assert created.outline == ["user", "agent: done"]


# Sub-agents


def test_create_makes_the_clients_sub_agents_known_to_the_task_tool(
    conversation: Conversations, llm: ScriptedLlm
) -> None:
    """The LLM is offered an agent that only the client has defined."""
    definition = {"name": "contract-poet", "description": "Writes poems about contracts"}
    agent = agent_of(llm, {"name": "task_tool_set"})
    created = conversation(agent=agent, agent_definitions=[definition], initial_message=user_message("SAY hello"))

    created.wait_status("finished")
    assert "contract-poet" in json.dumps(llm.requests[-1].body["tools"])


def test_create_refuses_a_sub_agent_that_cannot_be_made(conversation: Conversations) -> None:
    """A definition that names an unknown skill is 422 with the reason."""
    definition = {"name": "contract-novice", "skills": ["no-such-skill"]}
    refused = conversation.create(agent_definitions=[definition])

    assert refused.status_code == 422
    assert "contract-novice" in refused.json()["detail"]
    assert "no-such-skill" in refused.json()["detail"]


# A full server


def test_create_on_a_full_server_is_429_and_a_known_id_is_200(
    conversation: Conversations, llm: ScriptedLlm, server: Server, http: httpx.Client
) -> None:
    """While every run slot is taken nothing new is made, what exists is found, and an ended run makes room."""
    script = user_message("HOLD full-server", "SAY ok")
    running = [conversation(initial_message=script) for _ in range(MAX_CONCURRENT_RUNS)]
    wait_until(lambda: all(each.status == "running" for each in running), "every slot is taken")
    before = made(server)

    refused = conversation.create()

    assert refused.status_code == 429
    assert refused.json() == {"detail": "Conversation run limit reached. Retry the request later."}
    assert int(refused.headers["retry-after"]) > 0
    assert made(server) == before
    assert conversation.create(conversation_id=running[0].id).status_code == 200

    llm.release("full-server")
    for each in running:
        wait_status(http, each.id, "finished")
    wait_until(lambda: conversation.create().status_code == 201, "there is room again")
