"""The scripted LLM does what the user message tells it to, so that tests of agents are exact."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.demo.llm_script import DEFAULT_TURN, Hold, Sleep, ToolCall, Turn, parse_turns, turn_for
from service.demo.scripted_llm import COMPLETION_TOKENS, PROMPT_TOKENS, SIDE_ANSWER, ScriptedLlm

TOOLS = [{"type": "function", "function": {"name": "think"}}]
JsonObject = dict[str, Any]


def user(*parts: str) -> JsonObject:
    """A user message of these parts."""
    return {"role": "user", "content": [{"type": "text", "text": part} for part in parts]}


def assistant(text: str = "") -> JsonObject:
    """An assistant message."""
    return {"role": "assistant", "content": text}


def ask(llm: ScriptedLlm, *messages: JsonObject, **body: object) -> httpx.Response:
    """Send one chat completions request that offers a tool."""
    request = {"model": "any", "messages": list(messages), "tools": TOOLS} | body
    headers = {"authorization": "Bearer the-key"}
    return httpx.post(f"{llm.base_url}/chat/completions", json=request, headers=headers, timeout=10, trust_env=False)


def test_turns_follow_the_lines_of_the_last_user_message() -> None:
    """Each assistant message after the script takes one line of it; past the end the answer is `done`."""
    script = user("Please:\nSAY one\nnot a directive\nSAY two")
    before = [user("SAY old"), assistant("old")]

    assert turn_for([*before, script]).text == "one"
    assert turn_for([*before, script, assistant("one")]).text == "two"
    assert turn_for([*before, script, assistant("one"), assistant("two")]) == DEFAULT_TURN


def test_waits_belong_to_the_answer_after_them() -> None:
    """SLEEP and HOLD delay the next answer, and at the end of a script the default one."""
    assert parse_turns("SLEEP 0.5\nHOLD gate\nSAY late\nHOLD end") == [
        Turn(waits=(Sleep(0.5), Hold("gate")), text="late"),
        DEFAULT_TURN._replace(waits=(Hold("end"),)),
    ]


def test_calls_joined_on_one_line_are_one_turn() -> None:
    """A shell's own `&&` does not separate calls."""
    (turn,) = parse_turns('CALL terminal {"command": "a && b"} && CALL think {"thought": "c"}')

    assert turn.calls == (ToolCall("terminal", '{"command": "a && b"}'), ToolCall("think", '{"thought": "c"}'))


def test_refusal_stands_until_the_user_writes_again() -> None:
    """A refused request is refused again; with another message the script goes on after the refusal."""
    refused = turn_for([user("HTTP 500 broken\nSAY never")])
    recovered = turn_for([user("HTTP 500 broken", "SAY better")])

    assert refused.refusal == (500, "broken")
    assert recovered.text == "better"


def test_answer_has_text_and_usage(scripted_llm: ScriptedLlm) -> None:
    """SAY answers with its text, and the request is recorded with its key and prompt."""
    body = ask(scripted_llm, user("SAY hello there")).json()

    assert body["choices"][0]["message"] == {"role": "assistant", "content": "hello there"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] == PROMPT_TOKENS
    assert body["usage"]["completion_tokens"] == COMPLETION_TOKENS
    (request,) = scripted_llm.requests
    assert (request.api_key, request.tool_names, request.text) == ("the-key", ["think"], "SAY hello there")


def test_answer_has_tool_calls(scripted_llm: ScriptedLlm) -> None:
    """CALL answers with tool calls that have ids of their own."""
    script = 'CALL think {"thought": "a"} && CALL think {"thought": "b"}'
    choice = ask(scripted_llm, user(script)).json()["choices"][0]

    calls = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"thought": "a"}, {"thought": "b"}]
    assert calls[0]["id"] != calls[1]["id"]


@pytest.mark.parametrize(
    ("script", "content", "arguments"),
    [("SAY one two three", "one two three", ""), ('CALL think {"thought": "a"}', "", '{"thought": "a"}')],
)
def test_stream_adds_up_to_the_answer(scripted_llm: ScriptedLlm, script: str, content: str, arguments: str) -> None:
    """With `stream` the pieces make the same answer, then come the usage and the end mark."""
    lines = ask(scripted_llm, user(script), stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]

    assert "".join(delta.get("content") or "" for delta in deltas) == content
    pieces = [call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", [])]
    assert "".join(pieces) == arguments
    assert chunks[-1]["usage"]["prompt_tokens"] == PROMPT_TOKENS
    assert "data: [DONE]" in lines
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_stalled_stream_goes_on_when_it_is_released(scripted_llm: ScriptedLlm) -> None:
    """The first word is out by then."""
    body = {"stream": True, "tools": TOOLS, "messages": [{"role": "user", "content": "STALL gate\nSAY one two"}]}
    with httpx.stream("POST", f"{scripted_llm.base_url}/chat/completions", json=body) as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert [next(lines).count('"one"') for _ in range(2)] == [0, 1]
        scripted_llm.wait_held("gate")
        scripted_llm.release("gate")
        assert '" two"' in next(lines)


def test_http_line_answers_with_the_status(scripted_llm: ScriptedLlm) -> None:
    """HTTP answers with an error body as providers send it."""
    response = ask(scripted_llm, user("HTTP 429 slow down"))

    assert response.status_code == 429
    assert response.json()["error"]["message"] == "slow down"


def test_bad_script_is_told(scripted_llm: ScriptedLlm) -> None:
    """A directive that cannot be read is refused with its line, so a typo in a test is seen."""
    response = ask(scripted_llm, user("CALL think {thought}"))

    assert response.status_code == 400
    assert "CALL think {thought}" in response.json()["error"]["message"]


def test_request_without_tools_does_not_follow_the_script(scripted_llm: ScriptedLlm) -> None:
    """A title is asked for beside the run and quotes its script: it neither takes a turn nor stands at a gate."""
    body = ask(scripted_llm, user("HOLD gate\nSAY mine"), tools=None).json()

    assert body["choices"][0]["message"]["content"] == SIDE_ANSWER
    assert scripted_llm.agent_requests == []


def test_held_answer_comes_when_it_is_released(scripted_llm: ScriptedLlm) -> None:
    """HOLD keeps the answer back until the test lets it go, and tells the test that it does."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, scripted_llm, user("HOLD gate\nSAY at last"))
        scripted_llm.wait_held("gate")
        assert not answer.done()

        scripted_llm.release("gate")

        assert answer.result(10).json()["choices"][0]["message"]["content"] == "at last"
    with pytest.raises(TimeoutError, match="HOLD other"):
        scripted_llm.wait_held("other", timeout_seconds=0)


@pytest.mark.parametrize("wait", ["HOLD gate", "SLEEP 60"])
def test_close_does_not_wait_for_waiting_answers(wait: str) -> None:
    """Leaving the server lets go whatever is held or asleep."""
    with ScriptedLlm() as llm, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, llm, user(f"HOLD first\n{wait}\nSAY late"))
        llm.wait_held("first")
        llm.release("first")
        begin = time.monotonic()
        threading.Thread(target=llm.__exit__, args=(None, None, None)).start()
        answer.result(10)
    assert time.monotonic() - begin < 10
