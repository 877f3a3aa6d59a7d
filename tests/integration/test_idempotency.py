"""A request repeated with its Idempotency-Key has no second effect, whatever happened to the first answer."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import user_message
from tests.server_process import Server
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: it is killed."""
    with Server(tmp_path_factory.mktemp("idempotency")) as server:
        yield server


def start(
    server: Server, llm: ScriptedLlm, project: Path, initial_message: Any = None, **headers: str
) -> httpx.Response:
    """Create a conversation."""
    tools = [{"name": "terminal", "params": {"terminal_type": "subprocess"}}]
    body = {"agent": {"llm": llm.settings, "tools": tools}, "workspace": {"working_dir": str(project)}}
    body |= {"initial_message": initial_message}
    return httpx.post(f"{server.url}/api/conversations", json=body, headers=headers).raise_for_status()


def send(server: Server, conversation_id: str, text: str, key: str, run: bool = False) -> httpx.Response:
    """Send a message under a key."""
    body = {"content": [{"type": "text", "text": text}], "run": run}
    path = f"{server.url}/api/conversations/{conversation_id}/events"
    return httpx.post(path, json=body, headers={"Idempotency-Key": key}).raise_for_status()


def texts(server: Server, conversation_id: str) -> list[str]:
    """What the user said, as the log has it."""
    path = f"{server.url}/api/conversations/{conversation_id}/events/search"
    items: list[dict[str, Any]] = httpx.get(path, params={"source": "user", "kind": "MessageEvent"}).json()["items"]
    return [item["llm_message"]["content"][0]["text"] for item in items]


def test_message_repeated_with_its_key_is_stored_once(
    server: Server, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """The repetition is answered like the first, also after the server was killed; another key is another message."""
    conversation_id = start(server, scripted_llm, tmp_path).json()["id"]
    first = send(server, conversation_id, "hello", "key-1")
    again = send(server, conversation_id, "hello", "key-1")
    send(server, conversation_id, "hello", "key-2")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert texts(server, conversation_id) == ["hello", "hello"]

    server.kill()
    server.start()
    send(server, conversation_id, "hello", "key-1")
    assert texts(server, conversation_id) == ["hello", "hello"]


def test_message_repeated_while_the_first_still_waits_is_stored_once(
    server: Server, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """A key counts from the moment its message is accepted, not from when a running tool lets it in."""
    conversation_id = start(server, scripted_llm, tmp_path).json()["id"]
    started, release = tmp_path / "started", tmp_path / "release"
    command = json.dumps({"command": f"touch {started}; while [ ! -e {release} ]; do sleep 0.05; done"})
    send(server, conversation_id, f"CALL terminal {command}", "run", run=True)
    wait_until(started.exists, "the tool is running", 30.0)

    send(server, conversation_id, "SAY waited", "waiting")
    send(server, conversation_id, "SAY waited", "waiting")
    release.touch()

    wait_until(lambda: "SAY waited" in texts(server, conversation_id), "the message is in the log", 30.0)
    assert texts(server, conversation_id).count("SAY waited") == 1


def test_creation_repeated_with_its_key_finds_the_conversation(
    server: Server, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """The second answer is 200 with the same id; nothing is made twice."""
    key = uuid.uuid4().hex
    first = start(server, scripted_llm, tmp_path, **{"Idempotency-Key": key})
    again = start(server, scripted_llm, tmp_path, **{"Idempotency-Key": key})
    other = start(server, scripted_llm, tmp_path)
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 201)
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]


def test_creation_repeated_when_keys_are_forgotten_says_nothing_again(
    server: Server, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """An initial message is remembered for a day as other messages are; the conversation is found for ever."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    message = user_message("SAY hello")
    made = start(server, scripted_llm, tmp_path, message, **headers).json()
    wait_until(lambda: "SAY hello" in texts(server, made["id"]), "the message is in the log", 30.0)

    server.kill()
    directory = server.conversations_path / uuid.UUID(made["id"]).hex
    for path in (directory / "inbox" / "done").iterdir():
        path.unlink()
    record = json.loads((directory / "meta.json").read_text())
    created_at = datetime.now(UTC) - timedelta(days=1)
    (directory / "meta.json").write_text(json.dumps(record | {"created_at": created_at.isoformat()}))
    server.start()
    again = start(server, scripted_llm, tmp_path, message, **headers)

    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    send(server, made["id"], "next", "next")
    wait_until(lambda: "next" in texts(server, made["id"]), "the next message is in the log", 30.0)
    assert texts(server, made["id"]) == ["SAY hello", "next"]
