"""What the settings say of every agent that is started here."""

from __future__ import annotations

from openhands.sdk.agent.acp_agent import ACPAgent
from openhands.sdk.agent.base import AgentBase
from openhands.sdk.context.agent_context import AgentContext
from openhands.sdk.launch import LaunchRuntime
from openhands.sdk.marketplace import MarketplaceRegistration
from openhands.sdk.tool.registry import is_tool_usable

from service.settings import Settings

_BROWSER_TOOL = "browser_tool_set"


def has_browser(settings: Settings) -> bool:
    """Whether the browser tool is wanted and works. Blocking: it may look for a browser."""
    return settings.enable_browser and is_tool_usable(_BROWSER_TOOL)


def launch_runtime(settings: Settings) -> LaunchRuntime:
    """What the SDK asks before it makes an agent of a description. Blocking, as `has_browser`."""
    return LaunchRuntime(browser_available=has_browser(settings), acp_skill_sourcing=settings.acp_skill_sourcing)


def with_marketplaces(agent: AgentBase, settings: Settings) -> AgentBase:
    """The agent, with the server's marketplaces if it names none; an ACP agent has its own ways."""
    context = agent.agent_context or AgentContext()
    if isinstance(agent, ACPAgent) or context.registered_marketplaces or not settings.registered_marketplaces:
        return agent
    update = {"registered_marketplaces": registrations(settings)}
    return agent.model_copy(update={"agent_context": context.model_copy(update=update)})


def registrations(settings: Settings) -> list[MarketplaceRegistration]:
    """The server's marketplaces, as the SDK knows them."""
    return [MarketplaceRegistration(**each.model_dump()) for each in settings.registered_marketplaces]
