"""What the server says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from service.blueprints.server_details import package_version
from service.settings import Settings
from tests.conftest import StartClient
from tests.live_app import SanicClient
from tests.support_shell import start, web_of


@pytest.mark.parametrize("path", ["/alive", "/health"])
async def test_liveness_is_ok(client: SanicClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.content) == (200, b'{"status":"ok"}')
    assert response.headers["content-type"] == "application/json"


async def test_readiness_follows_its_reasons(client: SanicClient) -> None:
    assert (await client.get("/ready")).json() == {"status": "ready"}
    web_of(client).reasons = ["no runner", "the broker is away"]
    response = await client.get("/ready")
    assert response.status_code == 503
    assert response.json() == {"status": "initializing", "message": "no runner; the broker is away"}


async def test_server_info_tells_what_a_runner_knows(client: SanicClient) -> None:
    web_of(client).facts = {
        "sdk_version": "1.58.0",
        "tools_version": "1.58.1",
        "usable_tools": ["terminal"],
    }
    web_of(client).idle = 12.9
    info = (await client.get("/server_info")).json()
    assert (info["sdk_version"], info["tools_version"], info["workspace_version"]) == ("1.58.0", "1.58.1", "unknown")
    assert (info["usable_tools"], info["idle_time"], info["uptime"]) == (["terminal"], 12.0, 0.0)
    assert (info["title"], info["docs"], info["redoc"]) == ("OpenHands Agent Server", "/docs", "/redoc")
    assert {"conversation_runtime_routes_v1", "idempotent_conversation_create_v1"} <= set(info["capabilities"])


@pytest.mark.parametrize("facts", [{}, None])
async def test_server_info_without_a_runner_or_broker_has_gaps(
    client: SanicClient, facts: dict[str, Any] | None
) -> None:
    web_of(client).facts = facts
    info = (await client.get("/server_info")).json()
    assert (info["sdk_version"], info["usable_tools"]) == ("unknown", [])


async def test_the_version_is_the_interface_s_since_clients_refuse_what_is_too_low(client: SanicClient) -> None:
    """The TypeScript client asks for hooks and MCP from 1.23.0 and 1.31.0 on."""
    info = (await client.get("/server_info")).json()
    assert tuple(map(int, info["version"].split("."))) >= (1, 58)
    assert (await client.get("/openapi.json")).json()["info"]["version"] == info["version"]
    assert info["fanout_version"] == package_version()


async def test_server_info_tells_the_idle_timeout_and_its_share(settings: Settings, sanic_client: StartClient) -> None:
    client = await start(sanic_client, settings, runtime_idle_timeout_seconds=100.0, build_git_sha="abc")
    info = (await client.get("/server_info")).json()
    assert (info["runtime_idle_timeout_seconds"], info["max_foreground_terminal_timeout_seconds"]) == (100.0, 90.0)
    assert info["build_git_sha"] == "abc"


async def test_root_is_server_info_where_no_interface_is_served(client: SanicClient) -> None:
    assert (await client.get("/")).json().keys() == (await client.get("/server_info")).json().keys()
    assert (await client.get("/static/index.html")).status_code == 404
    assert (await client.get("/static")).status_code == 404
