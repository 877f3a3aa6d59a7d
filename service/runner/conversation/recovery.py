"""Making a conversation whole after its owner died.

The SDK saves `base_state.json` at the end of a step, while events are on disk the moment they happen. After a crash
the log is therefore ahead of HEAD (`leaf_event_id`): an acknowledged message or a finished tool call would fall off
the branch that the agent sees. HEAD is always the last tree event appended, unless a client navigated since.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from openhands.sdk.conversation.state import ConversationExecutionStatus, ConversationState
from openhands.sdk.event import ActionEvent, AgentErrorEvent, MessageEvent
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.event.error_classification import ErrorClassification, FailureKind

from service.runner.conversation.event_tree import newest_of, tip_of
from service.runner.conversation.opening import Opened
from service.store.owner_record import INTERRUPTION_SECONDS, note_interruption, note_run
from service.store.snapshot import read_brief

INTERRUPTED_TOOL_CALL = (
    "A restart occurred while this tool was in progress. The call was interrupted and its outcome is unknown; "
    "check what it did before doing it again."
)

_INTERRUPTION_LIMIT = 3
_POISONED = "RunInterruptedRepeatedly"
_WHY_POISONED = (
    f"The runner of this conversation died {_INTERRUPTION_LIMIT} times within {INTERRUPTION_SECONDS / 60:g} minutes "
    "while running it. The run is not continued automatically; start it again when the cause is gone."
)


class Navigation(NamedTuple):
    """The last time a client moved HEAD, as recorded before it was acknowledged."""

    log_length: int
    """Events in the log at that time."""
    leaf_event_id: str | None


def recover(state: ConversationState, navigation: Navigation | None, *, will_resume: bool) -> None:
    """Repair HEAD and close the tool calls that were in flight.

    Every in-flight call, all of a parallel batch, gets an error observation in its order. A run that had been going on
    leaves the status `running` when the caller will go on with it, else `error`, from which a client can start a new
    one (a client that waits for the run takes `error` as its end). Pending confirmations are left as they are. Safe on
    a conversation that needs nothing: it then writes nothing.
    """
    with state:
        _repair_head(state, navigation)
        if state.execution_status is ConversationExecutionStatus.RUNNING:
            close_open_calls(state, INTERRUPTED_TOOL_CALL)
            if not will_resume:
                state.execution_status = ConversationExecutionStatus.ERROR
        # Mandatory after moving HEAD: the cached view drops an action without a result, and its later error would
        # reach the LLM as a tool message that answers nothing.
        state.rebuild_view()


def take_up(opened: Opened, *, resume_runs: bool, fsync: bool) -> bool:
    """Make a conversation that has just been opened whole; True when a run of it is to be gone on with. Blocking.

    Raises OwnershipLost when another has claimed it.
    """
    state = opened.conversation.state
    if opened.claim.owes_run or _was_accepted(opened):
        with state:
            state.execution_status = ConversationExecutionStatus.RUNNING
        note_run(opened.directory, opened.claim, fsync=fsync)
    was_running = state.execution_status is ConversationExecutionStatus.RUNNING
    was_cut_off = was_running and not opened.was_handed_over
    times = note_interruption(opened.directory, opened.claim, time.time(), fsync=fsync) if was_cut_off else 0
    will_resume = was_running and resume_runs and times < _INTERRUPTION_LIMIT
    recover(state, Navigation(opened.claim.settled_length, state.leaf_event_id), will_resume=will_resume)
    if times >= _INTERRUPTION_LIMIT:
        with state:
            state.append_event(ConversationErrorEvent(source="environment", code=_POISONED, detail=_WHY_POISONED))
    return will_resume


def _was_accepted(opened: Opened) -> bool:
    """Whether readers were told of a run that the status never showed: its owner died while the agent got ready."""
    brief, status = read_brief(opened.directory), opened.conversation.state.execution_status
    is_told = brief is not None and brief.header.status == ConversationExecutionStatus.RUNNING.value
    return is_told and status is ConversationExecutionStatus.IDLE


def close_open_calls(state: ConversationState, error: str) -> None:
    """Give every call without a result this error as its result, in their order. The caller holds the state's lock."""
    for action in ConversationState.get_unmatched_actions(state.active_branch()):
        state.append_event(_closed(action, error))


def _closed(action: ActionEvent, error: str) -> AgentErrorEvent:
    return AgentErrorEvent(
        tool_name=action.tool_name,
        tool_call_id=action.tool_call_id,
        error=error,
        classification=ErrorClassification(kind=FailureKind.INTERNAL, retryable=False),
    )


def _repair_head(state: ConversationState, navigation: Navigation | None) -> None:
    tip = tip_of(state)
    if navigation is not None and (tip is None or tip < navigation.log_length):
        leaf = navigation.leaf_event_id
    else:
        leaf = newest_of(state)
    # A log without parents, from before the SDK knew branches, has no HEAD and needs none.
    is_linear = state.leaf_event_id is None and not state.head_is_empty
    if leaf != state.leaf_event_id and not is_linear:
        state.leaf_event_id = leaf
        state.head_is_empty = leaf is None and len(state.events) > 0
        _repair_last_user_message(state)


def _repair_last_user_message(state: ConversationState) -> None:
    for event in reversed(state.active_branch()):
        if isinstance(event, MessageEvent) and event.source == "user":
            if state.last_user_message_id != event.id:
                state.last_user_message_id = event.id
            return
