"""Where the SDK's stores of profiles are below `persistence_dir`, in the published server's folders."""

from __future__ import annotations

from pathlib import Path

from openhands.sdk.llm.llm_profile_store import LLMProfileStore
from openhands.sdk.llm.meta_profile_store import MetaProfileStore
from openhands.sdk.llm.provider_connection_store import ProviderConnectionStore
from openhands.sdk.profiles.agent_profile_store import AgentProfileStore

MOST_PROFILES = 50
"""Of each kind."""


class ProfileStores:
    """A store makes its folder as soon as it is asked for; where there is no folder it would be empty. Blocking."""

    def __init__(self, root: Path) -> None:
        self.llm_profiles_path = root / "profiles"
        self.meta_profiles_path = root / "meta-profiles"
        self.agent_profiles_path = root / "agent-profiles"
        self.connections_path = root / "provider-connections"

    @property
    def llm_profiles(self) -> LLMProfileStore:
        return LLMProfileStore(self.llm_profiles_path)

    @property
    def meta_profiles(self) -> MetaProfileStore:
        return MetaProfileStore(self.meta_profiles_path)

    @property
    def agent_profiles(self) -> AgentProfileStore:
        return AgentProfileStore(self.agent_profiles_path)

    @property
    def connections(self) -> ProviderConnectionStore:
        return ProviderConnectionStore(self.connections_path)
