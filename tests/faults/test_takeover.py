"""A runner dies and another goes on with its conversations, seen by clients that never notice the processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.scripted_llm import ScriptedLlm
from tests.server_process import Server
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two web workers and two runners."""
    environment = {"OH_WORKERS": "2", "OH_RUNNERS": "2"}
    with Server(tmp_path_factory.mktemp("takeover"), environment) as server:
        yield server


def owner_pid(server: Server, conversation_id: str) -> int:
    """The process that owns a conversation, from the record beside it."""
    record = server.conversations_path / conversation_id.replace("-", "") / "owner.json"
    return int(json.loads(record.read_text())["runner_id"].split(".")[-2])


def test_killed_runner_is_a_pause_for_everybody(server: Server, scripted_llm: ScriptedLlm, tmp_path: Path) -> None:
    """Nobody asks for anything: the run goes on elsewhere and ends; an open socket has every event once, in order."""
    body = {
        "agent": {
            "llm": scripted_llm.settings,
            "tools": [{"name": "terminal", "params": {"terminal_type": "subprocess"}}],
        },
        "workspace": {"working_dir": str(tmp_path / "project")},
    }
    conversation_id = httpx.post(f"{server.url}/api/conversations", json=body).raise_for_status().json()["id"]
    started = tmp_path / "started"
    command = json.dumps({"command": f"touch {started}; sleep 60"})
    script = f"CALL terminal {command}\nSAY all the same"
    with connect(f"{server.url.replace('http', 'ws')}/sockets/events/{conversation_id}", max_size=None) as socket:
        message = {"content": [{"type": "text", "text": script}], "run": True}
        httpx.post(f"{server.url}/api/conversations/{conversation_id}/events", json=message, timeout=30)
        wait_until(started.exists, "the tool is running", 30.0)
        killed = owner_pid(server, conversation_id)
        os.kill(killed, signal.SIGKILL)

        received = received_until_finished(socket)

    path = f"{server.url}/api/conversations/{conversation_id}/events/search"
    stored: list[dict[str, Any]] = httpx.get(path).json()["items"]
    assert received == [event["id"] for event in stored]
    assert [event["kind"] for event in stored].count("AgentErrorEvent") == 1
    assert owner_pid(server, conversation_id) != killed


def received_until_finished(socket: Any) -> list[str]:
    """Ids of the stored events a socket delivers until the full state says that the run is over."""
    received: list[str] = []
    while True:
        event = json.loads(socket.recv(timeout=30))
        if event.get("key") != "full_state":
            received.append(event["id"])
        elif event["value"]["execution_status"] == "finished":
            return received
