"""What a client may tell a conversation that has to wait for the SDK's state lock.

Each command is a name and JSON bytes, so that it can lie in the inbox; `apply` does it, in a worker thread, once it
is its turn.
"""

from __future__ import annotations

from collections.abc import Callable

from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.request import SendMessageRequest
from openhands.sdk.conversation.state import ConversationExecutionStatus
from pydantic import TypeAdapter

from service.runner.request_models import (
    ConfirmationResponseRequest,
    SetConfirmationPolicyRequest,
    SetSecurityAnalyzerRequest,
    TagsRequest,
    UpdateSecretsRequest,
)
from service.runner.traced import traced

SUPERSEDED = "Superseded by a new user message"


def send_message(conversation: LocalConversation, content: bytes) -> None:
    """Append a user message. One that is to start a run replaces a pending action instead of approving it."""
    request = SendMessageRequest.model_validate_json(content)
    waits = conversation.state.execution_status is ConversationExecutionStatus.WAITING_FOR_CONFIRMATION
    if request.run and waits:
        conversation.reject_pending_actions(SUPERSEDED)
    traced(conversation).send_message(request.create_message())


def pause(conversation: LocalConversation, content: bytes) -> None:
    """Take effect at the end of the current step; nothing unless idle or running."""
    conversation.pause()


def update_secrets(conversation: LocalConversation, content: bytes) -> None:
    """Add or overwrite secrets, and save them at once: the SDK alone would wait for the next change."""
    request = UpdateSecretsRequest.model_validate_json(content)
    with conversation.state as state:
        registry = state.secret_registry
        # Not `conversation.update_secrets`: that changes the registry in place, and the SDK sees nothing to save.
        sources = {**registry.secret_sources, **request.secrets}
        state.secret_registry = registry.model_copy(update={"secret_sources": sources})


def set_confirmation_policy(conversation: LocalConversation, content: bytes) -> None:
    conversation.set_confirmation_policy(SetConfirmationPolicyRequest.model_validate_json(content).policy)


def set_security_analyzer(conversation: LocalConversation, content: bytes) -> None:
    conversation.set_security_analyzer(SetSecurityAnalyzerRequest.model_validate_json(content).security_analyzer)


def reject(conversation: LocalConversation, content: bytes) -> None:
    """Reject every pending action; no run is started."""
    conversation.reject_pending_actions(ConfirmationResponseRequest.model_validate_json(content).reason)


def set_tags(conversation: LocalConversation, content: bytes) -> None:
    tags = TypeAdapter(TagsRequest).validate_json(content).tags
    with conversation.state as state:
        state.tags = tags


APPLY: dict[str, Callable[[LocalConversation, bytes], None]] = {
    "message": send_message,
    "pause": pause,
    "secrets": update_secrets,
    "confirmation_policy": set_confirmation_policy,
    "security_analyzer": set_security_analyzer,
    "reject": reject,
    "tags": set_tags,
}
