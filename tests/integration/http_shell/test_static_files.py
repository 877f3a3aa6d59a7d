"""The user interface's files."""

from __future__ import annotations

import logging
from pathlib import Path
from unittest.mock import patch

import pytest

from service.blueprints.http import file_response
from tests.live_app import SanicClient
from tests.waiting import wait_until_async


async def test_root_leads_to_the_interface(paged: SanicClient) -> None:
    response = await paged.get("/")
    assert (response.status_code, response.headers["location"]) == (302, "/static/index.html")


async def test_static_file_is_sent_with_validators(paged: SanicClient) -> None:
    response = await paged.get("/static/sub/a%20b.css")
    assert (response.status_code, response.text) == (200, "body{}")
    assert response.headers["content-type"] == "text/css; charset=utf-8"
    assert response.headers["accept-ranges"] == "bytes"
    for condition in (
        {"If-None-Match": response.headers["etag"]},
        {"If-Modified-Since": response.headers["last-modified"]},
    ):
        again = await paged.get("/static/sub/a%20b.css", headers=condition)
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "status", "content", "span"),
    [
        ("bytes=0-3", 206, "<h1>", "bytes 0-3/11"),
        ("bytes=4-", 206, "hi</h1>", "bytes 4-10/11"),
        ("bytes=-5", 206, "</h1>", "bytes 6-10/11"),
        ("bytes=0-", 206, "<h1>hi</h1>", "bytes 0-10/11"),
        ("bytes=0-999", 206, "<h1>hi</h1>", "bytes 0-10/11"),
        ("bytes=-999", 206, "<h1>hi</h1>", "bytes 0-10/11"),
        ("BYTES= 0-3", 206, "<h1>", "bytes 0-3/11"),
        ("bytes=-", 200, "<h1>hi</h1>", None),
        (f"bytes=0-{'9' * 5000}", 200, "<h1>hi</h1>", None),
        ("bytes=0-1,3-4", 200, "<h1>hi</h1>", None),
        ("bytes=99-", 416, "", "bytes */11"),
        ("bytes=5-2", 416, "", "bytes */11"),
        ("bytes=-0", 416, "", "bytes */11"),
    ],
)
async def test_static_file_is_sent_in_part(
    paged: SanicClient, asked: str, status: int, content: str, span: str | None
) -> None:
    response = await paged.get("/static/index.html", headers={"Range": asked})
    assert (response.status_code, response.text) == (status, content)
    assert response.headers.get("content-range") == span


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [("bytes=0-", 416, "bytes */0"), ("bytes=-1", 200, None), ("bytes=-0", 416, "bytes */0")],
)
async def test_empty_file_has_no_range_to_send(paged: SanicClient, asked: str, status: int, span: str | None) -> None:
    response = await paged.get("/static/empty", headers={"Range": asked})
    assert (response.status_code, response.content, response.headers.get("content-range")) == (status, b"", span)


async def test_range_of_a_file_that_has_changed_is_the_whole_file(paged: SanicClient) -> None:
    response = await paged.get("/static/index.html", headers={"Range": "bytes=0-3", "If-Range": '"old"'})
    assert (response.status_code, response.text) == (200, "<h1>hi</h1>")


async def test_head_of_a_static_file_tells_its_length(paged: SanicClient, caplog: pytest.LogCaptureFixture) -> None:
    """And nothing is logged: Sanic fails at the end of a streamed answer to it."""
    response = await paged.head("/static/index.html")
    assert (response.status_code, response.headers["content-length"], response.content) == (200, "11", b"")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (await paged.get("/static/empty")).content == b""


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static/sub", "/static/sub/", "/static/nothing", "/static/out", "/static/%2e%2e/secret"]
    + ["/static/..%2fsecret", "/static//etc/passwd", "/static/%00"],
)
async def test_what_is_no_file_of_the_interface_is_not_found(paged: SanicClient, path: str) -> None:
    response = await paged.get(path)
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


async def test_static_root_redirects_to_its_slash_form(paged: SanicClient) -> None:
    response = await paged.get("/static")
    assert (response.status_code, response.headers["location"]) == (307, f"{paged.server.url}/static/")


async def test_client_that_does_not_take_a_file_is_given_up(paged: SanicClient, tmp_path: Path) -> None:
    """It would hold the file and its connection for as long as it likes."""
    with (tmp_path / "ui" / "large").open("wb") as file:
        file.truncate(256 << 20)  # far more than the kernel keeps for a client
    with patch.object(file_response, "STALL_SECONDS", 0.2):
        async with paged.http.stream("GET", "/static/large") as response:
            assert response.status_code == 200
            await wait_until_async(lambda: paged.server.connections == 0, "the server lets go of the connection")
