"""The frames of a run on the events socket: which events, in which order, and what may be read when they arrive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.demo.scripted_llm import COMPLETION_TOKENS, PROMPT_TOKENS, ScriptedLlm
from tests.integration.contract.conversations import (
    Conversation,
    Conversations,
    JsonObject,
    agent_of,
    call,
    state_updates,
    write,
)
from tests.integration.contract.viewer import Viewer

Message = list[str]
"""The script lines of one user message."""

POSTED = ["user", "last_user_message_id"]
RUNNING = "execution_status=running"
FINISHED = ["execution_status=finished", "full_state=finished"]
ANSWERED = [RUNNING, "agent: ok", *FINISHED]


def think(thought: str) -> str:
    """The script line of the quickest tool call."""
    return call("think", thought=thought)


def order(lines: list[str]) -> list[str]:
    """The lines without the statistics, whose place between their neighbours is not fixed."""
    return [line for line in lines if line != "stats"]


def marked(viewer: Viewer, watched: Conversation) -> list[str]:
    """The lines until now: changes the tags and reads up to the news of it."""
    watched.patch({"tags": {"marker": "seen"}}).raise_for_status()
    return viewer.until("tags")[:-1]


def text_of(event: JsonObject) -> str:
    """The text of a message."""
    return "".join(part["text"] for part in event["llm_message"]["content"])


# A run from a message


def test_first_message_with_run_tells_every_step_in_order(conversation: Conversations) -> None:
    """From the system prompt to the final state each step is told once, the terminal status before the state."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send(think("first"), call("finish", message="bye"), run=True)
        lines = viewer.until("full_state=finished")

    assert order(lines) == [
        "SystemPromptEvent",
        *POSTED,
        RUNNING,
        *("call think", "result think", "call finish", "result finish"),
        *FINISHED,
    ]


def test_plain_answer_ends_the_run(conversation: Conversations) -> None:
    """An answer without a tool call is the agent's message, and the run is over."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send("SAY ok", run=True)

        assert order(viewer.until("full_state=finished")) == ["SystemPromptEvent", *POSTED, *ANSWERED]


def test_each_llm_call_is_told_by_one_statistics_update(conversation: Conversations) -> None:
    """Three requests to the LLM are three updates, each with the tokens used so far and without the lists of calls."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send(think("one"), think("two"), "SAY ok", run=True)
        viewer.until("full_state=finished")

    usages = [value["usage_to_metrics"]["agent"] for value in state_updates(viewer.frames, "stats")]
    tokens = [usage["accumulated_token_usage"] for usage in usages]
    assert [usage["prompt_tokens"] for usage in tokens] == [PROMPT_TOKENS * calls for calls in (1, 2, 3)]
    assert [usage["completion_tokens"] for usage in tokens] == [COMPLETION_TOKENS * calls for calls in (1, 2, 3)]
    assert not {"costs", "response_latencies", "token_usages"} & usages[0].keys()


def test_calls_of_an_llm_that_is_logged_are_events(
    conversation: Conversations, llm: ScriptedLlm, tmp_path: Path
) -> None:
    """One for each, told and stored; the file is for the client to write, not for the server."""
    folder = tmp_path / "completions"
    watched = conversation(agent=agent_of(llm, log_completions=True, log_completions_folder=str(folder)))

    with Viewer(watched) as viewer:
        watched.send(think("one"), "SAY ok", run=True)
        viewer.until("full_state=finished")

    told = [frame for frame in viewer.frames if frame["kind"] == "LLMCompletionLogEvent"]
    assert [event["usage_id"] for event in told] == ["agent"] * 2
    assert "one" in told[0]["log_data"]
    assert all(event["filename"].endswith(".json") for event in told)
    assert [event["id"] for event in told] == [
        event["id"] for event in watched.events if event["kind"] == "LLMCompletionLogEvent"
    ]
    assert not folder.exists()


def test_final_state_follows_every_event_of_the_run(conversation: Conversations) -> None:
    """When the state that ends a run arrives, nothing of that run is still to come, and it names the last event."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send(think("first"), call("finish", message="bye"), run=True)
        viewer.until("full_state=finished")

    before, final = viewer.frames[1:-1], viewer.frames[-1]
    assert [event["id"] for event in before] == [event["id"] for event in watched.events]
    result = next(event for event in before if event["kind"] == "ObservationEvent" and event["tool_name"] == "finish")
    assert final["value"]["leaf_event_id"] == result["id"]
    assert final["value"]["last_user_message_id"] == before[1]["id"]


def test_full_states_are_not_stored(conversation: Conversations) -> None:
    """Every state update of a run is in the log but the full states."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send("SAY ok", run=True)
        viewer.until("full_state=finished")

    assert state_updates(watched.events, "full_state") == []
    assert state_updates(watched.events, "execution_status") == ["running", "finished"]


def test_rest_tells_a_status_by_the_time_its_frame_arrives(conversation: Conversations, llm: ScriptedLlm) -> None:
    """A client that asks for the details of what it has just heard is not told an older status."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send("HOLD status-by-rest", "SAY ok", run=True)
        viewer.until(RUNNING)
        assert watched.status == "running"
        llm.release("status-by-rest")
        viewer.until("execution_status=finished")
        assert watched.status == "finished"
        assert watched.outline == ["user", "agent: ok"]


# Further messages


def test_message_without_run_reopens_a_finished_conversation(conversation: Conversations) -> None:
    """It becomes idle before the message is told, and no run starts."""
    watched = conversation()
    with Viewer(watched) as viewer:
        finished(watched, viewer)

        watched.send("SAY ok")

        assert marked(viewer, watched) == ["execution_status=idle", *POSTED]
        assert watched.status == "idle"


def test_run_after_a_message_tells_the_run_only(conversation: Conversations) -> None:
    """What was told when the message was posted is not told again."""
    watched = conversation()
    with Viewer(watched) as viewer:
        finished(watched, viewer)
        watched.send("SAY ok")
        viewer.until("last_user_message_id")

        watched.run_again()

        assert order(viewer.until("full_state=finished")) == ANSWERED


def test_message_on_the_socket_runs(conversation: Conversations) -> None:
    """A message that comes on the socket is told like one that was posted with `run`."""
    watched = conversation()
    with Viewer(watched) as viewer:
        finished(watched, viewer)

        with watched.socket() as sender:
            sender.send('{"role": "user", "content": "SAY ok"}')
            lines = viewer.until("full_state=finished")

    assert order(lines) == ["execution_status=idle", *POSTED, *ANSWERED]


def test_message_during_an_llm_call_is_answered_in_the_same_run(conversation: Conversations, llm: ScriptedLlm) -> None:
    """It is logged at once, behind the message being answered; a second LLM call follows, and one final state."""
    watched = conversation()
    with Viewer(watched) as viewer:
        watched.send("HOLD message-during-call", "SAY slow", run=True)
        llm.wait_held("message-during-call")
        viewer.until(RUNNING)
        watched.send("SAY second", run=True)
        assert viewer.until("last_user_message_id") == POSTED
        llm.release("message-during-call")
        lines = viewer.until("full_state=finished")

    assert order(lines) == ["agent: slow", "execution_status=finished", RUNNING, "agent: second", *FINISHED]
    messages = [event for event in viewer.frames if event["kind"] == "MessageEvent"]
    assert [text_of(event) for event in messages[1:3]] == ["SAY second", "slow"]
    assert messages[1]["parent_id"] == messages[0]["id"]
    assert messages[2]["parent_id"] == messages[1]["id"]


# What a message does in each status


def idle(watched: Conversation, viewer: Viewer) -> None:
    """A new conversation is idle."""


def paused(watched: Conversation, viewer: Viewer) -> None:
    watched.post("/pause").raise_for_status()
    viewer.until("full_state=paused")


def finished(watched: Conversation, viewer: Viewer) -> None:
    watched.send("SAY before", run=True)
    viewer.until("full_state=finished")


def failed(watched: Conversation, viewer: Viewer) -> None:
    watched.send("HTTP 400 no", run=True)
    viewer.until("full_state=error")


def stuck(watched: Conversation, viewer: Viewer) -> None:
    watched.send(*[think("the same")] * 4, run=True)
    viewer.until("full_state=stuck")


def waiting(watched: Conversation, viewer: Viewer) -> None:
    watched.post("/confirmation_policy", {"policy": {"kind": "AlwaysConfirm"}}).raise_for_status()
    watched.send(write(Path("/nowhere/never")), run=True)
    viewer.until("full_state=waiting_for_confirmation")


Prepare = Callable[[Conversation, Viewer], None]
PREPARED = [
    pytest.param(idle, "idle", ["SystemPromptEvent"], id="idle"),
    pytest.param(paused, "paused", ["SystemPromptEvent"], id="paused"),
    pytest.param(finished, "idle", ["execution_status=idle"], id="finished"),
    pytest.param(failed, "error", [], id="error"),
    pytest.param(stuck, "idle", ["execution_status=idle"], id="stuck"),
    pytest.param(waiting, "waiting_for_confirmation", [], id="waiting_for_confirmation"),
]


@pytest.mark.parametrize(("prepare", "status", "first"), PREPARED)
def test_message_without_run_leaves_the_status_or_reopens_it(
    prepare: Prepare, status: str, first: list[str], conversation: Conversations
) -> None:
    """Only finished and stuck become idle; nothing runs and nothing pending is decided."""
    watched = conversation.with_editor()
    with Viewer(watched) as viewer:
        prepare(watched, viewer)

        watched.send("SAY ok")

        assert marked(viewer, watched) == [*first, *POSTED]
        assert watched.status == status


@pytest.mark.parametrize(("prepare", "status", "first"), PREPARED)
def test_message_with_run_is_answered_from_every_status(
    prepare: Prepare, status: str, first: list[str], conversation: Conversations
) -> None:
    """The run starts; an action that waited for confirmation is rejected, not carried out."""
    watched = conversation.with_editor()
    if prepare is waiting:
        first = ["execution_status=idle", "rejected file_editor"]
    with Viewer(watched) as viewer:
        prepare(watched, viewer)

        watched.send("SAY ok", run=True)

        assert order(viewer.until("full_state=finished")) == [*first, *POSTED, *ANSWERED]
    assert "result file_editor" not in watched.outline


# Failures


def test_refused_key_fails_the_run_with_its_reason(conversation: Conversations) -> None:
    """The status, then why, then the final state; the reason says what a user can do about it."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send("HTTP 401 no such key", run=True)
        lines = viewer.until("full_state=error")

    assert lines[3:] == [RUNNING, "execution_status=error", "ConversationErrorEvent", "full_state=error"]
    error = viewer.frames[-2]
    assert error["source"] == "environment"
    assert error["code"] == "LLMAuthenticationError"
    assert error["detail"] == "Your LLM API key appears to be invalid or has expired."
    assert error["classification"] == {"kind": "auth", "retryable": False, "user_action": "settings"}


@pytest.mark.parametrize("round_", range(3))
def test_reason_of_a_failure_is_readable_when_its_status_is_told(round_: int, conversation: Conversations) -> None:
    """The SDK's client asks for the error event as soon as it hears of the status: both must be there by then."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send("HTTP 401 no such key", run=True)
        viewer.until("execution_status=error")
        status = watched.status
        errors = watched.get("/events/search", params={"kind": "ConversationErrorEvent"}).json()["items"]

    assert status == "error"
    assert [error["code"] for error in errors] == ["LLMAuthenticationError"]


def test_provider_refusal_is_told_in_the_providers_words(conversation: Conversations) -> None:
    """What the provider answered to a bad request is in the error event."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send("HTTP 400 the scripted refusal", run=True)
        viewer.until("full_state=error")

    error = viewer.frames[-2]
    assert error["code"] == "LLMBadRequestError"
    assert error["detail"] == "litellm.BadRequestError: OpenAIException - the scripted refusal"
    assert error["classification"] == {"kind": "config", "retryable": False, "user_action": "settings"}


def test_iteration_cap_is_an_error(conversation: Conversations, llm: ScriptedLlm) -> None:
    """A run that has used up its iterations ends in error after the last step, and says how many there were."""
    watched = conversation(max_iterations=2)
    asked = len(llm.agent_requests)

    with Viewer(watched) as viewer:
        watched.send(think("one"), think("two"), think("three"), run=True)
        lines = viewer.until("full_state=error")

    steps = ["call think", "result think"] * 2
    assert order(lines)[4:] == [*steps, "execution_status=error", "ConversationErrorEvent", "full_state=error"]
    error = next(event for event in viewer.frames if event["kind"] == "ConversationErrorEvent")
    assert error["code"] == "MaxIterationsReached"
    assert error["detail"] == "Agent reached maximum iterations limit (2)."
    assert error["classification"] == {"kind": "agent_action", "retryable": False, "user_action": "none"}
    assert len(llm.agent_requests) == asked + 2


def test_unknown_tool_is_told_to_the_agent_and_the_run_goes_on(conversation: Conversations) -> None:
    """The call is kept without an action, its error lists the tools there are, and the next step follows."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send(call("nosuch", a=1), "SAY ok", run=True)
        lines = viewer.until("full_state=finished")

    assert order(lines)[4:] == ["call nosuch", "error nosuch", "agent: ok", *FINISHED]
    attempt = next(event for event in viewer.frames if event["kind"] == "ActionEvent")
    error = next(event for event in viewer.frames if event["kind"] == "AgentErrorEvent")
    assert attempt.get("action") is None
    assert error["error"] == "Tool 'nosuch' not found. Available: ['finish', 'think']"
    assert error["tool_call_id"] == attempt["tool_call_id"]
    assert error["classification"] == {"kind": "agent_action", "retryable": True, "user_action": "retry"}


def test_wrong_tool_arguments_are_told_to_the_agent_and_the_run_goes_on(conversation: Conversations) -> None:
    """Arguments that do not validate are an error of the agent, not of the run."""
    watched = conversation()

    with Viewer(watched) as viewer:
        watched.send(call("think", bogus=1), "SAY ok", run=True)
        lines = viewer.until("full_state=finished")

    assert order(lines)[4:] == ["call think", "error think", "agent: ok", *FINISHED]
    error = next(event for event in viewer.frames if event["kind"] == "AgentErrorEvent")
    assert error["error"].startswith("Error validating tool 'think': 2 validation errors for ThinkAction\nthought\n")


@pytest.mark.parametrize(
    ("script", "calls"),
    [
        pytest.param([think("the same")] * 9, 4, id="four equal steps"),
        pytest.param([think("this"), think("that")] * 6, 6, id="six alternating steps"),
    ],
)
def test_loop_is_stuck(script: Message, calls: int, conversation: Conversations, llm: ScriptedLlm) -> None:
    """An agent that repeats itself is stopped after so many steps, without an error event."""
    watched = conversation()
    asked = len(llm.agent_requests)

    with Viewer(watched) as viewer:
        watched.send(*script, run=True)
        lines = viewer.until("full_state=stuck")

    assert len(llm.agent_requests) == asked + calls
    assert len(order(lines)[4:-2]) == 2 * calls
    assert order(lines)[-2:] == ["execution_status=stuck", "full_state=stuck"]
    assert watched.status == "stuck"


def test_loop_goes_on_where_detection_is_off(conversation: Conversations) -> None:
    """A conversation made without stuck detection repeats itself as often as its agent likes."""
    watched = conversation(stuck_detection=False)

    watched.run_to("finished", *[think("the same")] * 6, "SAY ok")

    assert watched.outline.count("call think") == 6
