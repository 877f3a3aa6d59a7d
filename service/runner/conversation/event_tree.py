"""Questions to a conversation's log that the SDK's types leave open."""

from __future__ import annotations

from openhands.sdk.conversation.state import ConversationState
from openhands.sdk.event.conversation_state import ConversationStateUpdateEvent


def is_in_log(state: ConversationState, event_id: object) -> bool:
    """Whether there is an event of this id, on whatever branch; `object`, because the SDK's list is one of events."""
    return event_id in state.events


def tip_of(state: ConversationState) -> int | None:
    """Seq of the newest event of the tree, on whatever branch: updates of the state are in the log and not in it."""
    for seq in range(len(state.events) - 1, -1, -1):
        if not isinstance(state.events[seq], ConversationStateUpdateEvent):
            return seq
    return None


def newest_of(state: ConversationState) -> str | None:
    """Id of the newest event of the tree; None where there is none."""
    tip = tip_of(state)
    return None if tip is None else state.events.get_id(tip)
