"""Session keys on HTTP routes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from tests.live_app import SanicClient
from tests.support_shell import ID, KEY, send_raw, web_of


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"headers": {"X-Session-API-Key": "wrong"}},
        {"headers": {"X-Session-API-Key": ""}},
        {"params": {"session_api_key": "good"}},
        {"headers": {"Authorization": "Bearer good"}},
        {"headers": {"Cookie": "oh_workspace_session_key=good; X-Session-API-Key=good"}},
    ],
)
async def test_api_route_without_a_valid_header_key_is_unauthorized(
    keyed: SanicClient, credentials: dict[str, Any]
) -> None:
    response = await keyed.get("/api/things/search", **credentials)
    assert (response.status_code, response.json()) == (401, {"detail": "Unauthorized"})
    assert "www-authenticate" not in response.headers


@pytest.mark.parametrize("header", ["X-Session-API-Key", "x-session-api-key"])
@pytest.mark.parametrize("key", ["good", "other"])
async def test_any_configured_key_is_accepted_under_any_case_of_the_header(
    keyed: SanicClient, header: str, key: str
) -> None:
    assert (await keyed.get("/api/things/search", headers={header: key})).status_code == 200


async def test_key_is_asked_for_before_arguments_are_looked_at(keyed: SanicClient) -> None:
    assert (await keyed.get("/api/conversations/nonsense")).status_code == 401
    assert (await keyed.post("/api/things", content=b"{")).status_code == 401
    assert (await keyed.get("/api/conversations/nonsense", headers=KEY)).status_code == 422


async def test_unknown_path_and_wrong_method_are_told_without_a_key(keyed: SanicClient) -> None:
    assert (await keyed.get("/api/nothing")).status_code == 404
    assert (await keyed.request("PUT", "/api/things")).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/", "/alive", "/health", "/ready", "/server_info", "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"]
    + ["/api/init", f"/api/conversations/{ID}/workspace/a"],
)
async def test_open_route_asks_for_no_key(keyed: SanicClient, path: str) -> None:
    assert (await keyed.get(path)).status_code == 200


async def test_without_keys_every_route_is_open_whatever_is_sent(client: SanicClient) -> None:
    assert (await client.get("/api/things/search")).status_code == 200
    assert (await client.get("/api/things/search", headers=KEY)).status_code == 200


async def test_keys_of_replaced_settings_take_effect_at_once(client: SanicClient) -> None:
    web_of(client).settings = client.app.ctx.web.settings.model_copy(update={"session_api_keys": (SecretStr("new"),)})
    assert (await client.get("/api/things/search")).status_code == 401


@pytest.mark.parametrize(("path", "status"), [("/api/things", b"401"), ("/api/nothing", b"404")])
async def test_unauthorized_body_is_never_taken_in(keyed: SanicClient, path: str, status: bytes) -> None:
    head, _ = await send_raw(keyed, f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n".encode())
    assert head.startswith(b"http/1.1 " + status)
