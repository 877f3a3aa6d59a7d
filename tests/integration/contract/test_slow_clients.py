"""Clients that do not read: how they are given up, and that they do not hold up the end of the server."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversations
from tests.integration.contract.frames import (
    ANY_SIZE,
    close_of,
    counted,
    event_ids,
    flood,
    idle_client,
    news,
    read_until,
)
from tests.integration.contract.session import event_source, opening
from tests.server_process import Server
from tests.waiting import wait_until

STALL_SECONDS = 1
DRAIN_SECONDS = 1
PING_SECONDS = 0.5
CLOSE, PING = 8, 9
"""Opcodes."""
STOP_SECONDS = 8
"""Far more than giving up on one client takes, and less than waiting for it: 3 and 11 s on a busy machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that soon gives up on clients that do not read, and on stopping gently."""
    settings = {
        "OH_SOCKET_STALL_SECONDS": str(STALL_SECONDS),
        "OH_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "OH_SOCKET_PING_SECONDS": str(PING_SECONDS),
    }
    with Server(tmp_path_factory.mktemp("server"), settings) as running:
        yield running


def test_client_that_does_not_read_is_cut_off_with_1013(conversation: Conversations) -> None:
    """It finds out when it reads again: after what was on its way to it, that it was too slow and may come back."""
    watched = conversation()
    with idle_client(watched) as idle, watched.socket(ANY_SIZE, max_size=None) as reader:
        last_id = flood(watched)[-1]
        read_until(reader, lambda frame: frame["id"] == last_id)
        given_up_at = time.monotonic() + 2.5 * STALL_SECONDS
        wait_until(lambda: time.monotonic() > given_up_at, "the server has given up on the client")

        assert close_of(idle) == (1013, "slow_consumer")
        assert event_ids(news(reader, watched)) == []


def test_event_stream_that_is_not_read_is_cut_off(conversation: Conversations, http: httpx.Client) -> None:
    """There is no code for it in HTTP: the answer ends in the middle, and the client comes back with its last id."""
    watched = conversation()
    flood(watched)
    before = counted(http, "slow_sockets")
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", http.base_url.port))
        idle.sendall(f"GET {watched.path}/events/stream?after_seq=-1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: counted(http, "slow_sockets") > before, "the server has given up on the client")
        idle.settimeout(20)
        with suppress(ConnectionResetError):
            while idle.recv(1 << 20):
                pass


def frames_of_silent_client(server: Server, path: str) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each frame, read by a client that answers nothing; up to and with the close frame."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
        key = base64.b64encode(bytes(16)).decode()
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        connection.sendall(request.encode())
        stream = connection.makefile("rb")
        assert b" 101 " in stream.readline()
        while stream.readline() != b"\r\n":
            pass
        opcode = None
        while opcode != CLOSE:
            head, size = stream.read(2)
            opcode = head & 0x0F
            if size > 125:
                size = int.from_bytes(stream.read(2 if size == 126 else 8))
            yield opcode, stream.read(size)


@pytest.mark.parametrize("kind", ["session", "events"])
def test_quiet_client_is_pinged_and_a_dead_one_closed(server: Server, conversation: Conversations, kind: str) -> None:
    """Proxies see that a quiet socket is alive, and a client whose machine has gone does not stay for ever."""
    frames = list(frames_of_silent_client(server, f"/sockets/{kind}/{conversation().id}"))

    assert PING in [opcode for opcode, _ in frames]
    assert int.from_bytes(frames[-1][1][:2]) == 1011


def test_client_that_answers_pings_stays(conversation: Conversations) -> None:
    """For as long as it likes, though nothing is said."""
    with conversation().session() as quiet:
        opening(quiet)
        stays_until = time.monotonic() + 4 * PING_SECONDS
        wait_until(lambda: time.monotonic() > stays_until, "a dead client would have been closed")
        quiet.ping().wait(10)


# The last one: there is no server after it.
def test_stopping_server_closes_its_sockets_with_1012(
    server: Server, http: httpx.Client, llm: ScriptedLlm, project: Path
) -> None:
    """Viewers are told to come back, at once and though another client does not read; the exit is a clean one.

    Clients of OpenAI's interface are told that there is more: to them an answer that ends is the whole answer.
    """
    watched = Conversations(http, llm, str(project))()
    profile = server.directory / "home" / ".openhands" / "profiles" / "scripted.json"
    profile.parent.mkdir(parents=True)
    profile.write_text(json.dumps(llm.settings))
    asked = {"model": "openhands_scripted", "messages": [{"role": "user", "content": "HOLD stop"}], "stream": True}
    with idle_client(watched), ExitStack() as stack:
        answer = stack.enter_context(http.stream("POST", "/v1/chat/completions", json=asked)).iter_lines()
        llm.wait_held("stop")
        viewers = [stack.enter_context(watched.socket(max_size=None)) for _ in range(3)]
        source = stack.enter_context(event_source(watched))
        flood(watched)
        with ThreadPoolExecutor(1) as background:
            exit_code = background.submit(server.terminate, STOP_SECONDS)

            assert [close_of(viewer) for viewer in viewers] == [(1012, "")] * 3
            assert "durable" in [frame["type"] for frame in source], "the stream ends as an answer ends"
            last_line = [line for line in answer if line][-1]
            assert json.loads(last_line.removeprefix("data: "))["error"]["message"].endswith("goes on.")
            assert exit_code.result() == 0
