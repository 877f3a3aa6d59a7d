"""What the composition root asks of Sanic."""

from __future__ import annotations

import asyncio
from typing import Any

from sanic import HTTPResponse, Request
from sanic.response import text

from service.app import create_app
from service.settings import Settings
from tests.conftest import StartClient

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
