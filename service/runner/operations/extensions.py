"""What is asked of skills, plugins, hooks and sub-agents, by name. The bodies have been validated by a web worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pydantic_core
from openhands.sdk.hooks import HookConfig
from openhands.sdk.plugin.strict_fetch import PluginSourceError, fetch_plugin_strict
from openhands.sdk.skills import Skill
from openhands.sdk.subagent.load import discover_agents
from openhands.tools.preset.default import discover_builtin_agents

from service.errors import JsonObject, SourceRefused, SourceTimedOut, SourceUnavailable
from service.requests.message import Answer, Request
from service.runner.conversation.launching import has_browser, registrations
from service.runner.extensions.extensions import Extensions, contents_of, plugin_contents
from service.runner.extensions.installed import InstalledExtensions
from service.runner.extensions.skill_catalog import merged, work_hosts
from service.runner.operations.table import SUCCESS, Operation, answered
from service.runner.wire.request_models import MarketplacesRequest, UpdateSecretsRequest
from service.runner.wire.validation import parse
from service.settings import Settings

_UNREACHED = {502: SourceUnavailable, 504: SourceTimedOut}


class ExtensionOperations:
    """Any runner answers them: all share the folder."""

    def __init__(self, settings: Settings, extensions: Extensions) -> None:
        self._settings = settings
        self._extensions = extensions
        self._catalog = extensions.catalog
        self._workers = extensions.workers
        self.table: dict[str, Operation] = {
            "skills.list": self._skills,
            "skills.catalog": self._skill_catalog,
            "skills.sync": self._sync,
            "skills.marketplace": self._skill_marketplace,
            "plugins.list": self._plugins,
            "plugins.fetch": self._fetch,
            "plugins.marketplace": self._plugin_marketplace,
            "hooks.load": self._hooks,
            "sub_agents.list": self._sub_agents,
            **self._of_installed("skills", extensions.skills),
            **self._of_installed("plugins", extensions.plugins),
        }

    def _of_installed(self, kind: str, installed: InstalledExtensions) -> dict[str, Operation]:
        async def list_all(request: Request) -> Answer:
            return answered({kind: await self._workers.call(installed.all)})

        async def get(request: Request) -> Answer:
            return answered(await self._workers.call(installed.get, request.arguments["name"]))

        async def install(request: Request) -> Answer:
            return answered(await self._workers.call(partial(installed.install, **json.loads(request.body))))

        async def refresh(request: Request) -> Answer:
            return answered(await self._workers.call(installed.refresh, request.arguments["name"]))

        async def enable(request: Request) -> Answer:
            enabled = json.loads(request.body)["enabled"]
            await self._workers.call(installed.enable, request.arguments["name"], enabled=enabled)
            return SUCCESS

        async def uninstall(request: Request) -> Answer:
            await self._workers.call(installed.uninstall, request.arguments["name"])
            return SUCCESS

        named = {
            "installed": list_all,
            "get": get,
            "install": install,
            "refresh": refresh,
            "enable": enable,
            "uninstall": uninstall,
        }
        return {f"{kind}.{name}": operation for name, operation in named.items()}

    async def _skills(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        catalog, project = self._catalog, wanted["project_dir"]
        given = parse(MarketplacesRequest, request.body).registered_marketplaces
        registered = {each.name: each for each in (*registrations(self._settings), *given)}
        urls = [each["org_repo_url"] for each in wanted["org_configs"] or () if wanted["load_org"]]
        public, *organizations, marketplaces = await asyncio.gather(
            self._found(wanted["load_public"], partial(catalog.public, wanted["marketplace_path"])),
            *(self._found(True, partial(catalog.organization, url)) for url in urls),
            self._found(wanted["load_public"], partial(catalog.marketplaces, list(registered.values()))),
        )
        user = await self._workers.call(catalog.user) if wanted["load_user"] else []
        projects = await self._workers.call(catalog.project, project) if wanted["load_project"] else []
        sandbox = work_hosts((wanted["sandbox_config"] or {}).get("exposed_urls", []))
        organization = merged(*organizations)
        base = merged(public, user)
        skills = merged(sandbox, marketplaces, base, organization, projects)
        sources = {
            "sandbox": len(sandbox),
            "registered_marketplaces": len(marketplaces),
            "sdk_base": len(base),
            "org": len(organization),
            "project": len(projects),
        }
        return answered({"skills": [skill.to_skill_info() for skill in skills], "sources": sources})

    async def _found(self, is_wanted: bool, find: Callable[[], list[Skill]]) -> list[Skill]:
        nothing: list[Skill] = []
        return await self._extensions.in_time(find, nothing) if is_wanted else nothing

    async def _skill_catalog(self, request: Request) -> Answer:
        public = await self._found(True, partial(self._catalog.public, None))
        user = await self._workers.call(self._catalog.user)
        origins = {skill.name: "public" for skill in public} | {skill.name: "user" for skill in user}
        skills = [skill.to_skill_info().model_dump() for skill in merged(public, user)]
        return answered({"skills": [skill | {"origin": origins[skill["name"]]} for skill in skills]})

    async def _sync(self, request: Request) -> Answer:
        late = {"status": "error", "message": "The catalog of public skills did not answer in time"}
        return answered(await self._extensions.in_time(self._catalog.sync, late))

    async def _skill_marketplace(self, request: Request) -> Answer:
        offers = await self._offers(skills=True)
        installed = await self._installed_names(self._extensions.skills)
        kept = ("name", "description", "source", "ref", "repo_path")
        shown = [{key: offer[key] for key in kept} | {"installed": offer["name"] in installed} for offer in offers]
        return answered({"skills": shown})

    async def _plugin_marketplace(self, request: Request) -> Answer:
        offers = await self._offers(skills=False)
        installed = await self._installed_names(self._extensions.plugins)
        return answered({"plugins": await self._workers.call(_shown_plugins, offers, installed)})

    async def _offers(self, *, skills: bool) -> list[JsonObject]:
        nothing: list[JsonObject] = []
        offers = await self._extensions.in_time(self._catalog.offers, nothing)
        return [offer for offer in offers if offer["is_skill"] is skills]

    async def _installed_names(self, installed: InstalledExtensions) -> set[str]:
        return {extension["name"] for extension in await self._workers.call(installed.all)}

    async def _plugins(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        project = wanted["project_dir"] if wanted["load_project"] else None

        def find() -> list[JsonObject]:
            found = self._extensions.ambient_plugins(project, with_user=wanted["load_user"])
            return [
                {"name": one.name, "version": one.version, "description": one.description, "path": one.path}
                | contents_of(one)
                for one in found
            ]

        return answered({"plugins": await self._workers.call(find)})

    async def _fetch(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        secrets = parse(UpdateSecretsRequest, pydantic_core.to_json({"secrets": wanted.pop("secrets")})).secrets
        cache = self._extensions.plugin_cache
        fetch = partial(fetch_plugin_strict, **wanted, secrets=dict(secrets), cache_dir=cache, allow_local=True)
        try:
            return answered(await self._workers.call(fetch))
        except PluginSourceError as error:
            refusal = _UNREACHED.get(error.status_code, SourceRefused)
            raise refusal(error.code, error.message) from error

    async def _hooks(self, request: Request) -> Answer:
        project = json.loads(request.body)["project_dir"]
        return answered({"hook_config": project and await self._workers.call(_hooks_of, project)})

    async def _sub_agents(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        with_browser = await self._workers.call(has_browser, self._settings)

        def find() -> list[JsonObject]:
            found = discover_agents(
                wanted["project_dir"], include_project=wanted["load_project"], include_user=wanted["load_user"]
            )
            if wanted["load_builtin"]:
                found += discover_builtin_agents(enable_browser=with_browser)
            first: dict[str, Any] = {}
            for agent in found:
                first.setdefault(agent.name, agent)
            shown = [agent.model_dump(mode="json", by_alias=True) for agent in first.values()]
            return [
                agent | {"mcp_servers": agent["mcp_config"], "is_builtin": agent["level"] == "builtin"}
                for agent in shown
            ]

        return answered({"agents": await self._workers.call(find)})


def _hooks_of(project: str) -> HookConfig | None:
    """What a project's file says; None when there is none, or none that means anything."""
    try:
        hooks = HookConfig.load(Path(project) / ".openhands" / "hooks.json")
    except (OSError, ValueError):
        return None
    return None if hooks.is_empty() else hooks


def _shown_plugins(offers: list[JsonObject], installed: set[str]) -> list[JsonObject]:
    return [
        {key: value for key, value in offer.items() if key != "is_skill"}
        | {"installed": offer["name"] in installed}
        | (plugin_contents(Path(offer["path"])) if offer["path"] else {"skills": [], "files": []})
        for offer in offers
    ]
