"""Goals and condensation: what the LLM is asked beside the agent's steps."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import (
    Conversation,
    Conversations,
    JsonObject,
    agent_of,
    state_updates,
    user_message,
)
from tests.waiting import wait_until

REACHED = {"score": 1.0, "complete": True, "missing": ""}
MISSED = {"score": 0.2, "complete": False, "missing": "all of it"}


def said(verdict: JsonObject) -> str:
    """An objective whose judge says this."""
    return f"JUDGE {json.dumps(verdict)}"


def goal_updates(conversation: Conversation) -> list[JsonObject]:
    """The goal's statuses in the log, without the objective."""
    return [{**value, "objective": None} for value in state_updates(conversation.events, "goal")]


def wait_goal(conversation: Conversation, status: str) -> list[JsonObject]:
    """Wait until the goal has ended like this; what the log tells of it."""
    return wait_until(
        lambda: (told := goal_updates(conversation)) and told[-1]["status"] == status and told or [],
        f"the goal is {status}",
    )


def update(status: str, iteration: int, verdict: JsonObject | None, limit: int = 10) -> JsonObject:
    """One status as it is told; null fields are left out of the log."""
    value: dict[str, Any] = {
        "active": status == "running",
        "status": status,
        "iteration": iteration,
        "max_iterations": limit,
        "objective": None,
        "verdict": verdict,
    }
    return value


def test_goal_ends_when_the_judge_is_content(conversation: Conversations) -> None:
    """One run, one judgement."""
    created = conversation()

    response = created.post("/goal", {"objective": said(REACHED)})

    assert (response.status_code, response.json()) == (200, {"success": True})
    assert wait_goal(created, "complete") == [update("running", 0, None), update("complete", 1, REACHED)]
    assert created.outline == ["user", "agent: done"]
    assert created.status == "finished"


def test_goal_is_given_up_after_so_many_rounds(conversation: Conversations) -> None:
    """Each round but the first is told what is missing."""
    created = conversation()
    created.post("/goal", {"objective": said(MISSED), "max_iterations": 2}).raise_for_status()

    told = wait_goal(created, "capped")

    assert told == [update("running", 0, None, 2), update("running", 1, MISSED, 2), update("capped", 2, MISSED, 2)]
    messages = [event for event in created.events if event["kind"] == "MessageEvent" and event["source"] == "user"]
    assert len(messages) == 2
    assert "all of it" in messages[1]["llm_message"]["content"][0]["text"]


def test_goal_goes_on_until_it_is_reached(conversation: Conversations) -> None:
    """The agent is told what is missing, and does it."""
    created = conversation()
    created.post("/goal", {"objective": f"{said(MISSED)}\n{said(REACHED)}"}).raise_for_status()

    told = wait_goal(created, "complete")

    assert [(value["iteration"], value["verdict"]) for value in told] == [(0, None), (1, MISSED), (2, REACHED)]


def test_repetition_of_a_message_does_not_end_a_goal(conversation: Conversations) -> None:
    """It has had its effect before; another message ends it."""
    created = conversation()
    headers, gate = {"Idempotency-Key": uuid4().hex}, uuid4().hex
    path = f"{created.path}/events"
    created.http.post(path, json=user_message("hello"), headers=headers).raise_for_status()
    created.post("/goal", {"objective": f"HOLD {gate}\n{said(REACHED)}"}).raise_for_status()
    created.llm.wait_held(gate)
    created.http.post(path, json=user_message("hello"), headers=headers).raise_for_status()
    created.llm.release(gate)
    assert [value["status"] for value in wait_goal(created, "complete")] == ["running", "complete"]


def test_stopped_goal_lets_the_run_go_on_and_can_be_resumed(conversation: Conversations) -> None:
    """The status says so at once."""
    created = conversation()
    gate = uuid4().hex
    objective = f"HOLD {gate}\n{said(REACHED)}"
    created.post("/goal", {"objective": objective}).raise_for_status()
    created.wait_status("running")

    assert created.post("/goal", {"objective": "another"}).status_code == 409
    assert created.post("/goal/resume").status_code == 409
    created.post("/goal/stop").raise_for_status()

    assert wait_goal(created, "interrupted")[-1]["active"] is False
    assert created.status == "running"
    created.llm.release(gate)
    created.wait_status("finished")
    wait_until(lambda: created.post("/goal/resume").status_code == 200, "the goal is resumed")
    wait_goal(created, "complete")


@pytest.mark.parametrize("route", ["/events", "/pause", "/interrupt"])
def test_client_that_intervenes_ends_the_goal(conversation: Conversations, route: str) -> None:
    """Whoever writes, pauses or interrupts takes over."""
    created = conversation()
    gate = uuid4().hex
    created.post("/goal", {"objective": f"HOLD {gate}\n{said(REACHED)}"}).raise_for_status()
    created.wait_status("running")

    response = created.post(route, user_message("SAY as I say") if route == "/events" else None)

    created.llm.release(gate)
    assert response.status_code == 200
    wait_goal(created, "interrupted")


def test_run_that_fails_ends_the_goal(conversation: Conversations) -> None:
    """There is nothing to judge."""
    created = conversation()
    created.post("/goal", {"objective": "HTTP 400 no"}).raise_for_status()

    wait_goal(created, "interrupted")

    assert created.status == "error"


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"objective": "  "}, 400, "Goal objective must not be empty."),
        ({"objective": "x", "max_iterations": 0}, 422, None),
        ({}, 422, None),
    ],
)
def test_refused_goal(conversation: Conversations, body: JsonObject, status: int, detail: str | None) -> None:
    """Nothing is told or run."""
    created = conversation()

    response = created.post("/goal", body)

    assert response.status_code == status
    assert detail is None or response.json()["detail"] == detail
    assert created.outline == []


def test_stop_and_resume_without_a_goal(conversation: Conversations) -> None:
    """The one is done, the other cannot be."""
    created = conversation()

    assert created.post("/goal/stop").status_code == 200
    response = created.post("/goal/resume")

    assert (response.status_code, response.json()["detail"]) == (400, "no_resumable_goal")


def test_goal_that_is_reached_is_not_resumed(conversation: Conversations) -> None:
    """Nor one that was given up."""
    created = conversation()
    created.post("/goal", {"objective": said(REACHED)}).raise_for_status()
    wait_goal(created, "complete")

    assert created.post("/goal/resume").status_code == 400


def test_goal_during_a_run_is_409(conversation: Conversations) -> None:
    """The run is a client's."""
    created = conversation()
    gate = uuid4().hex
    created.send(f"HOLD {gate}", "SAY ok", run=True)

    refused = [created.post("/goal", {"objective": said(REACHED)}), created.post("/goal/resume")]

    created.llm.release(gate)
    for response in refused:
        assert response.status_code == 409
        assert response.json()["detail"] == "Conversation run or goal loop already running."
    created.wait_status("finished")


def condensing(llm: ScriptedLlm) -> JsonObject:
    """An agent that can condense."""
    return agent_of(llm) | {
        "condenser": {
            "kind": "LLMSummarizingCondenser",
            "llm": llm.settings | {"usage_id": "condenser"},
            "keep_first": 1,
        }
    }


def test_condensation_is_in_the_log(conversation: Conversations, llm: ScriptedLlm) -> None:
    """What was asked and what came of it; the status stays."""
    created = conversation(agent=condensing(llm))
    for number in range(4):
        created.run_to("finished", f"SAY answer {number}")

    response = created.post("/condense")

    assert (response.status_code, response.json()) == (200, {"success": True})
    kinds = [event["kind"] for event in created.events]
    assert kinds.index("CondensationRequest") < kinds.index("Condensation")
    assert created.status == "finished"
    created.run_to("finished", "SAY afterwards")
    assert created.outline[-1] == "agent: afterwards"


@pytest.mark.parametrize(
    ("condenser", "reason"),
    [
        (None, "No condenser configured"),
        ({"kind": "NoOpCondenser"}, "Condenser NoOpCondenser does not handle condensation requests"),
    ],
)
def test_condense_without_a_condenser_is_409(
    conversation: Conversations, llm: ScriptedLlm, condenser: JsonObject | None, reason: str
) -> None:
    """With the reason."""
    created = conversation(agent=agent_of(llm) | {"condenser": condenser})
    created.run_to("finished", "SAY ok")

    response = created.post("/condense")

    assert response.status_code == 409
    assert response.json()["detail"] == f"Cannot condense conversation: {reason}"


def test_condense_of_nothing_and_during_a_run_is_409(conversation: Conversations, llm: ScriptedLlm) -> None:
    """Neither waits nor breaks."""
    created = conversation(agent=condensing(llm))
    assert created.post("/condense").status_code == 409
    gate = uuid4().hex
    created.send(f"HOLD {gate}", "SAY ok", run=True)

    assert created.post("/condense").status_code == 409

    created.llm.release(gate)
    created.wait_status("finished")
