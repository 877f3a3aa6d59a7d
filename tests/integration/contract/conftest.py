"""Fixtures of the contract's tests: one server for all, one scripted LLM a module, conversations on demand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversation, Conversations
from tests.server_process import Server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server as a process of its own; its start costs more than all the tests of a module."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    """Plain requests to the module's server; paths start with a slash."""
    # Loopback never goes through a proxy, whatever the environment says.
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def llm() -> Iterator[ScriptedLlm]:
    """The module's LLM; its requests are those of all the module's tests, and a gate's name is used once."""
    with ScriptedLlm() as scripted:
        yield scripted


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The agents' working directory, the test's own."""
    path = tmp_path / "project"
    path.mkdir()
    return path


@pytest.fixture
def conversation(http: httpx.Client, llm: ScriptedLlm, project: Path) -> Iterator[Conversations]:
    """`conversation()` creates one through HTTP and returns its handle; the end of the test deletes it."""
    conversations = Conversations(http, llm, str(project))
    yield conversations
    conversations.delete_all()


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Where the ACP server notes what it is asked."""
    return tmp_path / "asked"


@pytest.fixture
def acp(conversation: Conversations, asked: Path) -> Callable[..., Conversation]:
    """`acp()` creates a conversation whose agent is the scripted ACP server."""

    def create(**fields: Any) -> Conversation:
        command = [sys.executable, "-m", "tests.acp_server", str(asked)]
        return conversation(agent={"kind": "ACPAgent", "acp_command": command}, **fields)

    return create
