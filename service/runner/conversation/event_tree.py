"""Questions to a conversation's log that the SDK's types leave open."""

from __future__ import annotations

from openhands.sdk.conversation.state import ConversationState


def is_in_log(state: ConversationState, event_id: object) -> bool:
    """Whether there is an event of this id, on whatever branch; `object`, because the SDK's list is one of events."""
    return event_id in state.events
