"""What is asked of agent profiles, by name: the agents that conversations are started with."""

from __future__ import annotations

import json
from typing import Any

import pydantic_core
from openhands.sdk.launch import preview_launch
from openhands.sdk.profiles.agent_profile import ACPAgentProfile, OpenHandsAgentProfile, validate_agent_profile
from openhands.sdk.profiles.agent_profile_store import save_profile_preserving_identity
from openhands.sdk.profiles.seed import SEED_PROFILE_NAME, build_seed_profile
from openhands.sdk.settings.model import ACPAgentSettings, OpenHandsAgentSettings
from openhands.sdk.utils.cipher import Cipher
from pydantic import ValidationError

from service.errors import InvalidRequest, JsonObject, NotFound
from service.redaction import redact_problems
from service.requests.message import Answer, Request
from service.runner.conversation.launching import launch_runtime
from service.runner.extensions.extensions import Extensions
from service.runner.operations.profiles import new_name, profile_name, renamed, renaming, told
from service.runner.operations.store_access import StoreAccess, store_errors
from service.runner.operations.table import Operation, answered
from service.runner.persistence.profile_stores import MOST_PROFILES, ProfileStores
from service.runner.persistence.settings_store import CurrentSettings, SettingsStore
from service.runner.persistence.stored_profiles import StoredProfiles
from service.settings import Settings

_ACTIVE = "active_agent_profile_id"


class AgentProfileOperations:
    """Over the SDK's own store."""

    def __init__(self, settings: Settings, cipher: Cipher, access: StoreAccess, extensions: Extensions) -> None:
        self._server = settings
        self._stores = ProfileStores(settings.persistence_root)
        self._settings = SettingsStore(settings.persistence_root, cipher)
        self._stored = StoredProfiles(settings.persistence_root, cipher)
        self._cipher = cipher
        self._extensions = extensions
        self._all_with_default = access.changing(self._listed_with_default)
        self.table: dict[str, Operation] = {
            "agent_profiles.list": self._list,
            "agent_profiles.get": access.reading(self._get),
            "agent_profiles.save": access.changing(self._save, status=201),
            "agent_profiles.delete": access.changing(self._delete),
            "agent_profiles.rename": access.changing(self._rename),
            "agent_profiles.activate": access.changing(self._activate),
            "agent_profiles.materialize": self._materialize,
        }

    @property
    def _has_any(self) -> bool:
        return self._stores.agent_profiles_path.is_dir()

    async def _list(self, request: Request) -> Answer:
        """Front ends start conversations with the active one, so where none is, one is made active (contract)."""
        with store_errors():
            found = await self._extensions.workers.call(self._listed, request)
        if any(each["id"] == found[_ACTIVE] for each in found["profiles"]):
            return answered(found)
        return await self._all_with_default(request)

    def _listed(self, request: Request) -> JsonObject:
        return {"profiles": self._summaries(), _ACTIVE: self._settings.read().pointers[_ACTIVE]}

    def _listed_with_default(self, request: Request) -> JsonObject:
        with self._settings.changing() as settings:
            self._require_active(settings)
        return self._listed(request)

    def _summaries(self) -> Any:  # the SDK's annotation names its own method
        return self._stores.agent_profiles.list_summaries() if self._has_any else []

    def _ids(self) -> dict[str, str]:
        return {each["name"]: each["id"] for each in self._summaries()}

    def _require_active(self, settings: CurrentSettings) -> None:
        """Where none is active, the profile called default becomes it, which is made of the settings if need be."""
        if settings.pointers[_ACTIVE] in self._ids().values():
            return
        if not self._is_stored(SEED_PROFILE_NAME):
            self._seed(settings)
        settings.pointers[_ACTIVE] = self._ids().get(SEED_PROFILE_NAME)  # none where its file cannot be read

    def _seed(self, settings: CurrentSettings) -> None:
        agent, llm_profile = settings.agent, settings.pointers["active_profile"]
        profile = build_seed_profile(agent, llm_profile)
        save_profile_preserving_identity(self._stores.agent_profiles, profile)
        if llm_profile is None and isinstance(agent, OpenHandsAgentSettings) and agent.llm.api_key is not None:
            if SEED_PROFILE_NAME not in self._stored.llm_names():
                self._stores.llm_profiles.save(SEED_PROFILE_NAME, agent.llm, include_secrets=True, cipher=self._cipher)

    def _get(self, request: Request) -> JsonObject:
        name = profile_name(request)
        return {"name": name, "profile": self._loaded(name)}

    def _save(self, request: Request) -> JsonObject:
        name = profile_name(request)
        save_profile_preserving_identity(
            self._stores.agent_profiles, _profile(name, json.loads(request.body)), max_profiles=MOST_PROFILES
        )
        return told("Agent profile", name, "saved")

    def _delete(self, request: Request) -> JsonObject:
        """Where it was the active one, default is from then on, and the settings are no ACP agent's any more."""
        name = profile_name(request)
        if self._has_any:
            ids = self._ids()
            with self._settings.changing() as settings:
                self._stores.agent_profiles.delete(name)
                if settings.pointers[_ACTIVE] == ids.get(name, ""):
                    if isinstance(settings.agent, ACPAgentSettings):
                        settings.agent = OpenHandsAgentSettings(mcp_config=settings.agent.mcp_config)
                    self._require_active(settings)
        return told("Agent profile", name, "deleted")

    def _rename(self, request: Request) -> JsonObject:
        name, wanted = profile_name(request), new_name(request)
        self._loaded(name)
        with renaming("Agent profile", name, wanted):
            self._stores.agent_profiles.rename(name, wanted)
        return renamed("Agent profile", name, wanted)

    def _activate(self, request: Request) -> JsonObject:
        profile_id = request.arguments["id"]
        name = self._stores.agent_profiles.name_for_id(profile_id) if self._has_any else None
        if name is None:
            raise NotFound(f"Agent profile with id '{profile_id}' not found")
        with self._settings.changing() as settings:
            settings.pointers[_ACTIVE] = profile_id
        message = f"Agent profile '{profile_id}' activated"
        return {"id": profile_id, "message": message, "agent_settings_applied": False}

    async def _materialize(self, request: Request) -> Answer:
        """What launching it would come to; what it refers to and is not there is told, not raised."""
        skills = await self._extensions.available_skills(str(self._server.workspace_path))

        def preview() -> bytes:
            with store_errors():
                name, draft = profile_name(request), json.loads(request.body or b"{}").get("profile")
                profile = self._loaded(name) if draft is None else _profile(name, draft)
                found = preview_launch(profile, self._stored.stores(skills), launch_runtime(self._server))
                return pydantic_core.to_json(found)

        return Answer(200, await self._extensions.workers.call(preview))

    def _is_stored(self, name: str) -> bool:
        return self._has_any and f"{name}.json" in self._stores.agent_profiles.list()

    def _loaded(self, name: str) -> OpenHandsAgentProfile | ACPAgentProfile:
        if not self._is_stored(name):
            raise NotFound(f"Agent profile '{name}' not found")
        return self._stores.agent_profiles.load(name)


def _profile(name: str, given: JsonObject) -> OpenHandsAgentProfile | ACPAgentProfile:
    """Raises InvalidRequest for what is no profile."""
    try:
        return validate_agent_profile({**given, "name": name})
    except ValidationError as error:
        # Each begins with the kind, and repeats nothing.
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest(redact_problems(problems)) from None
    except (TypeError, ValueError) as error:
        raise InvalidRequest(str(error)) from error
