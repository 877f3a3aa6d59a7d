"""A conversation is whole again after its owner died, at whatever moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from openhands.sdk import Message
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.state import ConversationExecutionStatus, ConversationState
from openhands.sdk.event import ActionEvent, AgentErrorEvent, MessageEvent, PauseEvent
from openhands.sdk.event.conversation_state import ConversationStateUpdateEvent
from openhands.sdk.llm import content_to_str
from openhands.sdk.security.confirmation_policy import AlwaysConfirm
from openhands.sdk.utils.cipher import Cipher

from service.runner.conversation.description import Describer
from service.runner.conversation.opening import Opened
from service.runner.conversation.recovery import INTERRUPTED_TOOL_CALL, Navigation, recover, take_up
from service.store.layout import ConversationDirectory
from service.store.snapshot import write_snapshot
from tests.unit.runner.rig import (
    Rig,
    ScriptedLLM,
    calls,
    crash_points,
    echoes,
    kinds,
    prompt,
    run,
    says,
    send,
    stored,
    thinks,
)

TWO_THOUGHTS = calls(("think", {"thought": "one"}), ("think", {"thought": "two"}))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def killed(points: list[ConversationDirectory], *, after: str, number: int = 1) -> ConversationDirectory:
    """The directory as it was right after the `number`th event of this kind was written."""
    for point in points:
        events = stored(point)
        if events and events[-1]["kind"] == after and sum(event["kind"] == after for event in events) == number:
            return point
    raise AssertionError(f"no {after} number {number} was written")


def recovered(rig: Rig, directory: ConversationDirectory, *, will_resume: bool = False) -> Opened:
    """Opened and repaired, as when another runner takes over."""
    opened = rig.opener.open(directory)
    recover(opened.conversation.state, None, will_resume=will_resume)
    return opened


def roles(messages: list[Message]) -> list[str]:
    return [message.role for message in messages]


def status(opened: Opened) -> str:
    return opened.conversation.state.execution_status.value


def continue_with(opened: Opened, *answers: Message) -> ScriptedLLM:
    """Run on with an LLM that says this."""
    llm = ScriptedLLM.of(*answers)
    opened.conversation.switch_llm(llm)
    run(opened)
    return llm


# The five that were measured


def test_killed_in_a_tool_the_call_gets_an_error(rig: Rig, tmp_path: Path) -> None:
    """HEAD is behind the action on disk; the agent is told that its call was cut off, and goes on."""
    opened = rig.create(ScriptedLLM.of(thinks(), says("done")))
    with crash_points(opened.directory, tmp_path / "copies") as points:
        send(opened, "go")
        run(opened)
    directory = killed(points, after="ActionEvent")
    action = stored(directory)[-1]

    again = recovered(rig, directory)

    assert status(again) == "error"
    error = again.conversation.state.active_branch()[-1]
    assert isinstance(error, AgentErrorEvent)
    assert (error.tool_call_id, error.parent_id, error.error) == (
        action["tool_call_id"],
        action["id"],
        INTERRUPTED_TOOL_CALL,
    )
    assert error.classification is not None
    assert not error.classification.retryable
    assert roles(prompt(again)) == ["system", "user", "assistant", "tool"]
    llm = continue_with(again, says("went on"))
    assert roles(llm.asked[0]) == ["system", "user", "assistant", "tool"]
    assert status(again) == "finished"


def test_killed_after_the_observation_its_work_is_kept(rig: Rig, tmp_path: Path) -> None:
    """The pair of action and result is in the log and must be seen by the agent, or it would do it again."""
    opened = rig.create(ScriptedLLM.of(thinks(), says("done")))
    with crash_points(opened.directory, tmp_path / "copies") as points:
        send(opened, "go")
        run(opened)

    again = recovered(rig, killed(points, after="ObservationEvent"))

    assert kinds(again.conversation.state.active_branch())[-2:] == ["ActionEvent", "ObservationEvent"]
    assert status(again) == "error"
    assert roles(prompt(again)) == ["system", "user", "assistant", "tool"]


def test_killed_while_the_llm_is_asked_an_acknowledged_message_is_kept(rig: Rig, tmp_path: Path) -> None:
    """A message that came during the call is in the log, and HEAD and the last user message are behind it."""
    opened = rig.create(ScriptedLLM.of(says("one"), before={0: lambda: send(opened, "second")}))
    with crash_points(opened.directory, tmp_path / "copies") as points:
        send(opened, "first")
        run(opened)
    directory = killed(points, after="MessageEvent", number=2)

    state = recovered(rig, directory).conversation.state

    said = [event.id for event in state.active_branch() if isinstance(event, MessageEvent)]
    assert said == [event["id"] for event in stored(directory) if event["kind"] == "MessageEvent"]
    assert state.last_user_message_id == said[-1]


def test_killed_in_a_parallel_batch_every_call_gets_an_error(rig: Rig, tmp_path: Path) -> None:
    """In the order of the calls; the prompt that follows answers each of them."""
    opened = rig.create(ScriptedLLM.of(TWO_THOUGHTS, says("done")), tool_concurrency_limit=2)
    with crash_points(opened.directory, tmp_path / "copies") as points:
        send(opened, "go")
        run(opened)
    directory = killed(points, after="ActionEvent", number=2)

    again = recovered(rig, directory)

    branch = again.conversation.state.active_branch()
    actions = [event.tool_call_id for event in branch if isinstance(event, ActionEvent)]
    errors = [event.tool_call_id for event in branch if isinstance(event, AgentErrorEvent)]
    assert actions == errors
    assert len(errors) == 2
    assert [message.tool_call_id for message in prompt(again) if message.role == "tool"] == errors


def test_killed_between_the_results_of_a_batch_only_the_open_call_gets_an_error(rig: Rig, tmp_path: Path) -> None:
    """What is done stays done."""
    opened = rig.create(ScriptedLLM.of(TWO_THOUGHTS, says("done")), tool_concurrency_limit=2)
    with crash_points(opened.directory, tmp_path / "copies") as points:
        send(opened, "go")
        run(opened)

    again = recovered(rig, killed(points, after="ObservationEvent"))

    tail = kinds(again.conversation.state.active_branch())[-4:]
    assert tail == ["ActionEvent", "ActionEvent", "ObservationEvent", "AgentErrorEvent"]
    answered = [message.tool_call_id for message in prompt(again) if message.role == "tool"]
    assert len(set(answered)) == 2


@pytest.mark.parametrize("to_nowhere", [False, True], ids=["to an event", "to before the beginning"])
def test_navigation_is_not_taken_for_a_head_that_lags(rig: Rig, tmp_path: Path, to_nowhere: bool) -> None:
    """A client moved HEAD back on purpose, which is recorded before it is told so."""
    opened = rig.create(ScriptedLLM.of(says("one"), says("two")))
    first = send(opened, "first")
    run(opened)
    leaf = None if to_nowhere else first
    opened.conversation.navigate_to(leaf)
    navigation = Navigation(len(opened.conversation.state.events), leaf)

    again = rig.open(opened.directory)
    recover(again.conversation.state, navigation, will_resume=False)

    state = again.conversation.state
    assert (state.leaf_event_id, state.head_is_empty) == (leaf, to_nowhere)
    assert [event.id for event in state.active_branch()][-1:] == ([] if to_nowhere else [first])


def test_event_after_a_navigation_is_the_head(rig: Rig, tmp_path: Path) -> None:
    """The navigation is history then, and what came after it was killed before it was saved."""
    opened = rig.create(ScriptedLLM.of(says("one")))
    first = send(opened, "first")
    run(opened)
    opened.conversation.navigate_to(first)
    navigation = Navigation(len(opened.conversation.state.events), first)
    with crash_points(opened.directory, tmp_path / "copies") as points:
        third = send(opened, "third")
    again = rig.open(points[0])
    assert again.conversation.state.leaf_event_id == first, "the kill came too late for this test"

    recover(again.conversation.state, navigation, will_resume=False)

    assert again.conversation.state.leaf_event_id == third
    assert again.conversation.state.last_user_message_id == third
    assert [text for message in prompt(again)[1:] for text in content_to_str(message.content)] == ["first", "third"]


# Every moment


def test_killed_at_any_moment_the_conversation_is_whole(rig: Rig, tmp_path: Path) -> None:
    """After each single write of two turns: all that is in the log is on the branch, and every call is answered."""
    llm = ScriptedLLM.of(
        thinks(),
        TWO_THOUGHTS,
        says("done"),
        calls(("finish", {"message": "bye"})),
        before={1: lambda: send(opened, "meanwhile")},
    )
    opened = rig.create(llm, tool_concurrency_limit=2)
    with crash_points(opened.directory, tmp_path / "copies") as points:
        send(opened, "go")
        run(opened)
        send(opened, "go on")
        run(opened)
    assert len(points) > 20

    for number, point in enumerate(points):
        again = recovered(rig, point)
        state = again.conversation.state
        where = f"after write {number}"
        branch = state.active_branch()
        on_disk = [event["id"] for event in stored(point) if event["kind"] != "ConversationStateUpdateEvent"]
        assert [event.id for event in branch] == on_disk, where
        assert ConversationState.get_unmatched_actions(branch) == [], where
        assert state.execution_status is not ConversationExecutionStatus.RUNNING, where
        said = [event.id for event in branch if isinstance(event, MessageEvent) and event.source == "user"]
        assert state.last_user_message_id == (said[-1] if said else None), where
        messages = prompt(again)
        asked = [call.id for message in messages for call in message.tool_calls or ()]
        assert [message.tool_call_id for message in messages if message.role == "tool"] == asked, where
        with crash_points(point, tmp_path / "again" / str(number)) as writes:
            recover(state, None, will_resume=False)
        assert writes == [], f"repaired twice {where}"
        again.conversation.close()


def test_repaired_conversation_opens_with_the_plain_sdk(rig: Rig, tmp_path: Path) -> None:
    """The directory can be given back."""
    opened = rig.create(ScriptedLLM.of(thinks(), says("done")))
    with crash_points(opened.directory, tmp_path / "copies") as points:
        send(opened, "go")
        run(opened)
    directory = killed(points, after="ActionEvent")
    repaired = recovered(rig, directory)

    plain = LocalConversation(
        agent=None,
        workspace=str(rig.workspace),
        persistence_dir=str(directory.path.parent),
        conversation_id=directory.conversation_id,
        visualizer=None,
        cipher=Cipher("key of the tests"),
    )

    assert plain.state.active_branch() == repaired.conversation.state.active_branch()
    assert plain.state.execution_status is ConversationExecutionStatus.ERROR


# What becomes of the run


def test_run_that_will_be_resumed_is_not_an_error(rig: Rig, tmp_path: Path) -> None:
    """A client that waits for the run would take an error as its end."""
    opened = rig.create(ScriptedLLM.of(thinks(), says("done")))
    with crash_points(opened.directory, tmp_path / "copies") as points:
        send(opened, "go")
        run(opened)

    again = recovered(rig, killed(points, after="ActionEvent"), will_resume=True)

    assert again.conversation.state.execution_status is ConversationExecutionStatus.RUNNING
    llm = continue_with(again, says("went on"))
    assert roles(llm.asked[0])[-2:] == ["assistant", "tool"]


@pytest.mark.parametrize(
    ("shown", "is_gone_on_with"),
    [(ConversationExecutionStatus.IDLE, True), (ConversationExecutionStatus.FINISHED, False)],
)
def test_run_whose_owner_died_while_its_agent_got_ready_is_gone_on_with(
    rig: Rig, shown: ConversationExecutionStatus, is_gone_on_with: bool
) -> None:
    """Readers were told that it runs, and nobody would begin it again; not one that has ended since."""
    opened = rig.create(ScriptedLLM.of())
    send(opened, "go")
    told = Describer(opened.conversation.state).snapshot(opened.meta, ConversationExecutionStatus.RUNNING)
    write_snapshot(opened.directory, told)
    with opened.conversation.state as state:
        state.execution_status = shown

    again = rig.open(opened.directory)

    assert take_up(again, resume_runs=True, fsync=False) is is_gone_on_with
    assert status(again) == ("running" if is_gone_on_with else shown.value)


def test_pending_confirmation_is_left_as_it_is(rig: Rig) -> None:
    """Nobody has run the call yet: the client is still to be asked."""
    opened = rig.create(ScriptedLLM.of(echoes("one", "two")))
    opened.conversation.set_confirmation_policy(AlwaysConfirm())
    send(opened, "go")
    run(opened)

    state = recovered(rig, opened.directory).conversation.state

    assert state.execution_status is ConversationExecutionStatus.WAITING_FOR_CONFIRMATION
    assert len(ConversationState.get_unmatched_actions(state.active_branch())) == 2


@pytest.mark.parametrize("will_resume", [False, True])
def test_healthy_conversation_is_not_written_to(rig: Rig, tmp_path: Path, will_resume: bool) -> None:
    """Opening does not make a difference."""
    opened = rig.create(ScriptedLLM.of(says("done")))
    send(opened, "go")
    run(opened)
    before = opened.directory.base_state.read_bytes()
    with crash_points(opened.directory, tmp_path / "copies") as writes:
        state = recovered(rig, opened.directory, will_resume=will_resume).conversation.state
    assert writes == []
    assert opened.directory.base_state.read_bytes() == before
    assert state.execution_status is ConversationExecutionStatus.FINISHED


def test_empty_conversation_needs_nothing(rig: Rig, tmp_path: Path) -> None:
    """It was created and nothing else."""
    opened = rig.create(ScriptedLLM.of())
    with crash_points(opened.directory, tmp_path / "copies") as writes:
        state = recovered(rig, opened.directory).conversation.state
    assert writes == []
    assert state.active_branch() == []


def test_state_updates_are_not_taken_for_the_head(rig: Rig) -> None:
    """They are in the log and not in the tree."""
    opened = rig.create(ScriptedLLM.of(says("done")))
    last = send(opened, "go")
    state = opened.conversation.state
    with state:
        state.append_event(ConversationStateUpdateEvent(key="stats", value=state.stats))
    assert recovered(rig, opened.directory).conversation.state.leaf_event_id == last


def test_log_from_before_branches_stays_linear(rig: Rig) -> None:
    """Without parents there is no HEAD, and the whole log is the branch."""
    opened = rig.create(ScriptedLLM.of())
    state = opened.conversation.state
    with state:
        for _ in range(3):
            state.events.append(PauseEvent())
    assert (state.leaf_event_id, state.head_is_empty) == (None, False)

    again = recovered(rig, opened.directory).conversation.state

    assert again.leaf_event_id is None
    assert len(again.active_branch()) == 3
