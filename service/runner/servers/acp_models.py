"""Which models an ACP server offers: it is started for that, so what it said is kept for a while."""

from __future__ import annotations

import hashlib
from functools import partial

import httpx
import pydantic_core
from cachetools import TTLCache
from openhands.sdk.agent.acp_model_discovery import discover_acp_models
from openhands.sdk.secret import SecretSource
from openhands.sdk.settings.model import ACPAgentSettings

from service.errors import InvalidRequest, RemoteUnavailable
from service.runner.workers import Threads

_AT_ONCE = 2
_KEPT_SECONDS = 300.0
_KEPT = 32


class AcpModels:
    """Methods of the runner's loop."""

    def __init__(self) -> None:
        self._threads = Threads(_AT_ONCE)
        self._found: TTLCache[bytes, bytes] = TTLCache(_KEPT, _KEPT_SECONDS)
        """By a digest of what was asked, which has secrets in it."""

    async def find(self, settings: ACPAgentSettings, secrets: dict[str, SecretSource], *, refresh: bool) -> bytes:
        """ACPModelDiscovery as JSON; a server that cannot be started is an answer, with the reason in `error`.

        Raises:
            InvalidRequest: the settings name no server, or a secret's source makes no sense.
            RemoteUnavailable: a secret is to be looked up elsewhere, and cannot be.
        """
        try:
            command = settings.resolve_acp_command()
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        values = await self._threads.call(_values, secrets)
        shown = settings.model_dump(mode="json", context={"expose_secrets": True})
        question = hashlib.sha256(pydantic_core.to_json([command, shown, values])).digest()
        found = self._found.get(question)
        if found is not None and not refresh:
            return found
        discovered = await self._threads.call(partial(discover_acp_models, settings, secrets=dict(secrets)))
        content = pydantic_core.to_json(discovered)
        if discovered.error is None:
            self._found[question] = content
        return content

    def close(self) -> None:
        self._threads.close()


def _values(secrets: dict[str, SecretSource]) -> dict[str, str | None]:
    """Blocking: one may be asked for over HTTP."""
    try:
        return {name: source.get_value() for name, source in secrets.items()}
    except httpx.HTTPError as error:
        raise RemoteUnavailable(f"A secret cannot be looked up: {error}") from error
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidRequest(f"A secret cannot be looked up: {error}") from error
