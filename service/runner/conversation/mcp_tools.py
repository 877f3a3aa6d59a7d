"""The tools of MCP servers. Some servers know their user by OAuth tokens, which are renewed and kept here.

Tokens of a server that is in the settings are kept there. Those of one that only a conversation names are told to the
receivers of webhooks, who have given them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, SupportsFloat
from uuid import UUID, uuid4

import httpx
import structlog
from openhands.sdk.mcp import MCPClient, MCPServer, create_mcp_tools
from openhands.sdk.mcp.config import MCPOAuthState
from openhands.sdk.mcp.oauth import NonInteractiveMCPOAuth
from openhands.sdk.utils.cipher import Cipher
from pydantic_core import to_json

from service.catalog.store_lock import StoreLock
from service.errors import Conflict, FanoutError
from service.runner.persistence.settings_store import SettingsStore
from service.runner.servers.mcp_tokens import McpTokens
from service.runner.webhooks.receiver import Receiver, receivers
from service.runner.workers import Workers
from service.settings import Settings
from service.store.dead_letters import Letter
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_PATH = "/mcp-oauth-state"

Renewed = Callable[[str, MCPOAuthState], None]
"""Is told a server's URL and its tokens; callable from any thread."""


class RenewedTokens:
    """Of one runner. Methods of its loop, except where they say so."""

    def __init__(
        self, settings: Settings, cipher: Cipher, lock: StoreLock, workers: Workers, client: httpx.AsyncClient
    ) -> None:
        self._settings = SettingsStore(settings.persistence_root, cipher)
        self._receivers = receivers(settings, client)
        self._cipher = cipher
        self._lock = lock
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._latest: dict[tuple[UUID, str], MCPOAuthState] = {}
        self._keeping = asyncio.Lock()
        self._tasks = TaskSet()

    def tools_of(self, conversation_id: UUID) -> McpTools:
        """What the SDK asks for the tools of this conversation's servers. Callable from any thread."""
        return McpTools(self._state, partial(self._note, conversation_id))

    async def close(self) -> None:
        await self._tasks.stop()

    def _state(self, server: MCPServer) -> MCPOAuthState | None:
        """The newest that is known: the settings are renewed, a conversation's copy of them is not. Blocking."""
        with suppress(Conflict):  # a conversation has its own
            servers = self._settings.read().agent.mcp_config or {}
            for stored in servers.values():
                if _is_same(stored, server.url) and (state := stored.initial_oauth_state(cipher=self._cipher)):
                    return state
        return server.initial_oauth_state(cipher=self._cipher)

    def _note(self, conversation_id: UUID, url: str, state: MCPOAuthState) -> None:
        """Callable from any thread."""
        self._loop.call_soon_threadsafe(self._keep_soon, conversation_id, url, state)

    def _keep_soon(self, conversation_id: UUID, url: str, state: MCPOAuthState) -> None:
        self._latest[conversation_id, url] = state
        self._tasks.start(self._keep(conversation_id, url), f"tokens of {conversation_id}")

    async def _keep(self, conversation_id: UUID, url: str) -> None:
        """Store or tell the latest, unless who came before has."""
        async with self._keeping:
            state = self._latest.pop((conversation_id, url), None)
            if state is None:
                return
            try:
                async with self._lock.held():
                    is_stored = await self._workers.call(self._store, url, state)
            except (FanoutError, OSError) as error:
                _log.warning("mcp_tokens_not_stored", conversation_id=str(conversation_id), reason=str(error))
                return
        if not is_stored:
            body = to_json({"server_url": url, "oauth_state": state.to_plain_dict()})
            for receiver in self._receivers:
                await self._tell(receiver, conversation_id, body)

    def _store(self, url: str, state: MCPOAuthState) -> bool:
        """Whether the settings have the server. Blocking."""
        if not self._keys_of(url):
            return False
        with self._settings.changing() as settings:
            auth = {"strategy": "oauth2", "state": state.to_plain_dict()}
            settings.change_agent({"mcp_config": {key: {"auth": auth} for key in self._keys_of(url)}})
        return True

    def _keys_of(self, url: str) -> list[str]:
        servers = self._settings.read().agent.mcp_config or {}
        return [key for key, server in servers.items() if _is_same(server, url)]

    async def _tell(self, receiver: Receiver, conversation_id: UUID, body: bytes) -> None:
        """Given up after the configured attempts: tokens are nothing to be kept in dead letters."""
        letter = Letter(str(uuid4()), receiver.id, conversation_id, _PATH)

        async def read_body() -> bytes:
            return body

        for failures in range(receiver.spec.num_retries + 1):
            if failures:
                await asyncio.sleep(receiver.pause_seconds(failures))
            reason = await receiver.post(letter, read_body)
            if reason is None:
                return
        _log.warning("mcp_tokens_not_told", conversation_id=str(conversation_id), receiver=receiver.id, reason=reason)


class McpTools:
    """The SDK's MCPToolProvider. Nobody is asked to authorize anything: there may be nobody."""

    def __init__(self, state: Callable[[MCPServer], MCPOAuthState | None], renewed: Renewed) -> None:
        self._state = state
        self._renewed = renewed

    def create_tools(self, mcp_config: dict[str, MCPServer], timeout: float = 30.0, **callbacks: Any) -> MCPClient:
        """Blocks until the servers were asked; `callbacks` are those of `create_mcp_tools`."""
        states = {
            server.url: self._state(server)
            for server in mcp_config.values()
            if server.url is not None and server.oauth_auth is not None
        }
        tokens = _ToldTokens(states, self._renewed)
        return create_mcp_tools(
            mcp_config,
            timeout,
            mcp_oauth_token_storage=tokens,
            mcp_oauth_class=NonInteractiveMCPOAuth,
            **callbacks,
        )


class _ToldTokens(McpTokens):
    """Tells of each change."""

    def __init__(self, states: Mapping[str, MCPOAuthState | None], renewed: Renewed) -> None:
        super().__init__(states)
        self._urls = {url.rstrip("/"): url for url in states}
        self._renewed = renewed
        self._is_read = False

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        value: dict[str, Any] | None = await super().get(key, collection=collection)
        self._is_read = True
        return value

    async def put(
        self, key: str, value: Mapping[str, Any], *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> None:
        await super().put(key, value, collection=collection, ttl=ttl)
        if not self._is_read:
            return  # the first to read finds the store being filled with what there is
        url = self._urls[key.rpartition("/")[0]]
        self._renewed(url, await self.state(url))


def _is_same(server: MCPServer, url: str | None) -> bool:
    return server.oauth_auth is not None and (server.url or "").rstrip("/") == (url or "").rstrip("/")
