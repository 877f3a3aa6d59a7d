"""Answers of server-sent events: how they begin, and the ways they end."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from sanic import Request

from service.blueprints.streams.server_sent import EventStream, answer_with_events
from service.blueprints.streams.socket import close_all
from service.settings import Settings
from tests.conftest import StartClient
from tests.live_app import SanicClient
from tests.support_shell import shell_app, web_of

FAREWELL = b"data: farewell\n\n"


@pytest.fixture
async def client(settings: Settings, sanic_client: StartClient) -> SanicClient:
    """A client of an app with streams."""
    app, _ = shell_app(settings)
    app.ctx.failures = 0

    async def said(stream: EventStream) -> None:
        await stream.write(b"data: all\n\n")

    async def quiet(stream: EventStream) -> None:
        await asyncio.Event().wait()

    async def failing(stream: EventStream) -> None:
        raise ZeroDivisionError

    @app.get("/stream/<name:str>")
    async def stream(request: Request, name: str) -> None:
        produce = {"said": said, "quiet": quiet, "failing": failing}[name]
        try:
            await answer_with_events(request, produce, farewell=FAREWELL)
        except ZeroDivisionError:
            app.ctx.failures += 1
            raise

    return await sanic_client(app)


async def test_stream_ends_when_all_is_said(client: SanicClient) -> None:
    """What it begins with is a comment, which clients skip."""
    assert (await client.get("/stream/said")).content == b": alive\n\ndata: all\n\n"


async def test_stopping_server_ends_a_stream_with_its_farewell(client: SanicClient) -> None:
    """One that begins only then, too."""
    async with client.http.stream("GET", "/stream/quiet") as answer:
        assert answer.status_code == 200
        web_of(client).is_stopping = True
        await close_all(client.app)
        assert (await answer.aread()).endswith(FAREWELL)
    assert (await client.get("/stream/said")).content.endswith(b"alive\n\n" + FAREWELL)


async def test_failure_of_a_stream_is_told_as_itself(client: SanicClient) -> None:
    """Not as one of a group; the client sees that the answer is not whole."""
    with pytest.raises(httpx.TransportError):
        await client.get("/stream/failing")
    assert client.app.ctx.failures == 1
