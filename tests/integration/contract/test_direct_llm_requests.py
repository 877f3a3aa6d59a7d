"""Agents whose requests litellm makes by itself, not through the `openai` package: the same runs, without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.demo.scripted_llm import API_KEY, ScriptedLlm
from tests.integration.contract.conversations import Conversations, agent_of, call
from tests.integration.contract.session import ends_run, event_source, is_transient
from tests.server_process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), {"OH_DIRECT_LLM_REQUESTS": "true"}) as running:
        yield running


def test_run_with_tools_does_without_the_other_package(conversation: Conversations, llm: ScriptedLlm) -> None:
    one = conversation()
    one.run_to("finished", call("think", thought="hm") + " && " + call("think", thought="ha"), "SAY done")
    assert [event["kind"] for event in one.events if event["source"] == "agent"][-3:] == [
        "ActionEvent",
        "ActionEvent",
        "MessageEvent",
    ]
    agents = {request.user_agent for request in llm.agent_requests}
    assert agents
    assert not [agent for agent in agents if "openai" in agent.lower()]


def test_headers_of_the_agents_arrive(conversation: Conversations, llm: ScriptedLlm) -> None:
    one = conversation(agent=agent_of(llm, extra_headers={"User-Agent": "mine"}))
    one.run_to("finished", "SAY done")
    assert (llm.agent_requests[-1].user_agent, llm.agent_requests[-1].api_key) == ("mine", API_KEY)


def test_answer_is_streamed(conversation: Conversations, llm: ScriptedLlm) -> None:
    one = conversation(agent=agent_of(llm, stream=True))
    with event_source(one) as source:
        source.until(is_transient)
        one.send("SAY one two", run=True)
        frames = source.until(ends_run)
    assert "".join(frame["content"] for frame in frames if frame["type"] == "delta") == "one two"


def test_refusal_is_told_with_its_reason(conversation: Conversations) -> None:
    one = conversation()
    one.run_to("error", "HTTP 400 no such thing")
    [error] = [event for event in one.events if event["kind"] == "ConversationErrorEvent"]
    assert error["code"] == "LLMBadRequestError"
    assert "no such thing" in error["detail"]


def test_request_in_flight_is_cut_off(conversation: Conversations, llm: ScriptedLlm) -> None:
    one = conversation()
    one.send("HOLD cut-off", "SAY never", run=True)
    llm.wait_held("cut-off")
    one.post("/interrupt").raise_for_status()
    assert one.status == "paused"
    llm.release("cut-off")
