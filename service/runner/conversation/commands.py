"""What a client may tell a conversation that has to wait for the SDK's state lock.

Each command is a name and JSON bytes, so that it can lie in the inbox; `apply` does it, in a worker thread, once it
is its turn.
"""

from __future__ import annotations

from collections.abc import Callable

from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.state import ConversationExecutionStatus, ConversationState
from openhands.sdk.event import MessageEvent
from openhands.sdk.event.conversation_state import ConversationStateUpdateEvent
from openhands.sdk.llm import Message
from pydantic import TypeAdapter

from service.errors import Conflict
from service.runner.conversation.event_tree import is_in_log
from service.runner.conversation.streaming import know_secrets
from service.runner.conversation.switches import load_plugin, switch_acp_model, switch_llm
from service.runner.untyped import untyped
from service.runner.wire.request_models import (
    ConfirmationResponseRequest,
    PostMessageRequest,
    SetConfirmationPolicyRequest,
    SetSecurityAnalyzerRequest,
    TagsRequest,
    UpdateSecretsRequest,
)

Apply = Callable[[LocalConversation, bytes], None]
"""Does what the bytes say, or raises; blocking."""

SUPERSEDED = "Superseded by a new user message"


def send_message(conversation: LocalConversation, content: bytes) -> None:
    """Append a user message. One that is to start a run replaces a pending action instead of approving it."""
    request = PostMessageRequest.model_validate_json(content)
    waits = conversation.state.execution_status is ConversationExecutionStatus.WAITING_FOR_CONFIRMATION
    if request.run and waits:
        conversation.reject_pending_actions(SUPERSEDED)
    untyped(conversation).send_message(request.create_message(), sender=request.sender)


def add_history(conversation: LocalConversation, content: bytes) -> None:
    """Append turns that were had elsewhere; the first is a user's, since a message is what starts the agent.

    A conversation begins with them: the messages that it has are those before a crash, which are not appended again.
    """
    said = sum(isinstance(event, MessageEvent) for event in conversation.state.events)
    for turn in TypeAdapter(list[Message]).validate_json(content)[said:]:
        if turn.role == "user":
            untyped(conversation).send_message(turn)
            continue
        with conversation.state as state:
            state.append_event(MessageEvent(source="agent", llm_message=turn))


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
        know_secrets(state.secret_registry)


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


def append_state_update(conversation: LocalConversation, content: bytes) -> None:
    """Append a ready-made event that is on no branch."""
    event = ConversationStateUpdateEvent.model_validate_json(content)
    with conversation.state as state:
        if not is_in_log(state, event.id):
            state.append_event(event)


def condense(conversation: LocalConversation, content: bytes) -> None:
    """Have the LLM summarise what was said so far. The SDK does it with a step, which would execute what is pending.

    Raises:
        Conflict: the agent cannot, there is nothing to condense, or an action is pending.
    """
    condenser, branch = conversation.agent.condenser, conversation.state.active_branch()
    if condenser is None:
        raise Conflict("Cannot condense conversation: No condenser configured")
    if not condenser.handles_condensation_requests():
        kind = type(condenser).__name__
        raise Conflict(f"Cannot condense conversation: Condenser {kind} does not handle condensation requests")
    if not any(isinstance(event, MessageEvent) for event in branch):
        raise Conflict("Cannot condense conversation: nothing was said yet")
    if ConversationState.get_unmatched_actions(branch):
        raise Conflict("Cannot condense conversation: an action is pending")
    conversation.condense()


APPLY: dict[str, Apply] = {
    "message": send_message,
    "history": add_history,
    "pause": pause,
    "secrets": update_secrets,
    "confirmation_policy": set_confirmation_policy,
    "security_analyzer": set_security_analyzer,
    "reject": reject,
    "tags": set_tags,
    "state_update": append_state_update,
    "switch_llm": switch_llm,
    "switch_acp_model": switch_acp_model,
    "load_plugin": load_plugin,
}
