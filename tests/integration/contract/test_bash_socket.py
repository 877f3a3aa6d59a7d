"""`/sockets/bash-events`: every command of the machine, whoever started it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.blueprints.bash_socket import _LOOK_AGAIN_SECONDS
from tests.integration.contract.conversations import Conversations, JsonObject
from tests.server_process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the module's own, whose history nobody else writes."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@contextmanager
def socket(server: Server, query: str = "") -> Iterator[ClientConnection]:
    url = server.url.replace("http", "ws")
    connection = connect(f"{url}/sockets/bash-events{query}", proxy=None)
    try:
        yield connection
    finally:
        connection.close()


def received(connection: ClientConnection) -> JsonObject:
    frame: JsonObject = json.loads(connection.recv(timeout=20))
    return frame


def test_command_sent_on_the_socket_runs(server: Server) -> None:
    with socket(server) as connection, socket(server) as other:
        connection.send(json.dumps({"command": "echo hi", "timeout": 5}))
        for each in (connection, other):
            assert received(each)["command"] == "echo hi"
            output = received(each)
            assert (output["stdout"], output["exit_code"]) == ("hi\n", 0)


def test_command_started_over_http_is_told(server: Server, http: httpx.Client) -> None:
    with socket(server) as connection:
        http.post("/api/bash/execute_bash_command", json={"command": "echo http"})
        assert [received(connection)["kind"] for _ in range(2)] == ["BashCommand", "BashOutput"]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{}", "ValidationError"),
        ("[]", "ValidationError"),
        ("null", "ValidationError"),
        ("nope", "JSONDecodeError"),
        (b"\x00", "JSONDecodeError"),
    ],
)
def test_bad_frame_is_answered_to_its_sender(server: Server, frame: str | bytes, code: str) -> None:
    with socket(server) as connection:
        connection.send(frame)
        error = received(connection)
        assert (error["kind"], error["code"]) == ("BashError", code)
        connection.send(json.dumps({"type": "auth", "session_api_key": "x"}))
        connection.send(json.dumps({"command": "true"}))
        # The end of another test's command may come first.
        assert "true" in [received(connection).get("command") for _ in range(2)]


def test_too_large_frame_closes_1009(server: Server) -> None:
    with socket(server) as connection:
        # Only its head: who is sending the rest while the server closes may find a broken connection instead.
        connection.socket.sendall(b"\x81\xff" + (101 << 20).to_bytes(8, "big") + b"mask")
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=20)
        assert connection.close_code == 1009


def test_conversations_commands_are_not_told(server: Server, http: httpx.Client, conversation: Conversations) -> None:
    with socket(server) as connection:
        one = conversation()
        one.post("/bash/execute_bash_command", {"command": "echo scoped"}).raise_for_status()
        http.post("/api/bash/execute_bash_command", json={"command": "echo after"}).raise_for_status()
        commands = [frame["command"] for frame in (received(connection), received(connection)) if "command" in frame]
    assert commands == ["echo after"]


@pytest.mark.parametrize("query", ["?resend_mode=all", "?resend_all=true"])
def test_history_comes_first_and_each_event_once(server: Server, http: httpx.Client, query: str) -> None:
    http.delete("/api/bash/bash_events")
    for number in range(60):
        http.post("/api/bash/execute_bash_command", json={"command": f"echo {number}"})
    with socket(server, query) as connection:
        http.post("/api/bash/execute_bash_command", json={"command": "echo last"})
        frames: list[JsonObject] = []
        while not frames or frames[-1].get("stdout") != "last\n":
            frames.append(received(connection))
    assert len({frame["id"] for frame in frames}) == len(frames) == 122
    assert [frame["stdout"] for frame in frames if frame["kind"] == "BashOutput"][:60] == [f"{n}\n" for n in range(60)]


def test_without_history_only_what_comes_is_told(server: Server, http: httpx.Client) -> None:
    http.post("/api/bash/execute_bash_command", json={"command": "echo before"})
    with socket(server) as connection:
        connection.send(json.dumps({"command": "echo now"}))
        assert [received(connection)["kind"] for _ in range(2)] == ["BashCommand", "BashOutput"]
        with pytest.raises(TimeoutError):  # also not when the history is looked at again
            connection.recv(timeout=_LOOK_AGAIN_SECONDS + 1)


def test_bad_query_refuses_the_handshake(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused, socket(server, "?resend_mode=some"):
        pass
    assert refused.value.response.status_code == 403


def test_output_is_told_as_it_comes_to_who_asks(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    """With `stream=1`; others see stored events only."""
    gate = tmp_path / "go"
    with socket(server, "?stream=1") as watching, socket(server) as other:
        script = f"echo first; while [ ! -e {gate} ]; do sleep 0.05; done; echo second"
        command_id = http.post("/api/bash/start_bash_command", json={"command": script}).json()["id"]
        frames = [received(watching)]
        # Those of another test's command may come, too.
        while (frames[-1]["kind"], frames[-1].get("command_id")) != ("BashOutputDelta", command_id):
            frames.append(received(watching))
        assert (frames[-1]["offset_bytes"], frames[-1]["text"]) == (0, "first\n")
        gate.touch()
        while frames[-1].get("text") != "second\n":
            frames.append(received(watching))
        assert frames[-1]["offset_bytes"] == len("first\n")
        seen = [received(other)["kind"]]
        while seen[-1] != "BashOutput":
            seen.append(received(other)["kind"])
        assert "BashOutputDelta" not in seen
