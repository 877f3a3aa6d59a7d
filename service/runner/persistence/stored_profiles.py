"""What `persistence_dir` says about the agents a server launches by itself. Blocking; files of the published server."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from openhands.sdk.launch import AgentProfileSource, LaunchStores, ResolvedLaunch, resolve
from openhands.sdk.launch.errors import AgentLaunchError, LaunchStoreError
from openhands.sdk.profiles.agent_profile import OpenHandsAgentProfile
from openhands.sdk.profiles.resolver import ProfileNotFound
from openhands.sdk.settings.model import ConversationSettings
from openhands.sdk.utils.cipher import Cipher

from service.errors import Conflict, InvalidRequest, NotFound, RequestFailed, Unavailable
from service.runner.extensions.skill_catalog import AvailableSkills
from service.runner.persistence.profile_stores import ProfileStores
from service.runner.persistence.settings_store import SettingsStore

_DEFAULT_AGENT = "default"


class StoredProfiles:
    """The profiles and settings below one folder, which is read anew each time: other processes write there."""

    def __init__(self, root: Path, cipher: Cipher) -> None:
        self._stores = ProfileStores(root)
        self._cipher = cipher
        self._settings = SettingsStore(root, cipher)

    def llm_names(self) -> list[str]:
        """Of the LLM profiles, sorted; does not make their folder."""
        return sorted(path.stem for path in self._stores.llm_profiles_path.glob("*.json"))

    def conversation(self) -> ConversationSettings:
        """What the settings say of every conversation. Raises Conflict when they cannot be read."""
        return self._settings.read().conversation

    def launch(self, llm_profile: str, skills: AvailableSkills) -> ResolvedLaunch:
        """The active agent profile, or the SDK's default agent where none is, with an LLM profile.

        Raises:
            NotFound: there is no such LLM profile.
            InvalidRequest: the active agent profile cannot be launched with it; says what it names and is not there.
            Conflict: the active agent profile is gone, or the settings cannot be read.
            Unavailable: another process holds the store.
            RequestFailed: a file cannot be read.
        """
        if llm_profile not in self.llm_names():
            raise NotFound(f"The LLM profile {llm_profile} does not exist.")
        active = self._settings.read().pointers["active_agent_profile_id"]
        default = OpenHandsAgentProfile(name=_DEFAULT_AGENT, llm_profile_ref=llm_profile)
        try:
            return self._resolved(UUID(active) if active else default, skills, llm_profile)
        except ProfileNotFound as error:
            raise Conflict(f"The active agent profile is gone: {error}") from error

    def launch_profile(self, profile_id: UUID, llm_profile: str | None, skills: AvailableSkills) -> ResolvedLaunch:
        """An agent profile, with the LLM profile that a launch wants instead of its own.

        Raises:
            NotFound: there is no such agent profile.
            InvalidRequest, Conflict, Unavailable, RequestFailed: as `launch`.
        """
        try:
            return self._resolved(profile_id, skills, llm_profile)
        except ProfileNotFound:
            raise NotFound(f"Agent profile with id '{profile_id}' not found") from None

    def _resolved(self, source: AgentProfileSource, skills: AvailableSkills, llm_profile: str | None) -> ResolvedLaunch:
        try:
            return resolve(source, self.stores(skills), llm_profile_ref=llm_profile)
        except AgentLaunchError as error:
            raise InvalidRequest(error.to_detail()) from error
        except LaunchStoreError as error:
            if error.retryable:
                raise Unavailable(str(error)) from error
            raise RequestFailed(str(error)) from error

    def stores(self, skills: AvailableSkills) -> LaunchStores:
        """What a launch looks into. Raises Conflict when the settings cannot be read."""
        agent = self._settings.read().agent
        return LaunchStores(
            llm_profiles=self._stores.llm_profiles,
            mcp_config=dict(agent.mcp_config or {}),
            skills=lambda: skills.skills,
            public_skill_names=lambda: skills.public_names,
            agent_profiles=self._stores.agent_profiles,
            meta_profiles=self._stores.meta_profiles,
            llm_profile_names=self.llm_names,
            cipher=self._cipher,
        )
