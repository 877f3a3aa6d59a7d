"""What is asked of servers that agents use or are: MCP servers and ACP servers, by name."""

from __future__ import annotations

import json

from openhands.sdk.utils.cipher import Cipher

from service.requests.message import Answer, Request
from service.runner.extensions.extensions import Extensions
from service.runner.operations.table import Operation, answered
from service.runner.servers.acp_models import AcpModels
from service.runner.servers.mcp_oauth import McpOAuth
from service.runner.servers.mcp_servers import server_of, try_out
from service.runner.wire.request_models import AcpModelsRequest
from service.runner.wire.validation import parse


class ServerOperations:
    """Any runner answers them, but for the callback of an authorization, which goes to the runner that drives it."""

    def __init__(self, cipher: Cipher, extensions: Extensions, oauth: McpOAuth, acp: AcpModels) -> None:
        self._cipher = cipher
        self._workers = extensions.workers
        self._oauth = oauth
        self._acp = acp
        self.table: dict[str, Operation] = {
            "mcp.test": self._test,
            "mcp.oauth_start": self._oauth_start,
            "mcp.oauth_callback": self._oauth_callback,
            "acp.models": self._acp_models,
        }

    async def _test(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        server = server_of(wanted["server"], self._cipher)
        name, seconds, tool_call = wanted["name"], wanted["timeout"], wanted["tool_call"]
        return answered(await self._workers.call(try_out, name, server, seconds, tool_call, self._cipher))

    async def _oauth_start(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        server = server_of(wanted["server"], self._cipher)
        return answered(await self._oauth.start(wanted["name"], server, wanted["timeout"], wanted["tool_call"]))

    async def _oauth_callback(self, request: Request) -> Answer:
        job_id, url = request.arguments["job_id"], json.loads(request.body)["callback_url"]
        return answered(await self._oauth.call_back(job_id, url))

    async def _acp_models(self, request: Request) -> Answer:
        wanted = parse(AcpModelsRequest, request.body)
        return Answer(200, await self._acp.find(wanted.agent_settings, wanted.secrets, refresh=wanted.refresh))
