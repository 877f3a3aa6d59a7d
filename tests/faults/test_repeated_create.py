"""A create is repeated with its key, by its client or by a web worker whose runner died with it."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.catalog.keys import Keys
from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.faults.owner import runner_id
from tests.integration.contract.conversations import PATH, Conversations, user_message
from tests.server_process import Server
from tests.waiting import wait_until

HEADER = "Idempotency-Key"


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[Server]:
    """A server whose first runner dies between the conversation and the first thing that is said in it."""
    command = [sys.executable, "-m", "tests.dying_runners", "serve", "--workers", "1", "--runners", "2"]
    with Server(tmp_path / "server", {}, command) as server:
        yield server


def test_repeated_create_is_answered_by_the_owner(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """However busy it is: the key tells whose the conversation is."""
    body = conversation.request(initial_message=user_message("HOLD gate", "SAY done"))
    headers = {HEADER: uuid.uuid4().hex}
    first = conversation.http.post(PATH, json=body, headers=headers).raise_for_status().json()
    scripted_llm.wait_held("gate")
    owner = runner_id(cluster.conversations_path, first["id"])
    loads, runners = cluster.redis.client, Keys("fanout").runners
    wait_until(lambda: loads.zscore(runners, owner), "its runner tells how loaded it is")
    again = conversation.http.post(PATH, json=body, headers=headers)
    assert again.status_code == 200, again.text
    assert again.json()["id"] == first["id"]
    assert runner_id(cluster.conversations_path, first["id"]) == owner
    scripted_llm.release("gate")
    one = conversation.handle(first["id"])
    one.wait_status("finished")
    assert one.outline == ["user", "agent: done"]


@pytest.mark.parametrize("chosen", [{}, {"conversation_id": str(uuid.uuid4())}], ids=["id of the key", "chosen id"])
def test_initial_message_is_said_though_the_runner_died_before(
    dying: Server, scripted_llm: ScriptedLlm, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    """Once, however often the create is repeated; neither another key nor none has it said again."""
    with httpx.Client(base_url=dying.url, timeout=30, trust_env=False) as http:
        conversations = Conversations(http, scripted_llm, str(tmp_path / "project"))
        body = conversations.request(initial_message=user_message("SAY hello"), **chosen)
        headers = {HEADER: uuid.uuid4().hex}
        made = http.post(PATH, json=body, headers=headers).raise_for_status().json()
        assert (dying.conversations_path / "has-died").exists()
        one = conversations.handle(made["id"])
        one.wait_status("finished")
        named = body | {"conversation_id": one.id}
        for again, others in ((body, headers), (named, {HEADER: uuid.uuid4().hex}), (named, {})):
            assert http.post(PATH, json=again, headers=others).json()["id"] == one.id
        assert one.outline == ["user", "agent: hello"]


def test_only_the_key_that_made_it_says_the_initial_message(
    conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """Who finds a conversation that was made without one says nothing in it."""
    one = conversation()
    body = conversation.request(conversation_id=one.id, initial_message=user_message("SAY hello"))
    for headers in ({}, {HEADER: uuid.uuid4().hex}):
        assert conversation.http.post(PATH, json=body, headers=headers).status_code == 200
    assert one.outline == []


def test_history_of_a_conversation_is_there_though_the_runner_died_before(
    dying: Server, scripted_llm: ScriptedLlm
) -> None:
    """Whoever speaks OpenAI's interface is answered by the next runner, which knows all that was said."""
    profiles = dying.directory / "home" / ".openhands" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "scripted.json").write_text(json.dumps(scripted_llm.settings))
    turns = [("user", "SAY the first"), ("assistant", "the first answer"), ("user", "SAY the second")]
    messages = [{"role": role, "content": content} for role, content in turns]
    with httpx.Client(base_url=dying.url, timeout=30, trust_env=False) as http:
        wanted = {"model": "openhands_scripted", "messages": messages}
        answer = http.post("/v1/chat/completions", json=wanted).raise_for_status().json()
    assert (dying.conversations_path / "has-died").exists()
    assert answer["choices"][0]["message"]["content"] == "the second"
    asked = [message["role"] for message in scripted_llm.agent_requests[-1].messages]
    assert asked == ["system", "user", "assistant", "user"]
