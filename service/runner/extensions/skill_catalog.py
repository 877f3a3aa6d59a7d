"""Which skills there are: of the public catalog, of organizations, the user's and a project's. Blocking.

Whatever is not there, or cannot be fetched, is left out: an agent works without it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from openhands.sdk.git.cached_repo import try_cached_clone_or_update
from openhands.sdk.marketplace import (
    Marketplace,
    MarketplaceEntry,
    MarketplacePluginEntry,
    MarketplaceRegistration,
    MarketplaceRegistry,
)
from openhands.sdk.plugin import Plugin
from openhands.sdk.plugin.fetch import PluginFetchError, fetch_plugin
from openhands.sdk.skills import Skill, load_project_skills
from openhands.sdk.skills.installed import load_marketplace_standalone_skills
from openhands.sdk.skills.skill import (
    DEFAULT_MARKETPLACE_PATH,
    PUBLIC_SKILLS_PATH_ENV,
    PUBLIC_SKILLS_REF,
    PUBLIC_SKILLS_REPO,
    load_public_skills,
    load_skills_from_dir,
)
from openhands.sdk.skills.utils import find_skill_md, get_skills_cache_dir, update_skills_repository

from service.errors import JsonObject
from service.runner.extensions.installed import InstalledExtensions, safe_text

_log = structlog.get_logger(__name__)

_ORGANIZATION_DIRECTORIES = ("skills", "microagents")
_WORKER = "WORKER_"
"""Names of exposed URLs that lead to what the agent serves."""


class AvailableSkills(NamedTuple):
    """What an agent can be given."""

    skills: list[Skill]
    public_names: frozenset[str]
    """Of those that come from the public catalog: the ones that an agent profile's `public_skills` chooses among."""


class SkillCatalog:
    """Reads the folders anew each time."""

    def __init__(self, root: Path, installed: InstalledExtensions) -> None:
        self._root = root
        self._installed = installed

    def available(self, work_dir: str | None, *, with_public: bool = True) -> AvailableSkills:
        """What an agent in that directory can be given; the project's win over the user's over public ones."""
        public = self.public(DEFAULT_MARKETPLACE_PATH) if with_public else []
        own = merged(self.user(), self.project(work_dir))
        return AvailableSkills(merged(public, own), names(public) - names(own))

    def public(self, marketplace_path: str | None) -> list[Skill]:
        """From the public catalog, which is cloned at the first time; empty where it cannot be reached."""
        return list(load_public_skills(marketplace_path=marketplace_path))

    def user(self) -> list[Skill]:
        """From the user's folders, and the installed ones, which they win over."""
        kept = self._root / "skills" / "installed"
        folders = (Path.home() / ".agents" / "skills", self._root / "skills", self._root / "microagents")
        own = [from_folder(folder, kept) for folder in folders]
        return merged(self._installed.loaded(), *reversed(own))

    def project(self, directory: str | None) -> list[Skill]:
        """From a project's folders and files such as AGENTS.md."""
        return [] if directory is None or not Path(directory).is_dir() else list(load_project_skills(directory))

    def organization(self, repository_url: str) -> list[Skill]:
        """From an organization's repository; the URL may carry credentials, which are not kept."""
        with tempfile.TemporaryDirectory() as directory:
            clone = try_cached_clone_or_update(repository_url, Path(directory) / "organization", update=True)
            if clone is None:
                return []
            return merged(*(from_folder(clone / name) for name in _ORGANIZATION_DIRECTORIES))

    def marketplaces(self, registrations: list[MarketplaceRegistration]) -> list[Skill]:
        """What the registrations, of which no two have one name, load by themselves: skills, and those of plugins."""
        registry = MarketplaceRegistry(registrations)
        found = []
        for registration in registrations:
            try:
                marketplace, path = registry.get_marketplace(registration.name)
            except Exception as error:  # noqa: BLE001  the SDK raises what git, JSON and the disk raise
                _log.info("marketplace_unreachable", marketplace=registration.name, error=safe_text(error))
                continue
            found.append(load_marketplace_standalone_skills(marketplace, path, registration))
            found += [
                self._of_plugin(marketplace, entry)
                for entry in marketplace.plugins
                if registration.auto_loads_plugin(entry.name)
            ]
        return merged(*found)

    def _of_plugin(self, marketplace: Marketplace, entry: MarketplacePluginEntry) -> list[Skill]:
        source, ref, repo_path = marketplace.resolve_plugin_source(entry)
        try:
            return Plugin.load(fetch_plugin(source, ref=ref, repo_path=repo_path)).get_all_skills()
        except (PluginFetchError, OSError, ValueError) as error:
            _log.info("plugin_unreachable", plugin=entry.name, error=safe_text(error))
            return []

    def sync(self) -> JsonObject:
        """Fetch the public catalog now."""
        if self._local_copy() is None and self._clone(strict=True) is None:
            return {"status": "error", "message": f"{PUBLIC_SKILLS_REPO} cannot be reached"}
        return {"status": "success", "message": "The public skills are up to date"}

    def offers(self) -> list[JsonObject]:
        """Skills and plugins of the public catalog, as what can be installed; none where it is out of reach."""
        path = self._local_copy() or self._clone()
        manifest = None if path is None else path / DEFAULT_MARKETPLACE_PATH
        if path is None or manifest is None or not manifest.is_file():
            return []
        try:
            listed = Marketplace.model_validate({**json.loads(manifest.read_bytes()), "path": str(path)})
        except ValueError as error:
            _log.warning("marketplace_unreadable", path=str(manifest), error=str(error))
            return []
        found = [(entry, *_place(listed, entry)) for entry in (*listed.plugins, *listed.skills)]
        return [
            {
                "name": entry.name,
                "description": entry.description,
                "source": source,
                "ref": ref,
                "repo_path": repo_path,
                "path": source if Path(source).is_dir() else None,
                "is_skill": entry in listed.skills or find_skill_md(Path(source)) is not None,
            }
            for entry, source, ref, repo_path in found
        ]

    def _local_copy(self) -> Path | None:
        given = os.environ.get(PUBLIC_SKILLS_PATH_ENV)
        return Path(given).expanduser() if given else None

    def _clone(self, *, strict: bool = False) -> Path | None:
        return update_skills_repository(PUBLIC_SKILLS_REPO, PUBLIC_SKILLS_REF, get_skills_cache_dir(), strict=strict)


def _place(listed: Marketplace, entry: MarketplaceEntry | MarketplacePluginEntry) -> tuple[str, str | None, str | None]:
    """What an installation takes as `source`, `ref` and `repo_path`; the first alone for what is in the catalog."""
    if isinstance(entry, MarketplacePluginEntry) and not isinstance(entry.source, str):
        url, ref, path = listed.resolve_plugin_source(entry)
        return str(url), ref, path
    source = str(entry.source)
    is_elsewhere = "://" in source or source.startswith("github:")
    return source if is_elsewhere else str(Path(str(listed.path)) / source), None, None


def from_folder(folder: Path, excluded: Path | None = None) -> list[Skill]:
    """Every skill of a folder; loose files in `excluded` are none."""
    if not folder.is_dir():
        return []
    groups = load_skills_from_dir(folder, strict=False, exclude_dirs={excluded} if excluded else None)
    return [skill for group in groups for skill in group.values()]


def names(skills: Iterable[Skill]) -> frozenset[str]:
    return frozenset(skill.name for skill in skills)


def merged(*sources: Iterable[Skill]) -> list[Skill]:
    """One skill a name; of equal names the later source's."""
    return list({skill.name: skill for source in sources for skill in source}.values())


def work_hosts(exposed_urls: list[dict[str, Any]]) -> list[Skill]:
    """The skill that tells an agent under which addresses users see what it serves; none without such addresses."""
    lines = [f"* {url['url']} (port {url['port']})" for url in exposed_urls if url["name"].startswith(_WORKER)]
    if not lines:
        return []
    content = "The user can reach web applications that you serve under these addresses:\n" + "\n".join(lines)
    return [Skill(name="work_hosts", content=content, trigger=None, source=None)]
