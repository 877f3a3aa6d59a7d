"""Methods of the SDK that a type checker cannot call: `run`, `arun`, `send_message`, `ask_agent`, `generate_title`."""

from __future__ import annotations

from typing import Any

from openhands.sdk.conversation.impl.local_conversation import LocalConversation


def untyped(conversation: LocalConversation) -> Any:
    """The conversation without its types: the tracing decorator on these methods (SDK 1.58) hides their signatures."""
    return conversation
