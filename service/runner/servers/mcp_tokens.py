"""What an MCP server gave at an authorization: in a server's settings, and in the store that fastmcp works with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from key_value.aio.stores.memory import MemoryStore
from openhands.sdk.mcp.config import MCPOAuthState, MCPOAuthTokenStorageField

_PLACES: dict[MCPOAuthTokenStorageField, tuple[str, str]] = {
    "tokens": ("mcp-oauth-token", "tokens"),
    "client_info": ("mcp-oauth-client-info", "client_info"),
    "token_expires_at": ("mcp-oauth-token-expiry", "token_expiry"),
}
"""Collection, and the end of the key after the server's URL (fastmcp.client.auth.oauth)."""


class McpTokens(MemoryStore):
    """Those of some servers, by their URLs."""

    def __init__(self, states: Mapping[str, MCPOAuthState | None]) -> None:
        seed: dict[str, dict[str, dict[str, Any]]] = {collection: {} for collection, _ in _PLACES.values()}
        for url, state in states.items():
            for field, (collection, name) in _PLACES.items():
                value = None if state is None else state.get_token_storage_value(field)
                if value is not None:
                    seed[collection][f"{url.rstrip('/')}/{name}"] = value
        super().__init__(seed=seed)

    async def state(self, url: str) -> MCPOAuthState:
        """What there is of one server now."""
        state = MCPOAuthState()
        for field, (collection, name) in _PLACES.items():
            value = await self.get(f"{url.rstrip('/')}/{name}", collection=collection)
            if value is not None:
                state = state.with_token_storage_value(field, value)
        return state
