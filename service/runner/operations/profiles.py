"""What is asked of LLM profiles, meta-profiles and provider connections, by name."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from openhands.sdk.llm import LLM
from openhands.sdk.llm.llm_profile_store import canonical_profile_name
from openhands.sdk.llm.meta_profile_store import MetaProfile
from openhands.sdk.llm.provider_connection_store import ProviderConnection
from openhands.sdk.profiles.profile_refs import delete_llm_profile, rename_llm_profile
from openhands.sdk.settings.model import OpenHandsAgentSettings
from openhands.sdk.utils.cipher import Cipher

from service.errors import Conflict, InvalidRequest, JsonObject, NotFound
from service.redaction import REDACTED_SECRET
from service.requests.message import Request
from service.runner.operations.store_access import StoreAccess
from service.runner.operations.table import Operation
from service.runner.persistence.profile_stores import MOST_PROFILES, ProfileStores
from service.runner.persistence.settings_store import SettingsStore
from service.runner.secrets_at_rest import UnknownSecretKey, require_known_tokens
from service.runner.wire.request_models import NewProfile
from service.runner.wire.validation import parse


class ProfileOperations:
    """Over the SDK's own stores. One that has no folder yet is empty, and asking does not make it."""

    def __init__(self, root: Path, cipher: Cipher, access: StoreAccess) -> None:
        self._stores = ProfileStores(root)
        self._cipher = cipher
        self._settings = SettingsStore(root, cipher)
        self.table: dict[str, Operation] = {
            "profiles.list": access.reading(self._list),
            "profiles.get": access.reading(self._get),
            "profiles.save": access.changing(self._save, status=201),
            "profiles.delete": access.changing(self._delete),
            "profiles.rename": access.changing(self._rename),
            "profiles.activate": access.changing(self._activate),
            "meta_profiles.list": access.reading(self._list_meta),
            "meta_profiles.get": access.reading(self._get_meta),
            "meta_profiles.save": access.changing(self._save_meta, status=201),
            "meta_profiles.delete": access.changing(self._delete_meta),
            "meta_profiles.activate": access.changing(self._activate_meta),
            "connections.list": access.reading(self._list_connections),
            "connections.add": access.changing(self._add_connection, status=201),
            "connections.change": access.changing(self._change_connection),
            "connections.delete": access.changing(self._delete_connection),
        }

    # LLM profiles

    def _list(self, request: Request) -> JsonObject:
        profiles: Any = self._stores.llm_profiles.list_summaries() if self._stores.llm_profiles_path.is_dir() else []
        active = self._settings.pointer("active_profile")
        # A process that died between the two files may have left the name of one that is gone.
        return {
            "profiles": profiles,
            "active_profile": active if active in {each["name"] for each in profiles} else None,
        }

    def _get(self, request: Request) -> JsonObject:
        name, expose = profile_name(request), request.arguments.get("expose")
        if not (self._stores.llm_profiles_path / f"{name}.json").exists():
            raise no_profile(name)
        llm = self._stores.llm_profiles.load(name, cipher=self._cipher, resolve_provider=expose == "plaintext")
        context = {"expose_secrets": expose, "cipher": self._cipher} if expose else {}
        config = llm.model_dump(mode="json", context=context)
        if expose is None:
            secret = {key for key in config if config[key] == REDACTED_SECRET}
            config |= dict.fromkeys(secret)
        return {"name": name, "config": config, "api_key_set": self._has_key(llm)}

    def _has_key(self, llm: LLM) -> bool:
        """Its own, or that of its provider connection."""
        try:
            found = self._stores.llm_profiles.resolve_provider_connection(llm, cipher=self._cipher)
        except ValueError:  # the connection is gone, or none can be read
            return False
        return found.api_key is not None

    def _save(self, request: Request) -> JsonObject:
        name = profile_name(request)
        wanted = parse(NewProfile, request.body, {"cipher": self._cipher})
        self._stores.llm_profiles.save(
            name,
            wanted.llm,
            include_secrets=wanted.include_secrets,
            cipher=self._cipher,
            max_profiles=MOST_PROFILES,
        )
        return told("Profile", name, "saved")

    def _delete(self, request: Request) -> JsonObject:
        name = profile_name(request)
        with self._settings.changing() as settings:
            delete_llm_profile(self._stores.agent_profiles, self._stores.llm_profiles, name)
            if settings.pointers["active_profile"] == name:
                settings.pointers["active_profile"] = None
        return told("Profile", name, "deleted")

    def _rename(self, request: Request) -> JsonObject:
        name, wanted = profile_name(request), new_name(request)
        with self._settings.changing() as settings, renaming("Profile", name, wanted):
            rename_llm_profile(self._stores.agent_profiles, self._stores.llm_profiles, name, wanted)
            if settings.pointers["active_profile"] == name:
                settings.pointers["active_profile"] = wanted
        return renamed("Profile", name, wanted)

    def _activate(self, request: Request) -> JsonObject:
        name = profile_name(request)
        llm = load_usable(self._stores, name, self._cipher)
        with self._settings.changing() as settings:
            applied = isinstance(settings.agent, OpenHandsAgentSettings)
            if applied:
                settings.agent = settings.agent.model_copy(update={"llm": llm})
            settings.pointers["active_profile"] = name
        what = "activated and applied to current settings" if applied else "activated"
        return {**told("Profile", name, what), "llm_applied": applied}

    # Meta-profiles

    def _list_meta(self, request: Request) -> JsonObject:
        profiles = self._stores.meta_profiles.list_summaries() if self._stores.meta_profiles_path.is_dir() else []
        return {"meta_profiles": profiles, "active_meta_profile": self._settings.pointer("active_meta_profile")}

    def _get_meta(self, request: Request) -> JsonObject:
        name = profile_name(request)
        return {"name": name, "config": load_meta(self._stores, name)}

    def _save_meta(self, request: Request) -> JsonObject:
        name, wanted = profile_name(request), parse(MetaProfile, request.body)
        if not wanted.classes and wanted.prompt_template is None:
            raise InvalidRequest("A meta-profile needs classes or a prompt_template")
        self._stores.meta_profiles.save(name, wanted, max_profiles=MOST_PROFILES)
        return told("Meta-profile", name, "saved")

    def _delete_meta(self, request: Request) -> JsonObject:
        name = profile_name(request)
        with self._settings.changing() as settings:
            self._stores.meta_profiles.delete(name)
            if settings.pointers["active_meta_profile"] == name:
                settings.route_by(None)
        return told("Meta-profile", name, "deleted")

    def _activate_meta(self, request: Request) -> JsonObject:
        name = profile_name(request)
        profile = load_meta(self._stores, name)
        with self._settings.changing() as settings:
            applied = settings.route_by(name, profile)
        what = "activated" if applied else "not activated: the settings' agent cannot choose among LLMs"
        return {**told("Meta-profile", name, what), "applied": applied}

    # Provider connections

    def _list_connections(self, request: Request) -> list[JsonObject]:
        if not self._stores.connections_path.is_dir():
            return []
        return [_shown(each) for each in self._stores.connections.list(cipher=self._cipher)]

    def _add_connection(self, request: Request) -> JsonObject:
        now = int(time.time())
        connection = ProviderConnection(id=uuid4().hex, created_at=now, updated_at=now, **json.loads(request.body))
        return _shown(self._stores.connections.create(connection, cipher=self._cipher))

    def _change_connection(self, request: Request) -> JsonObject:
        known = self._connection(request)
        wanted: dict[str, Any] = json.loads(request.body)
        kept = known.model_dump(context={"expose_secrets": "plaintext"})
        changed = ProviderConnection.model_validate({**kept, **wanted, "updated_at": int(time.time())})
        return _shown(self._stores.connections.update(changed, cipher=self._cipher))

    def _delete_connection(self, request: Request) -> JsonObject:
        known = self._connection(request)
        profiles: Any = self._stores.llm_profiles.list_summaries()  # the SDK's annotation names its method
        users = [each["name"] for each in profiles if each["provider_connection_id"] == known.id]
        if users:
            raise Conflict(f"Provider connection is referenced by {len(users)} LLM profile(s): {', '.join(users)}")
        if getattr(getattr(self._settings.read().agent, "llm", None), "provider_connection_id", None) == known.id:
            raise Conflict("Provider connection is referenced by the active settings")
        self._stores.connections.delete(known.id, cipher=self._cipher)
        return {**_shown(known), "api_key_set": False}

    def _connection(self, request: Request) -> ProviderConnection:
        found = self._stores.connections.get(request.arguments["id"], cipher=self._cipher)
        if found is None:
            raise NotFound(f"Provider connection '{request.arguments['id']}' not found")
        return found


def load_usable(stores: ProfileStores, name: str, cipher: Cipher) -> LLM:
    """An LLM profile with its key, and those of its provider connection. Blocking.

    Raises:
        NotFound: there is no such profile.
        ValueError, ProviderConnectionNotFound, TimeoutError: as the store does.
        Conflict: its key is under one that this server does not have. The SDK would take it for absent.
    """
    try:
        require_known_tokens((stores.llm_profiles_path / f"{name}.json").read_text("utf-8"), cipher)
    except FileNotFoundError:
        raise no_profile(name) from None
    except UnknownSecretKey as error:
        raise Conflict(f"Profile '{name}' cannot be used: {error}") from error
    return stores.llm_profiles.load(name, cipher=cipher)


def load_meta(stores: ProfileStores, name: str) -> MetaProfile:
    """A meta-profile. Blocking. Raises NotFound when there is none, ValueError when it cannot be read."""
    if not (stores.meta_profiles_path / f"{name}.json").exists():
        raise NotFound(f"Meta-profile '{name}' not found")
    return stores.meta_profiles.load(name)


def no_profile(name: str) -> NotFound:
    """What there is instead of a profile; the store's own words tell where it looked."""
    return NotFound(f"Profile '{name}' not found")


def profile_name(request: Request) -> str:
    """The name that a request's path has, in the stores' form."""
    return canonical_profile_name(request.arguments["name"])


def new_name(request: Request) -> str:
    """The name that a renaming gives, in the stores' form."""
    return canonical_profile_name(json.loads(request.body)["new_name"])


def told(kind: str, name: str, what: str) -> JsonObject:
    """What is answered to a change of a profile."""
    return {"name": name, "message": f"{kind} '{name}' {what}"}


@contextmanager
def renaming(kind: str, name: str, wanted: str) -> Iterator[None]:
    """What the SDK's stores say about a renaming, in the words of all other answers."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"{kind} '{name}' not found") from None
    except FileExistsError:
        raise Conflict(f"{kind} '{wanted}' already exists") from None


def renamed(kind: str, name: str, wanted: str) -> JsonObject:
    """What is answered to a renaming."""
    what = "unchanged (same name)" if wanted == name else f"renamed to '{wanted}'"
    return {**told(kind, name, what), "name": wanted}


def _shown(connection: ProviderConnection) -> JsonObject:
    shown = connection.model_dump(mode="json", exclude={"api_key"})
    return {**shown, "api_key_set": connection.api_key_value() is not None}
