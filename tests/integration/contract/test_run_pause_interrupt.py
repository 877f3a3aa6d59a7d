"""`run`, `pause` and `interrupt`: from which status they do what, and what a viewer sees of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversations, call, terminal, user_message, write
from tests.integration.contract.viewer import Viewer
from tests.waiting import wait_until

MAX_CONCURRENT_RUNS = 10
"""The server's default."""

CONFIRM = "/events/respond_to_confirmation"
INTERRUPTED = "Tool call interrupted before completion. The conversation was paused."


def think(thought: str = "one step at a time") -> str:
    """The script line of the quickest tool call."""
    return call("think", thought=thought)


def asked(llm: ScriptedLlm) -> int:
    """How often agents have asked the LLM so far."""
    return len(llm.agent_requests)


# Run


def test_run_answers_before_the_run_is_over(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The reply comes at once, from then on the status is `running`, and the end is told on the socket."""
    created = conversation()
    created.send("HOLD run-in-background", "SAY ok")

    with Viewer(created) as viewer:
        response = created.post("/run")

        assert (response.status_code, response.json()) == (200, {"success": True})
        assert created.status == "running"
        llm.wait_held("run-in-background")
        llm.release("run-in-background")
        lines = viewer.until("full_state=finished")
    assert lines == [
        "execution_status=running",
        "stats",
        "agent: ok",
        "execution_status=finished",
        "full_state=finished",
    ]


def test_run_takes_no_notice_of_a_body(conversation: Conversations) -> None:
    """A body is neither needed nor read."""
    created = conversation()
    created.send("SAY ok")

    response = created.http.post(f"{created.path}/run", content=b"{nope", headers={"content-type": "text/plain"})

    assert response.status_code == 200
    created.wait_status("finished")


def test_run_while_running_is_409(conversation: Conversations, llm: ScriptedLlm) -> None:
    """There is one run at a time, and the second request says so at once."""
    created = conversation(initial_message=user_message("HOLD double-run", "SAY ok"))
    llm.wait_held("double-run")

    response = created.post("/run")

    assert response.status_code == 409
    assert response.json() == {"detail": "Conversation already running. Wait for completion or pause first."}
    llm.release("double-run")
    created.wait_status("finished")
    assert created.outline == ["user", "agent: ok"]


def test_concurrent_runs_start_one(conversation: Conversations, llm: ScriptedLlm) -> None:
    """Of five requests at once one gets 200 and four get 409; the LLM is asked once."""
    created = conversation()
    created.send("HOLD five-runs", "SAY ok")
    before = asked(llm)

    with ThreadPoolExecutor(5) as clients:
        answers = list(clients.map(lambda _: created.post("/run").status_code, range(5)))

    assert sorted(answers) == [200, 409, 409, 409, 409]
    llm.wait_held("five-runs")
    llm.release("five-runs")
    created.wait_status("finished")
    assert asked(llm) == before + 1


def test_run_of_a_paused_conversation_goes_on(conversation: Conversations) -> None:
    """A pause before the run does not keep it from starting."""
    created = conversation()
    created.post("/pause").raise_for_status()
    created.send("SAY resumed")
    assert created.status == "paused"

    created.run()

    created.wait_status("finished")
    assert created.outline == ["PauseEvent", "user", "agent: resumed"]


def test_run_after_an_error_tries_again(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The failed request is made again; that it fails again is told by status and events, not by the reply."""
    created = conversation()
    with Viewer(created) as viewer:
        created.send("HTTP 400 no such luck", run=True)
        viewer.until("full_state=error")
        before = asked(llm)

        created.run_again()

        assert viewer.until("full_state=error")[0] == "execution_status=running"
    assert asked(llm) == before + 1
    failures = [event for event in created.events if event["kind"] == "ConversationErrorEvent"]
    assert len(failures) == 2
    assert all("no such luck" in failure["detail"] for failure in failures)


def test_run_of_a_stuck_conversation_is_stuck_again(conversation: Conversations, llm: ScriptedLlm) -> None:
    """An agent that repeats itself is stopped, and stays so until the user says something new."""
    created = conversation()
    with Viewer(created) as viewer:
        created.send(*[think()] * 8, run=True)
        viewer.until("full_state=stuck")
        before = asked(llm)

        created.run_again()

        lines = viewer.until("full_state=stuck")
    statuses = [line for line in lines if line.startswith("execution")]
    assert statuses == ["execution_status=running", "execution_status=stuck"]
    assert asked(llm) == before
    created.run_to("finished", "SAY something else")


def test_run_of_a_finished_conversation_only_tells_the_state(conversation: Conversations, llm: ScriptedLlm) -> None:
    """With nothing left to do the LLM is not asked, nothing is logged and viewers get the state once more."""
    created = conversation()
    with Viewer(created) as viewer:
        created.send("SAY ok", run=True)
        viewer.until("full_state=finished")
        before = (asked(llm), len(created.events))

        created.run_again()

        assert viewer.until("full_state=finished") == ["full_state=finished"]

    assert created.status == "finished"
    assert (asked(llm), len(created.events)) == before


def test_run_without_any_message_asks_the_llm_all_the_same(conversation: Conversations, llm: ScriptedLlm) -> None:
    """Only the system prompt is sent."""
    created = conversation()

    created.run()

    created.wait_status("finished")
    assert created.outline == ["agent: done"]
    assert [message["role"] for message in llm.agent_requests[-1].messages] == ["system"]


def test_run_stops_at_its_maximum_of_iterations(conversation: Conversations, llm: ScriptedLlm) -> None:
    """A run of `max_iterations` steps without an end is an error with that name."""
    created = conversation(max_iterations=2)

    created.run_to("error", think("one"), think("two"), think("three"))

    failure = created.wait_event("the error is logged", lambda event: event["kind"] == "ConversationErrorEvent")
    assert failure["code"] == "MaxIterationsReached"
    assert created.outline.count("call think") == 2


def test_failed_run_is_told_by_events(conversation: Conversations) -> None:
    """The reply to `run` is 200; status and the provider's words come as events, and the status last."""
    created = conversation()
    created.send("HTTP 400 the scripted refusal")

    with Viewer(created) as viewer:
        assert created.post("/run").status_code == 200
        lines = viewer.until("full_state=error")

    assert "ConversationErrorEvent" in lines
    assert "execution_status=error" in lines
    [failure] = [frame for frame in viewer.frames if frame["kind"] == "ConversationErrorEvent"]
    assert "the scripted refusal" in failure["detail"]


def test_run_on_a_full_server_is_429(conversation: Conversations, llm: ScriptedLlm, project: Path) -> None:
    """While every slot is taken no run starts: not by `run`, not by accepting, not by a message, which is kept."""
    idle = conversation()
    idle.send("SAY ran later")
    asking = conversation.with_editor(confirmation_policy={"kind": "AlwaysConfirm"})
    asking.run_to("waiting_for_confirmation", write(project / "accepted"), "SAY ok")
    script = user_message("HOLD full-of-runs", "SAY ok")
    running = [conversation(initial_message=script) for _ in range(MAX_CONCURRENT_RUNS)]
    wait_until(lambda: all(each.status == "running" for each in running), "every slot is taken")

    refused = [idle.post("/run"), asking.post("/run"), asking.post(CONFIRM, {"accept": True})]
    kept = idle.post("/events", user_message("SAY the kept one", run=True))
    further = running[0].post("/events", user_message("SAY more", run=True))

    for response in refused:
        assert response.status_code == 429
        assert response.json() == {"detail": "Conversation run limit reached. Retry the request later."}
    assert kept.status_code == 429
    assert kept.json()["detail"] == (
        "Message saved, but the conversation run limit was reached. "
        f"Retry POST /api/conversations/{idle.id}/run without resending the message."
    )
    assert idle.outline == ["user", "user"]
    assert (idle.status, asking.status) == ("idle", "waiting_for_confirmation")
    assert not (project / "accepted").exists()
    assert further.status_code == 200

    llm.release("full-of-runs")
    wait_until(lambda: idle.post("/run").status_code == 200, "a slot is free again")
    idle.wait_status("finished")
    assert idle.outline == ["user", "user", "agent: ran later"]
    assert any("the kept one" in request.text for request in llm.agent_requests)


# Pause


def test_pause_of_an_idle_conversation(conversation: Conversations) -> None:
    """The status changes, the pause is logged as the user's, and the state follows."""
    created = conversation()

    with Viewer(created) as viewer:
        response = created.post("/pause")

        assert (response.status_code, response.json()) == (200, {"success": True})
        assert created.status == "paused"
        assert viewer.until("full_state=paused") == ["execution_status=paused", "PauseEvent", "full_state=paused"]
    [pause] = [event for event in created.events if event["kind"] == "PauseEvent"]
    assert pause["source"] == "user"


def test_pause_does_not_cancel_the_llm_call(conversation: Conversations, llm: ScriptedLlm) -> None:
    """It answers while the LLM is silent; what the LLM then says is still done, and no further step is taken."""
    created = conversation(initial_message=user_message("HOLD pause-llm", think(), "SAY after"))
    llm.wait_held("pause-llm")
    before = asked(llm)

    with Viewer(created) as viewer:
        created.post("/pause").raise_for_status()
        assert viewer.until("full_state=paused") == ["execution_status=paused", "PauseEvent", "full_state=paused"]
        llm.release("pause-llm")
        assert viewer.until("full_state=paused") == ["stats", "call think", "result think", "full_state=paused"]

    assert created.status == "paused"
    assert created.outline == ["user", "PauseEvent", "call think", "result think"]
    assert asked(llm) == before


def test_run_after_a_pause_resumes_the_turn(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The next run takes the step that the pause kept from being taken."""
    created = conversation(initial_message=user_message("HOLD pause-resume", think(), "SAY after"))
    llm.wait_held("pause-resume")
    created.post("/pause").raise_for_status()
    llm.release("pause-resume")

    created.run_again()
    created.wait_status("finished")

    assert created.outline == ["user", "PauseEvent", "call think", "result think", "agent: after"]


# Interrupt


def test_interrupt_of_an_idle_conversation_pauses(conversation: Conversations) -> None:
    """With nothing to cancel it is a pause."""
    created = conversation()

    with Viewer(created) as viewer:
        response = created.post("/interrupt")

        assert (response.status_code, response.json()) == (200, {"success": True})
        assert created.status == "paused"
        assert viewer.until("full_state=paused") == ["execution_status=paused", "PauseEvent", "full_state=paused"]


def test_interrupt_cancels_the_llm_call(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The LLM's answer is not waited for: when the reply is there the conversation is paused and says by whom."""
    created = conversation(initial_message=user_message("HOLD interrupt-llm", "SAY late"))
    llm.wait_held("interrupt-llm")

    with Viewer(created) as viewer:
        assert created.post("/interrupt").json() == {"success": True}

        assert created.status == "paused"
        assert viewer.until("full_state=paused") == ["execution_status=paused", "InterruptEvent", "full_state=paused"]
    [interrupt] = [event for event in created.events if event["kind"] == "InterruptEvent"]
    assert interrupt["source"] == "user"
    assert created.outline == ["user", "InterruptEvent"]
    llm.release("interrupt-llm")


def test_run_after_an_interrupt_asks_again(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The cancelled request is made anew; the cancelled answer never appears."""
    created = conversation(initial_message=user_message("HOLD interrupt-run", "SAY late"))
    llm.wait_held("interrupt-run")
    created.post("/interrupt").raise_for_status()
    llm.release("interrupt-run")
    before = asked(llm)

    created.run()
    created.wait_status("finished")

    assert created.outline == ["user", "InterruptEvent", "agent: late"]
    assert asked(llm) == before + 1


def test_interrupt_cancels_the_tool(conversation: Conversations, project: Path) -> None:
    """The open call gets an error instead of a result, and the next run goes on without it."""
    created = conversation.with_terminal()
    with Viewer(created) as viewer:
        created.send(terminal(f"touch {project}/started; sleep 60"), "SAY after", run=True)
        wait_until((project / "started").exists, "the command is running")
        viewer.until("call terminal")

        assert created.post("/interrupt").json() == {"success": True}

        assert created.status == "paused"
        lines = viewer.until("full_state=paused")
    assert lines == ["error terminal", "execution_status=paused", "InterruptEvent", "full_state=paused"]
    [error] = [event for event in created.events if event["kind"] == "AgentErrorEvent"]
    assert error["error"] == INTERRUPTED
    created.run()
    created.wait_status("finished")
    assert created.outline == ["user", "call terminal", "error terminal", "InterruptEvent", "agent: after"]


# At rest


@pytest.fixture(params=["paused", "finished", "error", "waiting_for_confirmation"])
def settled(request: pytest.FixtureRequest, conversation: Conversations, project: Path) -> Iterator[Viewer]:
    """A viewer of a conversation at rest in the status that is the parameter, who has seen how it came to that."""
    scripts = {"finished": "SAY ok", "error": "HTTP 400 refused", "waiting_for_confirmation": write(project / "never")}
    created = conversation.with_editor(confirmation_policy={"kind": "AlwaysConfirm"})
    with Viewer(created) as viewer:
        if request.param == "paused":
            created.post("/pause").raise_for_status()
        else:
            created.send(scripts[request.param], run=True)
        viewer.until(f"full_state={request.param}")
        yield viewer


@pytest.mark.parametrize("operation", ["pause", "interrupt"])
def test_at_rest_only_the_state_is_told(operation: str, settled: Viewer) -> None:
    """Where nothing runs and the status is not `idle`, pausing and interrupting change nothing."""
    before = settled.conversation.info
    state_line = f"full_state={before['execution_status']}"

    response = settled.conversation.post(f"/{operation}")

    assert (response.status_code, response.json()) == (200, {"success": True})
    assert settled.until(state_line) == [state_line]
    assert settled.conversation.info == before
