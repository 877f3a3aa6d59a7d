"""Skills or plugins that were installed below `persistence_dir`. Blocking.

The SDK's manager does the work; here is a lock over all processes that share the disk, reads that write nothing, and
the reason why something was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from openhands.sdk.extensions.fetch import ExtensionFetchError
from openhands.sdk.extensions.installation import InstallationInfo, InstallationInterface, InstallationManager
from openhands.sdk.extensions.installation.metadata import InstallationMetadata
from openhands.sdk.skills.exceptions import SkillError
from openhands.sdk.utils.redact import redact_url_credentials, redact_url_credentials_in_text

from service.errors import BadRequest, Conflict, InvalidRequest, JsonObject, NotFound, Unavailable

_LOCK_SECONDS = 30.0
_HIDDEN = {"requested_ref"}
"""Of the SDK's record, what the contract does not have."""


class InstalledExtensions:
    """Those in one directory, which other processes change as well."""

    def __init__(
        self,
        directory: Path,
        interface: InstallationInterface[Any],
        noun: str,
        describe: Callable[[Path], JsonObject] | None = None,
    ) -> None:
        """`noun` is what they are called in errors; `describe` adds fields to each by looking into its directory."""
        self._directory = directory
        self._interface = interface
        self._noun = noun
        self._describe = describe
        self._manager = InstallationManager(directory, interface)

    def all(self) -> list[JsonObject]:
        """All of them by name, also those that somebody has only copied there."""
        if not self._directory.is_dir():
            return []
        metadata = InstallationMetadata.load_from_dir(self._directory)
        found = metadata.validate_tracked(self._directory)
        found += metadata.discover_untracked(self._directory, self._interface)
        return [self._shown(info) for info in sorted(found, key=lambda info: info.name)]

    def get(self, name: str) -> JsonObject:
        """Raises NotFound."""
        for extension in self.all():
            if extension["name"] == name:
                return extension
        raise self._missing(name)

    def install(self, source: str, ref: str | None, repo_path: str | None, *, force: bool) -> JsonObject:
        """Fetch and install; what is replaced with `force` keeps whether it is enabled.

        Raises:
            BadRequest: it cannot be fetched.
            Conflict: it is installed already.
            InvalidRequest: it is none.
        """
        with self._changing(), self._refusals():
            return self._shown(self._manager.install(source, ref=ref, repo_path=repo_path, force=force))

    def refresh(self, name: str) -> JsonObject:
        """Fetch it anew from where it came. Raises NotFound, and as `install`; the old copy is kept then."""
        with self._changing():
            self._know(name)
            with self._refusals():
                info = self._manager.update(name)
        if info is None:
            raise self._missing(name)
        return self._shown(info)

    def enable(self, name: str, *, enabled: bool) -> None:
        """Have agents be given it, or not. Raises NotFound."""
        with self._changing():
            if not (self._manager.enable(name) if enabled else self._manager.disable(name)):
                raise self._missing(name)

    def uninstall(self, name: str) -> None:
        """Raises NotFound."""
        with self._changing():
            self._know(name)
            if not self._manager.uninstall(name):
                raise self._missing(name)

    def loaded(self) -> list[Any]:
        """Those that are enabled, as the SDK's objects; what cannot be loaded is left out."""
        found = []
        for extension in self.all():
            if extension["enabled"]:
                try:
                    found.append(self._interface.load_from_dir(Path(extension["install_path"])))
                except (OSError, ValueError, SkillError):
                    continue
        return found

    def _know(self, name: str) -> None:
        """Have the SDK know of it, also if it was only copied there. Raises NotFound."""
        self.get(name)
        self._manager.list_installed()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._directory / ".installed.lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout:
            raise Unavailable(f"Another process is installing a {self._noun}. Retry the request.") from None

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except ExtensionFetchError as error:
            raise BadRequest(f"The {self._noun} cannot be fetched: {safe_text(error)}") from error
        except FileExistsError as error:
            raise Conflict(safe_text(error)) from error
        except (SkillError, ValueError, OSError) as error:
            raise InvalidRequest(f"This is no {self._noun}: {safe_text(error)}") from error

    def _shown(self, info: InstallationInfo) -> JsonObject:
        shown = info.model_dump(mode="json", exclude=_HIDDEN)
        shown["source"] = redact_url_credentials(info.source)
        return shown | (self._describe(info.install_path) if self._describe is not None else {})

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"The {self._noun} '{name}' is not installed")


def safe_text(error: Exception) -> str:
    """What an error says, without the credentials of a URL in it."""
    return redact_url_credentials_in_text(str(error))
