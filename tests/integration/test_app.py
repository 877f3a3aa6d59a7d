"""What the composition root asks of Sanic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sanic import HTTPResponse, Request
from sanic.response import text

from service.app import create_app
from service.blueprints.http import request_body
from service.settings import Settings
from tests.conftest import StartClient
from tests.shortages import assert_own_threads_go_on
from tests.support_shell import send_raw

MONTH_SECONDS = 30 * 24 * 3600


async def test_answer_may_take_as_long_as_it_takes(settings: Settings, sanic_client: StartClient) -> None:
    """A shell command has no longest time; who is told 503 meanwhile runs it again."""
    app = create_app(settings, embedded_runner=False)

    async def take_a_month(request: Request) -> HTTPResponse:
        protocol: Any = request.protocol
        protocol._time -= MONTH_SECONDS
        protocol.check_timeouts()
        await asyncio.sleep(0)
        return text("done")

    app.add_route(take_a_month, "/slow")
    client = await sanic_client(app)
    answer = await client.get("/slow")
    assert (answer.status_code, answer.text) == (200, "done")


async def test_configuration_that_nobody_waits_for_is_never_taken_in(
    settings: Settings, sanic_client: StartClient
) -> None:
    """Anybody may send one; what it says is 404 where the start is not deferred."""
    client = await sanic_client(create_app(settings, embedded_runner=False))
    head, _ = await send_raw(client, b"POST /api/init HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n")
    assert head.startswith(b"http/1.1 404")


async def test_body_that_stops_coming_is_given_up(
    settings: Settings, sanic_client: StartClient, tmp_path: Path
) -> None:
    """Its client may have vanished. Nothing stays of an upload that had begun."""
    client = await sanic_client(create_app(settings, embedded_runner=False))
    begun = tmp_path / "begun"
    upload = f"/api/file/upload?path={begun}/file HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=B"
    part = '--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nnew'
    with patch.object(request_body, "STALL_SECONDS", 0.2):
        for line, body in (("/api/conversations HTTP/1.1", "{"), (upload, part)):
            head, _ = await send_raw(client, f"POST {line}\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{body}".encode())
            assert head.startswith(b"http/1.1 408")
            assert b"connection: close" in head
    assert list(begun.iterdir()) == []


async def test_web_role_goes_on_where_the_machine_gives_no_more_threads(
    settings: Settings, sanic_client: StartClient
) -> None:
    await sanic_client(create_app(settings, embedded_runner=False))
    await assert_own_threads_go_on()
