"""A Sanic app served in the test's own event loop, on a port of its own.

Real sockets instead of a simulated transport: sanic-testing's ASGI client has no usable WebSocket, and
a handler that works there may still fail behind a real connection.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self

import httpx
from sanic import Sanic
from sanic.server.async_server import AsyncioServer
from websockets.asyncio.client import ClientConnection, connect

AnyApp = Sanic[Any, Any]


class LiveApp:
    """One app listening on 127.0.0.1 between `start` and `stop`."""

    def __init__(self, app: AnyApp) -> None:
        """Bind a free port; nothing listens before `start`."""
        self.app = app
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.host = "127.0.0.1"
        self.port: int = self._socket.getsockname()[1]
        self._server: AsyncioServer | None = None

    @property
    def url(self) -> str:
        """`http://host:port`, no slash at the end."""
        return f"http://{self.host}:{self.port}"

    def make_url(self, path: str) -> str:
        """The address of `path`, which starts with a slash."""
        return f"{self.url}{path}"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        assert self._server is not None
        return len(self._server.connections)

    async def start(self) -> None:
        """Run the app's start listeners and accept connections."""
        # Allows an app name to be used again by the next test.
        Sanic.test_mode = True
        self._socket.listen(1024)
        server = await self.app.create_server(sock=self._socket, return_asyncio_server=True, access_log=False)
        assert server is not None
        self._server = server
        await server.startup()
        await server.before_start()
        await server.start_serving()
        await server.after_start()

    async def stop(self) -> None:
        """Run the app's stop listeners, close what is idle and forget the app's name."""
        server = self._server
        if server is not None:
            await server.before_stop()
            server.close()
            await server.wait_closed()
            for connection in list(server.connections):
                connection.close_if_idle()
            await server.after_stop()
        self._socket.close()
        Sanic.unregister_app(self.app)


class SanicClient:
    """HTTP and WebSocket calls to one live app; paths start with a slash."""

    def __init__(self, server: LiveApp) -> None:
        self.server = server
        # Loopback never goes through a proxy, whatever the environment says.
        self.http = httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    @property
    def app(self) -> AnyApp:
        """The app under test."""
        return self.server.app

    def ws_connect(self, path: str, **options: Any) -> connect:
        """Open a WebSocket: `async with client.ws_connect("/sockets/...") as socket`.

        Args:
            options: passed to `websockets.asyncio.client.connect`.
        """
        return connect(f"ws://{self.server.host}:{self.server.port}{path}", proxy=None, **options)

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request; `options` are `httpx.AsyncClient.request`'s."""
        return await self.http.request(method, path, **options)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """GET `path`."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        """POST to `path`."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> httpx.Response:
        """PUT to `path`."""
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> httpx.Response:
        """PATCH `path`."""
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> httpx.Response:
        """DELETE `path`."""
        return await self.request("DELETE", path, **options)

    async def options(self, path: str, **options: Any) -> httpx.Response:
        """OPTIONS `path`."""
        return await self.request("OPTIONS", path, **options)

    async def head(self, path: str, **options: Any) -> httpx.Response:
        """HEAD `path`."""
        return await self.request("HEAD", path, **options)


__all__ = ["AnyApp", "ClientConnection", "LiveApp", "SanicClient"]
