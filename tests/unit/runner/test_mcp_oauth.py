"""How many authorizations at MCP servers go on at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest
from openhands.sdk.mcp import MCPServer
from openhands.sdk.utils.cipher import Cipher

from service.catalog.keys import Keys
from service.catalog.oauth_jobs import OAuthJobs
from service.errors import BrokerUnavailable, JsonObject, Unavailable
from service.identity import RunnerId
from service.redis_source import RedisSource
from service.runner.servers import mcp_oauth
from service.runner.servers.mcp_oauth import McpOAuth

SERVER = MCPServer.model_validate({"url": "http://127.0.0.1:9/mcp", "auth": {"strategy": "oauth2"}})


class Records(OAuthJobs):
    """In a Redis that takes a moment, as one in another process does."""

    async def put(self, job_id: str, record: JsonObject) -> None:
        await asyncio.sleep(0)
        await super().put(job_id, record)


@pytest.fixture
def records() -> OAuthJobs:
    return Records(RedisSource(None, "t").commands(), Keys("t"))


@pytest.fixture
async def oauth(records: OAuthJobs) -> AsyncIterator[McpOAuth]:
    """With a place for two."""
    with patch.object(mcp_oauth, "_JOBS", 2):
        oauth = McpOAuth(RunnerId("runner"), records, Cipher("key of the tests"))
        yield oauth
        await oauth.close()


async def test_authorizations_that_start_at_once_are_counted(oauth: McpOAuth) -> None:
    outcomes = await asyncio.gather(*(oauth.start("s", SERVER, 0.0, None) for _ in range(4)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [dict, dict, Unavailable, Unavailable]


async def test_authorization_that_is_not_recorded_takes_no_place(oauth: McpOAuth, records: OAuthJobs) -> None:
    with patch.object(records, "put", side_effect=BrokerUnavailable):
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await oauth.start("s", SERVER, 0.0, None)
