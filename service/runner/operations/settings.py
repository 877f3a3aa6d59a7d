"""What is asked of settings and secrets, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from openhands.sdk.llm.llm_profile_store import canonical_profile_name
from openhands.sdk.settings.api_models import MCPServerPatch
from openhands.sdk.settings.model import (
    ConversationSettings,
    OpenHandsAgentSettings,
    export_agent_settings_schema,
    export_settings_schema,
)
from openhands.sdk.utils.cipher import Cipher

from service.errors import BadRequest, Conflict, InvalidRequest, JsonObject, NotFound
from service.requests.message import Request
from service.runner.operations.profiles import load_meta, load_usable
from service.runner.operations.store_access import StoreAccess
from service.runner.operations.table import Operation
from service.runner.persistence.profile_stores import ProfileStores
from service.runner.persistence.settings_store import POINTERS, CurrentSettings, SecretsStore, SettingsStore, merge
from service.runner.wire.request_models import NewMCPServer, SettingsPatch
from service.runner.wire.validation import parse


class SettingsOperations:
    """Any runner answers them, from the files."""

    def __init__(self, root: Path, cipher: Cipher, access: StoreAccess) -> None:
        self._stores = ProfileStores(root)
        self._cipher = cipher
        self._settings = SettingsStore(root, cipher)
        self._secrets = SecretsStore(root, cipher)
        self.table: dict[str, Operation] = {
            "settings.agent_schema": access.reading(lambda _: export_agent_settings_schema()),
            "settings.conversation_schema": access.reading(lambda _: export_settings_schema(ConversationSettings)),
            "settings.get": access.reading(self._get),
            "settings.change": access.changing(self._change),
            "settings.add_mcp": access.changing(self._add_mcp, status=201),
            "settings.change_mcp": access.changing(self._change_mcp),
            "settings.delete_mcp": access.changing(self._delete_mcp),
            "secrets.list": access.reading(self._list_secrets),
            "secrets.get": access.reading(lambda request: self._secrets.value(request.arguments["name"])),
            "secrets.put": access.changing(self._put_secret),
            "secrets.delete": access.changing(self._delete_secret),
        }

    def _get(self, request: Request) -> JsonObject:
        return self._settings.read().shown(request.arguments.get("expose"))

    def _change(self, request: Request) -> JsonObject:
        wanted = parse(SettingsPatch, request.body)
        given = {name for name in wanted.model_fields_set if name in POINTERS or getattr(wanted, name) is not None}
        if not given:
            raise BadRequest(f"At least one of {', '.join(SettingsPatch.model_fields)} must be given")
        with self._settings.changing() as settings:
            if wanted.agent_settings_diff is not None:
                settings.change_agent(wanted.agent_settings_diff)
            if wanted.conversation_settings_diff is not None:
                settings.change_conversation(wanted.conversation_settings_diff)
            if wanted.misc_settings_diff is not None:
                settings.misc = merge(settings.misc, wanted.misc_settings_diff)
            if "active_profile" in given:
                self._point_at_profile(settings, wanted.active_profile, "llm" in (wanted.agent_settings_diff or {}))
            if "active_agent_profile_id" in given:
                wanted_id = wanted.active_agent_profile_id
                if wanted_id is not None and self._agent_profile_name(wanted_id) is None:
                    raise NotFound(f"Agent profile with id '{wanted_id}' not found")
                settings.pointers["active_agent_profile_id"] = wanted_id
            if "active_meta_profile" in given:
                name = wanted.active_meta_profile
                settings.route_by(name, None if name is None else load_meta(self._stores, name))
            return settings.shown(None)

    def _point_at_profile(self, settings: CurrentSettings, name: str | None, has_llm: bool) -> None:
        if name is not None:
            llm = load_usable(self._stores, canonical_profile_name(name), self._cipher)
            if not has_llm and isinstance(settings.agent, OpenHandsAgentSettings):
                settings.agent = settings.agent.model_copy(update={"llm": llm})
        settings.pointers["active_profile"] = name

    def _agent_profile_name(self, profile_id: str) -> str | None:
        """None where there is none of that id, as of what is no id."""
        try:
            return self._stores.agent_profiles.name_for_id(UUID(profile_id))
        except ValueError:
            return None

    def _add_mcp(self, request: Request) -> JsonObject:
        key = request.arguments["key"]
        server = parse(NewMCPServer, request.body)
        if not server.url and not server.command:
            raise InvalidRequest("An MCP server needs a url or a command")
        with self._settings.changing() as settings:
            if key in (settings.agent.mcp_config or {}):
                raise Conflict(f"MCP server '{key}' already exists")
            settings.change_agent({"mcp_config": {key: json.loads(request.body)}})
            return settings.shown(None)

    def _change_mcp(self, request: Request) -> JsonObject:
        parse(MCPServerPatch, request.body)
        return self._change_known_mcp(request, json.loads(request.body))

    def _delete_mcp(self, request: Request) -> JsonObject:
        return self._change_known_mcp(request, None)

    def _change_known_mcp(self, request: Request, patch: JsonObject | None) -> JsonObject:
        key = request.arguments["key"]
        with self._settings.changing() as settings:
            if key not in (settings.agent.mcp_config or {}):
                raise NotFound(f"MCP server '{key}' was not found")
            settings.change_agent({"mcp_config": {key: patch}})
            return settings.shown(None)

    def _list_secrets(self, request: Request) -> JsonObject:
        secrets = self._secrets.all()
        profile_id = request.arguments.get("agent_profile_id")
        if profile_id is not None:
            name = self._agent_profile_name(profile_id)
            if name is None:
                raise NotFound("Agent profile not found")
            allowed = self._stores.agent_profiles.load(name).secret_refs
            secrets = [secret for secret in secrets if allowed is None or secret.name in allowed]
        return {"secrets": [secret.shown() for secret in secrets]}

    def _put_secret(self, request: Request) -> JsonObject:
        wanted: dict[str, Any] = json.loads(request.body)
        return self._secrets.put(wanted["name"], wanted["value"], wanted["description"]).shown()

    def _delete_secret(self, request: Request) -> JsonObject:
        self._secrets.delete(request.arguments["name"])
        return {"deleted": True}
