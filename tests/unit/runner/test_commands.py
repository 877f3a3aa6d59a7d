"""What a client may tell a conversation, as the SDK is told it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openhands.sdk.conversation.state import ConversationState
from openhands.sdk.event import MessageEvent, PauseEvent, UserRejectObservation
from openhands.sdk.security.confirmation_policy import AlwaysConfirm, NeverConfirm
from openhands.sdk.security.llm_analyzer import LLMSecurityAnalyzer
from pydantic import ValidationError

from service.runner.conversation.commands import APPLY, SUPERSEDED
from service.runner.conversation.opening import Opened
from tests.unit.runner.rig import Rig, ScriptedLLM, echoes, kinds, run, send


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def opened(rig: Rig) -> Opened:
    return rig.create(ScriptedLLM.of())


@pytest.fixture
def waiting(rig: Rig) -> Opened:
    """A conversation with two actions that wait for a client's consent."""
    opened = rig.create(ScriptedLLM.of(echoes("one", "two")))
    opened.conversation.set_confirmation_policy(AlwaysConfirm())
    send(opened, "go")
    run(opened)
    return opened


def tell(opened: Opened, kind: str, **content: Any) -> None:
    """Apply a command with this body."""
    APPLY[kind](opened.conversation, json.dumps(content).encode())


def status(opened: Opened) -> str:
    return opened.conversation.state.execution_status.value


def after_restart(rig: Rig, opened: Opened) -> ConversationState:
    """What is on disk now; `opened` has lost the conversation by that."""
    return rig.open(opened.directory).conversation.state


def text(said: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": said}]


def test_message_is_appended(opened: Opened) -> None:
    """As the user's, and no run is started."""
    tell(opened, "message", content=text("hello"))
    assert kinds(list(opened.conversation.state.events))[-1] == "MessageEvent"
    assert opened.conversation.state.events[-1].source == "user"
    assert status(opened) == "idle"


def test_history_that_was_cut_off_is_gone_on_with(opened: Opened) -> None:
    """From where it was, after a crash; what is there is not appended again."""
    turns = [{"role": role, "content": text(role)} for role in ("user", "assistant", "user", "assistant")]
    for length in (3, 4, 4):
        APPLY["history"](opened.conversation, json.dumps(turns[:length]).encode())
    said = [event for event in opened.conversation.state.events if isinstance(event, MessageEvent)]
    assert [event.llm_message.role for event in said] == [turn["role"] for turn in turns]


def test_message_that_starts_a_run_replaces_pending_actions(waiting: Opened) -> None:
    """It does not approve them: what the user says now is instead of what was asked before."""
    tell(waiting, "message", content=text("rather not"), run=True)
    events = list(waiting.conversation.state.events)
    rejections = [event for event in events if isinstance(event, UserRejectObservation)]
    assert [rejection.rejection_reason for rejection in rejections] == [SUPERSEDED] * 2
    assert kinds(events)[-1] == "MessageEvent"
    assert status(waiting) == "idle"


def test_message_without_a_run_leaves_pending_actions(waiting: Opened) -> None:
    """The client may still decide."""
    tell(waiting, "message", content=text("by the way"), run=False)
    assert status(waiting) == "waiting_for_confirmation"
    assert not any(isinstance(event, UserRejectObservation) for event in waiting.conversation.state.events)


def test_rejection_answers_every_pending_action(waiting: Opened) -> None:
    """With the client's reason; no run is started."""
    tell(waiting, "reject", accept=False, reason="too risky")
    events = list(waiting.conversation.state.events)
    rejections = [event for event in events if isinstance(event, UserRejectObservation)]
    assert [rejection.rejection_reason for rejection in rejections] == ["too risky"] * 2
    assert ConversationState.get_unmatched_actions(events) == []
    assert status(waiting) == "idle"


def test_pause_is_told_once(opened: Opened) -> None:
    """An idle conversation is paused; again it changes nothing."""
    for _ in range(2):
        tell(opened, "pause")
        assert status(opened) == "paused"
    assert sum(isinstance(event, PauseEvent) for event in opened.conversation.state.events) == 1


@pytest.mark.parametrize(
    "given",
    ["s3cret", {"value": "s3cret"}, {"kind": "StaticSecret", "value": "s3cret", "description": "a token"}],
    ids=["string", "value", "source"],
)
def test_secret_is_on_disk_when_it_is_answered(rig: Rig, opened: Opened, given: object) -> None:
    """In each form of the contract; encrypted, beside those that are there already."""
    tell(opened, "secrets", secrets={"OLD": "one"})
    tell(opened, "secrets", secrets={"TOKEN": given})
    sources = after_restart(rig, opened).secret_registry.secret_sources
    assert {name: source.get_value() for name, source in sources.items()} == {"OLD": "one", "TOKEN": "s3cret"}
    assert "s3cret" not in opened.directory.base_state.read_text()


def test_secret_is_overwritten(rig: Rig, opened: Opened) -> None:
    """The conversation that is open and the one on disk agree."""
    for value in ("one", "two"):
        tell(opened, "secrets", secrets={"TOKEN": value})
    for state in (opened.conversation.state, after_restart(rig, opened)):
        assert state.secret_registry.secret_sources["TOKEN"].get_value() == "two"


def test_confirmation_policy_is_set(rig: Rig, opened: Opened) -> None:
    """And is there after a restart."""
    tell(opened, "confirmation_policy", policy={"kind": "AlwaysConfirm"})
    assert opened.conversation.state.confirmation_policy == AlwaysConfirm()
    again = rig.open(opened.directory)
    assert again.conversation.state.confirmation_policy == AlwaysConfirm()
    tell(again, "confirmation_policy", policy={"kind": "NeverConfirm"})
    assert after_restart(rig, again).confirmation_policy == NeverConfirm()


def test_security_analyzer_is_set_and_removed(rig: Rig, opened: Opened) -> None:
    """Null removes it."""
    tell(opened, "security_analyzer", security_analyzer={"kind": "LLMSecurityAnalyzer"})
    again = rig.open(opened.directory)
    assert isinstance(again.conversation.state.security_analyzer, LLMSecurityAnalyzer)
    tell(again, "security_analyzer", security_analyzer=None)
    assert after_restart(rig, again).security_analyzer is None


def test_tags_are_replaced(rig: Rig, opened: Opened) -> None:
    """All of them."""
    tell(opened, "tags", tags={"team": "core", "env": "dev"})
    tell(opened, "tags", tags={"env": "prod"})
    assert after_restart(rig, opened).tags == {"env": "prod"}


@pytest.mark.parametrize("kind", sorted(set(APPLY) - {"pause"}))
def test_nonsense_is_refused_and_changes_nothing(opened: Opened, kind: str) -> None:
    """An entry of the inbox may be from another version."""
    before = opened.directory.base_state.read_bytes()
    with pytest.raises(ValidationError):
        APPLY[kind](opened.conversation, b'{"unexpected": [')
    assert opened.directory.base_state.read_bytes() == before
