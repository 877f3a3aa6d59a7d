"""Trailing slashes, and paths below a prefix."""

from __future__ import annotations

import pytest

from service.blueprints.http.guarded_request import path_below
from tests.live_app import SanicClient
from tests.support_shell import ID, KEY


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/alive/", "/alive"),
        ("/api/tools", "/api/tools/"),
        ("/api/written", "/api/written/"),
        ("/api/things/?a=1&b=%20/", "/api/things?a=1&b=%20/"),
        (f"/api/conversations/{ID}/", f"/api/conversations/{ID}"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_other_slash_form_redirects_to_the_one_that_exists(
    keyed: SanicClient, method: str, path: str, location: str
) -> None:
    response = await keyed.request(method, path)
    assert (response.status_code, response.content) == (307, b"")
    assert response.headers["location"] == f"{keyed.server.url}{location}"


async def test_slash_form_is_left_alone_where_neither_exists(client: SanicClient) -> None:
    assert (await client.get("/api/nothing/")).status_code == 404


async def test_redirect_keeps_the_body_of_a_post(client: SanicClient) -> None:
    response = await client.post("/api/things/", json={"name": "n"}, follow_redirects=True)
    assert (response.status_code, response.json()["name"]) == (201, "n")


@pytest.mark.parametrize("prefix", ["", "/rt/abc"])
async def test_paths_work_with_and_without_the_prefix(prefixed: SanicClient, prefix: str) -> None:
    assert (await prefixed.get(f"{prefix}/alive")).status_code == 200
    assert (await prefixed.get(f"{prefix}/")).status_code == 200
    assert (await prefixed.get(f"{prefix}/api/things/search")).status_code == 401
    assert (await prefixed.get(f"{prefix}/api/things/search", headers=KEY)).status_code == 200
    redirect = await prefixed.get(f"{prefix}/alive/")
    assert redirect.headers["location"] == f"{prefixed.server.url}{prefix}/alive"


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/rt/abc", "/"),
        ("/rt/abc/", "/"),
        ("/rt/abc/alive", "/alive"),
        ("/rt/abc/rt/abc/alive", "/rt/abc/alive"),
        ("/rt/abcalive", "/rt/abcalive"),
        ("/x/rt/abc/alive", "/x/rt/abc/alive"),
        ("/alive", "/alive"),
    ],
)
def test_prefix_is_taken_off_once_and_only_as_whole_segments(path: str, seen: str) -> None:
    assert path_below("/rt/abc", path) == seen


async def test_pages_and_document_name_the_prefix(prefixed: SanicClient) -> None:
    assert "/rt/abc/openapi.json" in (await prefixed.get("/docs")).text
    assert (await prefixed.get("/openapi.json")).json()["servers"] == [{"url": "/rt/abc"}]
