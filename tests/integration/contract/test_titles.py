"""Titles that conversations get by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from service.demo.scripted_llm import SIDE_ANSWER, LlmRequest, ScriptedLlm
from tests.integration.contract.conversations import Conversation, Conversations, user_message
from tests.server_process import Server, free_port
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with profiles of its own."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, {"OH_PERSISTENCE_DIR": str(directory / "kept")}) as running:
        yield running


def title_requests(llm: ScriptedLlm) -> list[LlmRequest]:
    return [request for request in llm.requests if not request.tool_names]


def wait_title(one: Conversation) -> str:
    return str(wait_until(lambda: one.info["title"], "the conversation has a title"))


@pytest.mark.parametrize("run", [False, True])
def test_first_message_gives_the_title(conversation: Conversations, llm: ScriptedLlm, *, run: bool) -> None:
    """The agent's LLM is asked once, at the agent's expense; lists show the title."""
    one = conversation(autotitle=True)
    before, created = len(title_requests(llm)), one.info["updated_at"]
    one.send("SAY order the books", run=run)
    assert wait_title(one) == SIDE_ANSWER
    if run:
        one.wait_status("finished")
    one.send("SAY and again")
    asked = title_requests(llm)[before:]
    assert len(asked) == 1
    assert "order the books" in asked[0].text
    listed = one.http.get("/api/conversations/search").json()["items"]
    assert SIDE_ANSWER in [each["title"] for each in listed if each["id"] == one.id]
    info = one.info
    assert info["updated_at"] > created
    costs = info["stats"]["usage_to_metrics"]["agent"]["token_usages"]
    assert len(costs) == 1 + run
    assert "title" not in [event.get("key") for event in one.events]


def test_what_has_a_title_is_not_asked_about(conversation: Conversations, llm: ScriptedLlm) -> None:
    """A client's own wins, and nobody is asked who does not want it; a message without words has none to give."""
    before = len(title_requests(llm))
    named, unwanted, silent = conversation(autotitle=True), conversation(autotitle=False), conversation(autotitle=True)
    named.patch({"title": "mine"}).raise_for_status()
    for one in (named, unwanted):
        one.run_to("finished", "SAY words")
    silent.post("/events", {"role": "user", "content": []}).raise_for_status()
    assert [one.info["title"] for one in (named, unwanted, silent)] == ["mine", None, None]
    assert len(title_requests(llm)) == before
    silent.send("SAY words")
    assert wait_title(silent) == SIDE_ANSWER


def test_profile_and_prompt_are_used(http: httpx.Client, conversation: Conversations, llm: ScriptedLlm) -> None:
    before = len(title_requests(llm))
    with ScriptedLlm() as other:
        http.post("/api/profiles/titles", json={"llm": other.settings}).raise_for_status()
        prompt = "Name it in {max_length}: {conversation_content}"
        one = conversation(autotitle=True, title_llm_profile="titles", prompt=prompt)
        one.send("SAY words")
        assert wait_title(one) == SIDE_ANSWER
        [asked] = other.requests
        assert "Name it in 50: SAY words" in asked.text
    assert len(title_requests(llm)) == before


def test_profile_that_does_not_exist_is_the_agents(conversation: Conversations) -> None:
    one = conversation(autotitle=True, title_llm_profile="nosuch")
    one.send("SAY words")
    assert wait_title(one) == SIDE_ANSWER


def test_llm_that_fails_leaves_the_messages_words(http: httpx.Client, conversation: Conversations) -> None:
    """And says so in the log; the run is not touched by it."""
    nobody = {"model": "openai/x", "base_url": f"http://127.0.0.1:{free_port()}/v1", "api_key": "k", "num_retries": 0}
    http.post("/api/profiles/nobody", json={"llm": nobody}).raise_for_status()
    one = conversation(autotitle=True, title_llm_profile="nobody")
    words = "SAY " + "a word " * 20
    one.post("/events", user_message(words, run=True)).raise_for_status()
    assert wait_title(one) == f"{words[:47]}..."
    one.wait_status("finished")
    assert [event["kind"] for event in one.events].count("ConversationErrorEvent") == 1
