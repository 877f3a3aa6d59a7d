"""Skills and plugins of this machine's user, and the threads that look for them, perhaps over the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from openhands.sdk.plugin import Plugin
from openhands.sdk.plugin.discovery import load_project_plugins
from openhands.sdk.plugin.installed import PluginInstallationInterface
from openhands.sdk.skills.installed import SkillInstallationInterface

from service.errors import JsonObject
from service.runner.extensions.installed import InstalledExtensions
from service.runner.extensions.skill_catalog import AvailableSkills, SkillCatalog
from service.runner.workers import Threads

_log = structlog.get_logger(__name__)

_THREADS = 8
"""Of their own: one that waits for a network must not keep a conversation waiting."""
_NETWORK_SECONDS = 20.0
"""For a clone of the public catalog; where there is no network, git may take its time to say so."""


class Extensions:
    """All below `persistence_dir`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.skills = InstalledExtensions(root / "skills" / "installed", SkillInstallationInterface(), "skill")
        self.plugins = InstalledExtensions(
            root / "plugins" / "installed", PluginInstallationInterface(), "plugin", plugin_contents
        )
        self.catalog = SkillCatalog(root, self.skills)
        self.workers = Threads(_THREADS)

    @property
    def plugin_cache(self) -> Path:
        return self._root / "cache" / "plugins"

    def close(self) -> None:
        self.workers.close()

    async def in_time[R](self, function: Callable[[], R], otherwise: R) -> R:
        """What `function` finds, if need be over the network, or `otherwise` when that takes too long."""
        try:
            async with asyncio.timeout(_NETWORK_SECONDS):
                return await self.workers.call(function)
        except TimeoutError:
            _log.warning("network_too_slow", waited_seconds=_NETWORK_SECONDS)
            return otherwise

    async def available_skills(self, work_dir: str) -> AvailableSkills:
        """What an agent in that directory is given; without the public ones where those cannot be had in time."""
        found = await self.in_time(lambda: self.catalog.available(work_dir), None)
        if found is not None:
            return found
        return await self.workers.call(self.catalog.available, work_dir, with_public=False)

    def ambient_plugins(self, project: str | None, *, with_user: bool) -> list[Plugin]:
        """Plugins that are there without being asked for; the project's win over the user's over installed ones."""
        found: list[Plugin] = []
        if with_user:
            kept = self._root / "plugins" / "installed"
            folders = (self._root / "plugins", Path.home() / ".agents" / "plugins")
            found += self.plugins.loaded()
            found += [plugin for folder in folders for plugin in _in_folder(folder, kept)]
        if project is not None:
            found += load_project_plugins(project)
        return list({plugin.name: plugin for plugin in found}.values())


def plugin_contents(directory: Path) -> JsonObject:
    """`{"skills": [{name, description}], "files": [...]}`; empty for a directory that is no plugin."""
    try:
        plugin = Plugin.load(directory)
    except (OSError, ValueError):
        return {"skills": [], "files": []}
    return contents_of(plugin)


def contents_of(plugin: Plugin) -> JsonObject:
    directory = Path(plugin.path)
    files = (path for path in directory.rglob("*") if path.is_file() and ".git" not in path.parts)
    skills = [{"name": skill.name, "description": skill.description} for skill in plugin.get_all_skills()]
    return {"skills": skills, "files": sorted(str(path.relative_to(directory)) for path in files)}


def _in_folder(folder: Path, excluded: Path) -> list[Plugin]:
    found = []
    for directory in sorted(folder.iterdir()) if folder.is_dir() else ():
        if directory.is_dir() and directory != excluded:
            try:
                found.append(Plugin.load(directory))
            except (OSError, ValueError) as error:
                _log.warning("plugin_unreadable", path=str(directory), error=str(error))
    return found
