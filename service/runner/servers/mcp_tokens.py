"""What an MCP server gave at an authorization: in a server's settings, and in the store that fastmcp works with."""

from __future__ import annotations

from key_value.aio.stores.memory import MemoryStore
from openhands.sdk.mcp.config import MCPOAuthState, MCPOAuthTokenStorageField

_PLACES: dict[MCPOAuthTokenStorageField, tuple[str, str]] = {
    "tokens": ("mcp-oauth-token", "tokens"),
    "client_info": ("mcp-oauth-client-info", "client_info"),
    "token_expires_at": ("mcp-oauth-token-expiry", "token_expiry"),
}
"""Collection, and the end of the key after the server's URL (fastmcp.client.auth.oauth)."""


class McpTokens:
    """Those of one server."""

    def __init__(self, url: str) -> None:
        self.storage = MemoryStore()
        self._url = url.rstrip("/")

    async def put(self, state: MCPOAuthState) -> None:
        for field, (collection, name) in _PLACES.items():
            value = state.get_token_storage_value(field)
            if value is not None:
                await self.storage.put(f"{self._url}/{name}", value, collection=collection)

    async def get(self) -> MCPOAuthState:
        state = MCPOAuthState()
        for field, (collection, name) in _PLACES.items():
            value = await self.storage.get(f"{self._url}/{name}", collection=collection)
            if value is not None:
                state = state.with_token_storage_value(field, value)
        return state
