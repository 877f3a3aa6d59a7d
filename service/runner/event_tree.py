"""Questions to a conversation's log that the SDK's types leave open."""

from __future__ import annotations

from openhands.sdk.conversation.state import ConversationState


def is_in_log(state: ConversationState, event_id: str) -> bool:
    """Whether there is such an event, on whatever branch."""
    try:
        return state.events.get_index(event_id) >= 0
    except KeyError:
        return False
