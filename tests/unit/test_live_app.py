"""The fixtures that serve an app in the test's loop."""

from __future__ import annotations

import socket

import pytest
from sanic import Request, Sanic, Websocket
from sanic.response import HTTPResponse, text

from tests.conftest import StartClient, StartServer
from tests.live_app import AnyApp
from tests.waiting import wait_until, wait_until_async


@pytest.fixture
def app() -> AnyApp:
    """An app with a route, a socket and listeners that leave a mark."""
    app: AnyApp = Sanic("live_app_under_test")
    app.ctx.marks = []

    @app.before_server_start
    async def started(app: AnyApp) -> None:
        app.ctx.marks.append("started")

    @app.after_server_stop
    async def stopped(app: AnyApp) -> None:
        app.ctx.marks.append("stopped")

    app.add_route(echo, "/echo", methods=["POST"])
    app.add_websocket_route(echo_frames, "/frames")
    return app


async def echo(request: Request) -> HTTPResponse:
    """Answer with the body."""
    return text(request.body.decode(), status=201)


async def echo_frames(_request: Request, ws: Websocket) -> None:
    """Answer every frame with itself."""
    async for message in ws:
        await ws.send(message)


async def test_client_reaches_routes_and_sockets(app: AnyApp, sanic_client: StartClient) -> None:
    """`sanic_client` speaks HTTP and WebSocket to the app over real connections."""
    client = await sanic_client(app)

    response = await client.post("/echo", content="hello")
    async with client.ws_connect("/frames") as ws:
        await ws.send("ping")
        frame = await ws.recv()

    assert (response.status_code, response.text, frame) == (201, "hello", "ping")
    assert client.app.ctx.marks == ["started"]


async def test_server_can_be_started_twice_with_one_name(app: AnyApp, test_server: StartServer) -> None:
    """A stopped app has run its listeners, closed its port and given its name back."""
    server = await test_server(app)
    await server.stop()

    assert app.ctx.marks == ["started", "stopped"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))
    assert Sanic("live_app_under_test").name == app.name


def test_unused_port_can_be_bound(unused_port: int) -> None:
    """The port is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", unused_port))


async def test_waiting_returns_the_value_or_names_the_condition() -> None:
    """Both forms of waiting return the true value, and name what did not come true."""
    values = iter([0, 0, 7])
    assert wait_until(lambda: next(values), "a number comes") == 7

    async def nothing() -> None:
        return None

    with pytest.raises(AssertionError, match="the moon is full"):
        await wait_until_async(nothing, "the moon is full", timeout_seconds=0)
    with pytest.raises(AssertionError, match="the tide is high"):
        wait_until(lambda: False, "the tide is high", timeout_seconds=0)
