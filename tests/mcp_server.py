"""An MCP server with one tool, over HTTP in a thread, behind OAuth if wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth.providers.in_memory import InMemoryOAuthProvider
from mcp.server.auth.settings import ClientRegistrationOptions

from tests.server_process import free_port
from tests.waiting import wait_until


def greeter(auth: InMemoryOAuthProvider | None = None) -> FastMCP:
    """A server that greets."""
    server = FastMCP("greeter", auth=auth)

    @server.tool
    def greet(name: str) -> str:
        """Greet somebody."""
        if not name:
            raise ValueError("nobody is there")
        if name == "slow":
            time.sleep(3)
        return f"Hello {name}"

    return server


@contextmanager
def served(*, with_oauth: bool) -> Iterator[str]:
    """The URL of a server in this process."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    registration = ClientRegistrationOptions(enabled=True)
    auth = InMemoryOAuthProvider(base_url=base, client_registration_options=registration) if with_oauth else None
    app = greeter(auth).http_app()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the MCP server listens")
        yield f"{base}/mcp"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
