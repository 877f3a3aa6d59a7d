"""What changes a conversation's agent while it lives: another LLM, another model of an ACP server, one more plugin."""

from __future__ import annotations

from openhands.sdk.agent.acp_agent import ACPAgent
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.marketplace.registry import MarketplaceNotFoundError, PluginNotFoundError, PluginResolutionError
from openhands.sdk.plugin.fetch import PluginFetchError

from service.errors import BadRequest, NotFound, RemoteTimedOut
from service.runner.wire.request_models import LoadPluginRequest, SwitchAcpModelRequest, SwitchLlmRequest

ACP_ONLY = "switch_acp_model is only supported for ACP conversations."


def switch_llm(conversation: LocalConversation, content: bytes) -> None:
    """Steps from the next one on ask this LLM; what it costs is counted under its usage id."""
    llm = SwitchLlmRequest.model_validate_json(content).llm
    # Held here, so that the SDK does not take this thread for a tool of the running step, which may do without.
    with conversation.state:
        conversation.switch_llm(llm)


def switch_acp_model(conversation: LocalConversation, content: bytes) -> None:
    """From the next turn on.

    Raises:
        BadRequest: the agent is no ACP server's, or that one refuses.
        RemoteTimedOut: it does not answer.
    """
    model = SwitchAcpModelRequest.model_validate_json(content).model
    if not isinstance(conversation.agent, ACPAgent):
        raise BadRequest(ACP_ONLY)
    try:
        conversation.switch_acp_model(model)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    except TimeoutError as error:
        raise RemoteTimedOut(f"The ACP server does not answer: {error}") from error


def load_plugin(conversation: LocalConversation, content: bytes) -> None:
    """Fetch a plugin from the marketplaces that the agent's context names, and give the agent what is in it.

    Raises:
        NotFound: no marketplace has it.
        BadRequest: the agent's context names none, or the plugin cannot be had.
    """
    reference = LoadPluginRequest.model_validate_json(content).plugin_ref
    try:
        conversation.load_plugin(reference)
    except (PluginNotFoundError, MarketplaceNotFoundError) as error:
        raise NotFound(str(error)) from error
    except (PluginResolutionError, PluginFetchError, OSError, ValueError) as error:
        raise BadRequest(str(error)) from error
