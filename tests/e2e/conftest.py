"""Fixtures of the tests that drive a server process with the SDK's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.e2e.remote_client import RemoteClient
from tests.server_process import Server


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The agents' working directory."""
    path = tmp_path / "project"
    path.mkdir()
    return path


@pytest.fixture
def client(server: Server, scripted_llm: ScriptedLlm, project: Path) -> Iterator[RemoteClient]:
    """A client of the module's server with the scripted LLM."""
    with RemoteClient(server, scripted_llm, project) as client:
        yield client
