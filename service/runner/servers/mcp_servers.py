"""One MCP server, tried out: does it answer, which tools has it, what does a tool say. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx
from openhands.sdk.mcp import MCPClient, MCPServer, create_mcp_tools
from openhands.sdk.mcp.config import MCPOAuthState
from openhands.sdk.mcp.exceptions import MCPError, MCPTimeoutError
from openhands.sdk.mcp.oauth import MCPOAuth, NonInteractiveMCPOAuth
from openhands.sdk.utils.cipher import Cipher
from pydantic import ValidationError

from service.errors import InvalidRequest, JsonObject
from service.redaction import redact_problems
from service.runner.servers.mcp_tokens import McpTokens

_STATE_SECONDS = 10.0
_UNREACHABLE = (OSError, httpx.HTTPError, MCPError)


def server_of(given: Mapping[str, Any], cipher: Cipher) -> MCPServer:
    """A server as clients write it: natively, or with a `type` such as `shttp`.

    Raises:
        InvalidRequest: it is none.
    """
    written = dict(given)
    kind = written.pop("type", None)
    transport = written.setdefault("transport", kind)
    if transport == "shttp":
        written["transport"] = "http"
    try:
        server = MCPServer.model_validate(written, context={"cipher": cipher})
    except ValidationError as error:
        problems = [
            {**problem, "loc": ["body", "server", *problem["loc"]]} for problem in error.errors(include_url=False)
        ]
        raise InvalidRequest(redact_problems(problems)) from None
    if server.command is None and server.url is None:
        raise InvalidRequest("The server has neither a command nor a url.")
    return server


def try_out(
    name: str, server: MCPServer, timeout_seconds: float, tool_call: JsonObject | None, cipher: Cipher
) -> JsonObject:
    """`{"ok": true, "tools", "tool_result"?, "oauth_state"?}`, or why it does not work: whatever happens is an answer.

    Tokens that the server has are used, and renewed; nobody is asked to authorize anything.
    """
    try:
        return {"ok": True, **connected(name, server, NonInteractiveMCPOAuth, timeout_seconds, tool_call, cipher)}
    except Exception as error:  # noqa: BLE001  what it raises is the result: the server is somebody else's
        return {"ok": False, **failure(error)}


def connected(
    name: str,
    server: MCPServer,
    oauth: type[MCPOAuth],
    timeout_seconds: float,
    tool_call: JsonObject | None,
    cipher: Cipher,
    *,
    call_seconds: float | None = None,
) -> JsonObject:
    """`{"tools", "tool_result"?, "oauth_state"?}`, the last encrypted, as a client may store it in the settings.

    Raises whatever hinders the connection; what hinders the tool is its result.
    """
    url = server.url or ""
    tokens = McpTokens({url: server.initial_oauth_state(cipher=cipher)})
    connect = partial(create_mcp_tools, {name: server}, timeout_seconds, mcp_oauth_token_storage=tokens)
    with connect(mcp_oauth_class=oauth) as client:
        found: JsonObject = {"tools": [tool.name for tool in client.tools]}
        if tool_call is not None:
            found["tool_result"] = _call(client, tool_call, call_seconds or timeout_seconds)
        state: MCPOAuthState = client.call_async_from_sync(tokens.state, url, timeout=_STATE_SECONDS)
        if state.has_values:
            found["oauth_state"] = state.to_response(cipher=cipher).model_dump(mode="json", exclude_none=True)
        return found


def failure(error: Exception) -> JsonObject:
    """`{"error", "error_kind"}`."""
    if isinstance(error, (MCPTimeoutError, TimeoutError)):
        return {"error": str(error) or "The server did not answer in time.", "error_kind": "timeout"}
    cause = error.__cause__ or error
    text = str(cause) or type(cause).__name__
    is_connection = isinstance(error, _UNREACHABLE) or isinstance(cause, _UNREACHABLE)
    return {"error": text, "error_kind": "connection" if is_connection else "unknown"}


def _call(client: MCPClient, tool_call: JsonObject, timeout_seconds: float) -> JsonObject:
    name, known = tool_call["name"], [tool.name for tool in client.tools]
    if name not in known:
        return {"is_error": True, "text": f"Tool '{name}' not advertised by server (available: {', '.join(known)})"}
    try:
        result = client.call_async_from_sync(
            client.call_tool, name, tool_call["arguments"], raise_on_error=False, timeout=timeout_seconds
        )
    except TimeoutError:
        return {"is_error": True, "text": f"Tool '{name}' call timed out after {timeout_seconds} seconds"}
    text = "\n".join(part.text for part in result.content if hasattr(part, "text"))
    return {"is_error": result.is_error, "text": text}
