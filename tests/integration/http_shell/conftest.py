"""Servers with the shell around toy routes, by how they are configured."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.conftest import StartClient
from tests.live_app import SanicClient
from tests.support_shell import start


@pytest.fixture
async def keyed(settings: Settings, sanic_client: StartClient) -> SanicClient:
    """A server that wants a key."""
    return await start(sanic_client, settings, session_api_keys=(SecretStr("other"), SecretStr("good")))


@pytest.fixture
async def client(settings: Settings, sanic_client: StartClient) -> SanicClient:
    """A server without keys."""
    return await start(sanic_client, settings)


@pytest.fixture
async def paged(settings: Settings, sanic_client: StartClient, tmp_path: Path) -> SanicClient:
    """A server with a user interface."""
    folder = tmp_path / "ui"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>hi</h1>")
    (folder / "sub" / "a b.css").write_text("body{}")
    (folder / "empty").write_bytes(b"")
    (tmp_path / "secret").write_text("s")
    (folder / "out").symlink_to(tmp_path / "secret")
    return await start(sanic_client, settings, static_files_path=folder)


@pytest.fixture
async def prefixed(settings: Settings, sanic_client: StartClient) -> SanicClient:
    """A server behind a proxy that adds a path."""
    return await start(
        sanic_client, settings, web_url="https://h.example/rt/abc/", session_api_keys=(SecretStr("good"),)
    )
