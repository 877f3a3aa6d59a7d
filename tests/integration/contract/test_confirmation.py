"""When the agent has to ask, what the user may answer, and what else counts as an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import (
    Conversation,
    Conversations,
    JsonObject,
    call,
    user_message,
    write,
)
from tests.integration.contract.viewer import Viewer

ALWAYS = {"kind": "AlwaysConfirm"}
RESPOND = "/events/respond_to_confirmation"
SUPERSEDED = "Superseded by a new user message"


# Policy and analyzer

POLICIES: dict[str, tuple[JsonObject, JsonObject]] = {
    "always": (ALWAYS, ALWAYS),
    "risky": (
        {"kind": "ConfirmRisky"},
        {"kind": "ConfirmRisky", "threshold": "HIGH", "confirm_unknown": True},
    ),
    "risky from low": (
        {"kind": "ConfirmRisky", "threshold": "LOW", "confirm_unknown": False},
        {"kind": "ConfirmRisky", "threshold": "LOW", "confirm_unknown": False},
    ),
    "risky from medium": (
        {"kind": "ConfirmRisky", "threshold": "MEDIUM"},
        {"kind": "ConfirmRisky", "threshold": "MEDIUM", "confirm_unknown": True},
    ),
    "with an unknown field": ({"kind": "AlwaysConfirm", "bogus": 1}, ALWAYS),
}


@pytest.mark.parametrize(("given", "shown"), POLICIES.values(), ids=POLICIES.keys())
def test_policy_is_set_and_told(given: JsonObject, shown: JsonObject, conversation: Conversations) -> None:
    """The policy is there with the reply, with its defaults, and viewers hear of it."""
    created = conversation()

    with Viewer(created) as viewer:
        response = created.post("/confirmation_policy", {"policy": given})

        assert (response.status_code, response.json()) == (200, {"success": True})
        assert created.info["confirmation_policy"] == shown
        assert viewer.until("confirmation_policy") == ["confirmation_policy"]
        assert viewer.frames[-1]["value"] == shown


def test_same_policy_again_is_no_news(conversation: Conversations) -> None:
    """Only a change is told and logged."""
    created = conversation(confirmation_policy=ALWAYS)

    with Viewer(created) as viewer:
        created.post("/confirmation_policy", {"policy": ALWAYS}).raise_for_status()
        created.post("/confirmation_policy", {"policy": {"kind": "NeverConfirm"}}).raise_for_status()

        assert viewer.until("confirmation_policy") == ["confirmation_policy"]
        assert viewer.frames[-1]["value"] == {"kind": "NeverConfirm"}
    assert len(created.events) == 1


@pytest.mark.parametrize(
    ("content", "kind", "loc"),
    [
        ({}, "missing", ["policy"]),
        ({"policy": {}}, "value_error", ["policy"]),
        ({"policy": {"kind": "Nope"}}, "value_error", ["policy"]),
        ({"policy": {"kind": "ConfirmRisky", "threshold": "UNKNOWN"}}, "value_error", ["policy", "threshold"]),
        ({"policy": "AlwaysConfirm"}, "model_attributes_type", ["policy"]),
    ],
    ids=["no policy", "no kind", "unknown kind", "threshold unknown", "text"],
)
def test_policy_refuses(content: JsonObject, kind: str, loc: list[str], conversation: Conversations) -> None:
    """A policy is one of three kinds; what is refused changes nothing."""
    created = conversation(confirmation_policy=ALWAYS)

    response = created.post("/confirmation_policy", content)

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert (problem["type"], problem["loc"]) == (kind, ["body", *loc])
    assert created.info["confirmation_policy"] == ALWAYS


ANALYZER_KEY = "a-key-of-the-analyzer"
ANALYZERS: dict[str, JsonObject] = {
    "LLMSecurityAnalyzer": {},
    "PatternSecurityAnalyzer": {},
    "PolicyRailSecurityAnalyzer": {},
    "EnsembleSecurityAnalyzer": {"analyzers": [{"kind": "LLMSecurityAnalyzer"}]},
    "GraySwanAnalyzer": {"api_key": ANALYZER_KEY},
    "ToolShieldLLMSecurityAnalyzer": {"llm": {"model": "openai/guard", "api_key": ANALYZER_KEY, "usage_id": "guard"}},
}


@pytest.mark.parametrize("kind", ANALYZERS)
def test_analyzer_is_set_and_removed(kind: str, conversation: Conversations) -> None:
    """Every kind is accepted, shown and told; null takes it away again."""
    created = conversation()

    with Viewer(created) as viewer:
        given = {"kind": kind} | ANALYZERS[kind]
        response = created.post("/security_analyzer", {"security_analyzer": given})

        assert (response.status_code, response.json()) == (200, {"success": True})
        assert created.info["security_analyzer"]["kind"] == kind
        assert ANALYZER_KEY not in created.get().text
        assert viewer.until("security_analyzer") == ["security_analyzer"]
        assert viewer.frames[-1]["value"]["kind"] == kind
        assert ANALYZER_KEY not in json.dumps(viewer.frames[-1])

        created.post("/security_analyzer", {"security_analyzer": None}).raise_for_status()

        assert created.info["security_analyzer"] is None
        assert viewer.until("security_analyzer") == ["security_analyzer"]
        assert "value" not in viewer.frames[-1]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({}, "missing"),
        ({"security_analyzer": {}}, "value_error"),
        ({"security_analyzer": {"kind": "Nope"}}, "value_error"),
        ({"security_analyzer": "x"}, "model_attributes_type"),
    ],
    ids=["no key", "no kind", "unknown kind", "text"],
)
def test_analyzer_refuses(content: JsonObject, kind: str, conversation: Conversations) -> None:
    """The key is required; its value is null or one of the analyzers."""
    response = conversation().post("/security_analyzer", content)

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert (problem["type"], problem["loc"]) == (kind, ["body", "security_analyzer"])


# Asking


@pytest.fixture
def witness(project: Path) -> Path:
    """The file that is there once the agent's action has been executed."""
    return project / "witness"


@pytest.fixture
def asking(conversation: Conversations, witness: Path) -> Conversation:
    """A conversation whose agent wants to write the witness and waits to be allowed."""
    created = conversation.with_editor(confirmation_policy=ALWAYS)
    with Viewer(created) as viewer:
        created.send(write(witness), "SAY after the action", run=True)
        viewer.until("full_state=waiting_for_confirmation")
    return created


def test_agent_asks_before_it_acts(conversation: Conversations, witness: Path) -> None:
    """The action is shown, the status says what is waited for, and nothing is done."""
    created = conversation.with_editor(confirmation_policy=ALWAYS)

    with Viewer(created) as viewer:
        created.send(write(witness), "SAY ok", run=True)

        assert viewer.until("full_state=waiting_for_confirmation") == [
            "SystemPromptEvent",
            "user",
            "last_user_message_id",
            "execution_status=running",
            "stats",
            "call file_editor",
            "execution_status=waiting_for_confirmation",
            "full_state=waiting_for_confirmation",
        ]
    assert created.status == "waiting_for_confirmation"
    assert not witness.exists()


def test_think_and_finish_never_ask(conversation: Conversations) -> None:
    """Tools without an effect need no permission."""
    created = conversation(confirmation_policy=ALWAYS)

    created.run_to("finished", call("think", thought="hm"), call("finish", message="that was it"))

    assert created.outline == ["user", "call think", "result think", "call finish", "result finish"]


def test_risky_policy_asks_for_what_nobody_has_rated(conversation: Conversations, witness: Path) -> None:
    """An action of unknown risk is asked for unless the policy says not to."""
    asked = conversation.with_editor(confirmation_policy={"kind": "ConfirmRisky"})
    asked.run_to("waiting_for_confirmation", write(witness), "SAY ok")
    assert not witness.exists()

    trusted = conversation.with_editor(confirmation_policy={"kind": "ConfirmRisky", "confirm_unknown": False})
    trusted.run_to("finished", write(witness), "SAY ok")
    assert witness.exists()


# Accepting


def test_accept_executes_the_action_and_goes_on(asking: Conversation, witness: Path) -> None:
    """The reply comes at once, the action is done, and the run goes on to its end."""
    with Viewer(asking) as viewer:
        response = asking.post(RESPOND, {"accept": True})

        assert (response.status_code, response.json()) == (200, {"success": True})
        assert viewer.until("full_state=finished") == [
            "execution_status=running",
            "result file_editor",
            "stats",
            "agent: after the action",
            "execution_status=finished",
            "full_state=finished",
        ]
    assert witness.exists()


def test_accept_asks_again_for_the_next_action(conversation: Conversations, project: Path) -> None:
    """One answer is for one question."""
    created = conversation.with_editor(confirmation_policy=ALWAYS)
    with Viewer(created) as viewer:
        created.send(write(project / "one"), write(project / "two"), "SAY ok", run=True)
        viewer.until("full_state=waiting_for_confirmation")

        created.post(RESPOND, {"accept": True}).raise_for_status()
        viewer.until("full_state=waiting_for_confirmation")

    assert (project / "one").exists()
    assert not (project / "two").exists()


def test_accept_with_nothing_pending_runs(conversation: Conversations) -> None:
    """An idle conversation with a message is worked on, as by `run`."""
    created = conversation()
    created.send("SAY ran by accepting")

    assert created.post(RESPOND, {"accept": True}).status_code == 200

    created.wait_status("finished")
    assert created.outline == ["user", "agent: ran by accepting"]


def test_accept_of_a_finished_conversation_leaves_no_trace(conversation: Conversations, llm: ScriptedLlm) -> None:
    """With nothing to do there is no error, no event and no question to the LLM."""
    created = conversation()
    created.run_to("finished", "SAY ok")
    before = len(llm.agent_requests)

    response = created.post(RESPOND, {"accept": True})

    assert (response.status_code, response.json()) == (200, {"success": True})
    created.run_again()
    created.wait_status("finished")
    assert created.outline == ["user", "agent: ok"]
    assert len(llm.agent_requests) == before


def test_accept_while_running_is_no_error(conversation: Conversations, llm: ScriptedLlm) -> None:
    """A second click on the button changes nothing and is no conflict."""
    created = conversation(initial_message=user_message("HOLD accept-while-running", "SAY ok"))
    llm.wait_held("accept-while-running")

    response = created.post(RESPOND, {"accept": True})

    assert (response.status_code, response.json()) == (200, {"success": True})
    llm.release("accept-while-running")
    created.wait_status("finished")
    assert created.outline == ["user", "agent: ok"]


def test_run_accepts(asking: Conversation, witness: Path) -> None:
    """`run` is how the SDK's client says yes."""
    asking.run_again()

    asking.wait_status("finished")
    assert witness.exists()
    assert asking.outline == ["user", "call file_editor", "result file_editor", "agent: after the action"]


# Rejecting


def test_reject_makes_idle_and_starts_no_run(asking: Conversation, witness: Path, llm: ScriptedLlm) -> None:
    """The action is marked as rejected with the user's reason, and the agent waits to be run."""
    before = len(llm.agent_requests)

    with Viewer(asking) as viewer:
        response = asking.post(RESPOND, {"accept": False, "reason": "far too dangerous"})

        assert (response.status_code, response.json()) == (200, {"success": True})
        assert asking.status == "idle"
        assert viewer.until("rejected file_editor") == ["execution_status=idle", "rejected file_editor"]
    rejection = viewer.frames[-1]
    assert (rejection["rejection_reason"], rejection["rejection_source"]) == ("far too dangerous", "user")
    [action] = [event for event in asking.events if event["kind"] == "ActionEvent"]
    assert rejection["action_id"] == action["id"]
    assert len(llm.agent_requests) == before
    assert not witness.exists()


def test_run_after_a_rejection_tells_the_llm_why(asking: Conversation, witness: Path, llm: ScriptedLlm) -> None:
    """The next run goes on with the reason in view, and without the action."""
    asking.post(RESPOND, {"accept": False, "reason": "wrong directory"}).raise_for_status()

    asking.run_again()
    asking.wait_status("finished")

    assert asking.outline == ["user", "call file_editor", "rejected file_editor", "agent: after the action"]
    assert "wrong directory" in llm.agent_requests[-1].text
    assert not witness.exists()


def test_reject_without_reason_has_a_standard_one(asking: Conversation) -> None:
    """The LLM is told something in any case."""
    asking.post(RESPOND, {"accept": False}).raise_for_status()

    [rejection] = [event for event in asking.events if event["kind"] == "UserRejectObservation"]
    assert rejection["rejection_reason"] == "User rejected the action."


def test_reject_answers_every_pending_action(conversation: Conversations, project: Path) -> None:
    """Of two calls in one step each gets its own rejection."""
    created = conversation.with_editor(confirmation_policy=ALWAYS)
    both = f"{write(project / 'one')} && {write(project / 'two')}"
    created.run_to("waiting_for_confirmation", both, "SAY ok")

    created.post(RESPOND, {"accept": False}).raise_for_status()

    events = created.events
    actions = [event["id"] for event in events if event["kind"] == "ActionEvent"]
    rejected = [event["action_id"] for event in events if event["kind"] == "UserRejectObservation"]
    assert len(actions) == 2
    assert sorted(rejected) == sorted(actions)
    assert not list(project.glob("[ot]*"))


def test_reject_with_nothing_pending_does_nothing(conversation: Conversations) -> None:
    """No event, no change of status, no error."""
    created = conversation()
    created.run_to("finished", "SAY ok")
    before = created.info

    response = created.post(RESPOND, {"accept": False})

    assert (response.status_code, response.json()) == (200, {"success": True})
    assert created.outline == ["user", "agent: ok"]
    assert created.info["execution_status"] == before["execution_status"]


@pytest.mark.parametrize(
    ("content", "kind", "field"),
    [
        ({}, "missing", "accept"),
        ({"accept": "perhaps"}, "bool_parsing", "accept"),
        ({"accept": None}, "bool_type", "accept"),
        ({"accept": False, "reason": None}, "string_type", "reason"),
    ],
    ids=["nothing", "perhaps", "null", "null reason"],
)
def test_response_refuses(content: JsonObject, kind: str, field: str, asking: Conversation, witness: Path) -> None:
    """An answer that is neither yes nor no is refused, and the question stays."""
    response = asking.post(RESPOND, content)

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert (problem["type"], problem["loc"]) == (kind, ["body", field])
    assert asking.status == "waiting_for_confirmation"
    assert not witness.exists()


def test_response_without_a_body_is_422(conversation: Conversations) -> None:
    """There has to be one."""
    response = conversation().post(RESPOND)

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body"]


# Neither yes nor no


def test_message_that_runs_rejects_the_pending_action(asking: Conversation, witness: Path) -> None:
    """Whoever says something else has not said yes: the action is superseded, and the message is worked on."""
    asking.send("SAY something else", run=True)

    asking.wait_status("finished")

    assert asking.outline == ["user", "call file_editor", "rejected file_editor", "user", "agent: something else"]
    [rejection] = [event for event in asking.events if event["kind"] == "UserRejectObservation"]
    assert rejection["rejection_reason"] == SUPERSEDED
    assert not witness.exists()


def test_message_without_run_leaves_the_action_pending(asking: Conversation, witness: Path) -> None:
    """A message that starts nothing decides nothing; the user can still accept."""
    asking.send("SAY noted")
    assert asking.status == "waiting_for_confirmation"
    assert asking.outline == ["user", "call file_editor", "user"]

    asking.post(RESPOND, {"accept": True}).raise_for_status()

    asking.wait_status("finished")
    assert witness.exists()
    assert asking.outline == ["user", "call file_editor", "user", "result file_editor", "agent: noted"]


def test_message_during_the_step_that_asks_rejects_its_action(
    conversation: Conversations, llm: ScriptedLlm, witness: Path
) -> None:
    """The user spoke before the agent asked: the action is superseded as soon as it is known."""
    created = conversation.with_editor(confirmation_policy=ALWAYS)
    created.send("HOLD message-during-asking", write(witness), run=True)
    llm.wait_held("message-during-asking")

    created.send("SAY as you wish", run=True)
    llm.release("message-during-asking")

    created.wait_status("finished")
    assert created.outline == ["user", "user", "call file_editor", "rejected file_editor", "agent: as you wish"]
    assert not witness.exists()


@pytest.mark.parametrize("policy", ["NeverConfirm", "AlwaysConfirm"])
def test_change_of_policy_decides_nothing(policy: str, asking: Conversation, witness: Path) -> None:
    """An action that waits goes on waiting, whatever the policy for later ones is."""
    asking.post("/confirmation_policy", {"policy": {"kind": policy}}).raise_for_status()

    assert asking.status == "waiting_for_confirmation"
    assert not witness.exists()
