"""Fixtures for every test. `unused_port`, `test_server` and `sanic_client` keep the names pytest-sanic gave them."""

from __future__ import annotations

import os

# Before anything can import the SDK: without these the import fetches a price list and prints a banner.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["OPENHANDS_SUPPRESS_BANNER"] = "1"
os.environ["LOG_AUTO_CONFIG"] = "false"
# The SDK's client and websockets read proxies from the environment; loopback must not go through one.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.demo.scripted_llm import ScriptedLlm
from service.settings import Settings
from tests.live_app import AnyApp, LiveApp, SanicClient
from tests.server_process import Server, free_port

StartServer = Callable[[AnyApp], Awaitable[LiveApp]]
StartClient = Callable[[AnyApp], Awaitable[SanicClient]]


@pytest.fixture
def unused_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on."""
    return free_port()


@pytest.fixture
async def test_server() -> AsyncIterator[StartServer]:
    """`await test_server(app)` serves the app in this loop until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(app: AnyApp) -> LiveApp:
            server = LiveApp(app)
            stack.push_async_callback(server.stop)
            await server.start()
            return server

        yield start


@pytest.fixture
async def sanic_client(test_server: StartServer) -> AsyncIterator[StartClient]:
    """`await sanic_client(app)` serves the app in this loop and returns a client of it."""
    async with AsyncExitStack() as stack:

        async def start(app: AnyApp) -> SanicClient:
            return await stack.enter_async_context(SanicClient(await test_server(app)))

        yield start


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose every path is below the test's own directory."""
    return Settings(
        conversations_path=tmp_path / "conversations",
        workspace_path=tmp_path / "workspace",
        bash_events_dir=tmp_path / "bash_events",
    )


@pytest.fixture
def scripted_llm() -> Iterator[ScriptedLlm]:
    """An LLM on loopback that answers what the user message tells it to."""
    with ScriptedLlm() as llm:
        yield llm


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server as a process of its own, shared by the tests of one module."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running
