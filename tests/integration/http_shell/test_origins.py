"""CORS headers and preflights."""

from __future__ import annotations

import pytest

from tests.live_app import SanicClient
from tests.support_shell import ID, PAGE, web_of


async def test_every_response_varies_by_origin(keyed: SanicClient) -> None:
    for path in ("/alive", "/api/things/search", "/nothing", "/alive/", "/docs"):
        assert (await keyed.get(path)).headers["vary"] == "Origin", path


@pytest.mark.parametrize("path", ["/alive", "/api/things/search", "/nothing", "/alive/", "/api/raise/value_error"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_allowed_origin_is_echoed_on_errors_too(keyed: SanicClient, path: str, method: str) -> None:
    response = await keyed.request(method, path, headers={"Origin": "http://localhost:3000"})
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert response.headers["access-control-allow-credentials"] == "true"


async def test_refused_origin_is_served_without_permission(client: SanicClient) -> None:
    response = await client.get("/alive", headers={"Origin": PAGE})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("path", ["/api/things", "/nothing", "/alive", "/docs", f"/sockets/toy/{ID}", "/alive/"])
async def test_preflight_is_answered_on_every_path(keyed: SanicClient, path: str) -> None:
    asked = {
        "Origin": "http://127.0.0.1",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "X-Session-API-Key, content-type",
    }
    response = await keyed.options(path, headers=asked)
    assert (response.status_code, response.text) == (200, "OK")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["access-control-allow-origin"] == "http://127.0.0.1"
    assert response.headers["access-control-allow-methods"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY"
    assert response.headers["access-control-allow-headers"] == "X-Session-API-Key, content-type"
    assert response.headers["access-control-max-age"] == "600"
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers.get_list("vary") == [
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    ]


async def test_preflight_from_a_refused_origin_is_400(client: SanicClient) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    response = await client.options("/api/things", headers=asked)
    assert (response.status_code, response.text) == (400, "Disallowed CORS origin")
    assert "access-control-allow-origin" not in response.headers


async def test_workspace_files_are_open_to_pages_of_every_host(keyed: SanicClient) -> None:
    path = f"/api/conversations/{ID}/workspace/a"
    assert (await keyed.get(path, headers={"Origin": PAGE})).headers["access-control-allow-origin"] == PAGE
    other = await keyed.get(f"/api/conversations/{ID}", headers={"Origin": PAGE})
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (401, False)


async def test_origins_of_replaced_settings_take_effect_at_once(client: SanicClient) -> None:
    await client.get("/alive", headers={"Origin": PAGE})
    web_of(client).settings = web_of(client).settings.model_copy(update={"allow_cors_origins": (PAGE,)})
    response = await client.get("/alive", headers={"Origin": PAGE})
    assert response.headers["access-control-allow-origin"] == PAGE
