"""Handshakes: who gets in, who is refused, and how."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.live_app import SanicClient
from tests.support_shell import FIRST_FRAME_SECONDS, ID, KEY, send_raw


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/sockets/toy/{ID}?session_api_key=wrong", ""),
        (f"/sockets/toy/{ID}?session_api_key=", ""),
        (f"/sockets/toy/{ID}", "X-Session-API-Key: wrong\r\n"),
        (f"/sockets/toy/{ID}", "X-Session-API-Key:\r\n"),
        (f"/sockets/toy/{ID}?session_api_key=wrong", "X-Session-API-Key: good\r\n"),
        (f"/sockets/toy/{ID}?session_api_key=good&session_api_key=wrong", ""),
        ("/sockets/toy/nonsense?session_api_key=good", ""),
        ("/sockets/toy/%ff?session_api_key=good", ""),
        ("/sockets/toy/nonsense", ""),
        (f"/sockets/toy/{ID}?session_api_key=good&limit=0", ""),
        (f"/sockets/toy/{ID}/?session_api_key=good", ""),
        ("/sockets/nothing", ""),
        ("/nothing", ""),
    ],
)
async def test_refused_handshake_is_403_with_an_empty_body(keyed: SanicClient, path: str, headers: str) -> None:
    head, content = await send_raw(keyed, handshake(path, headers))
    assert head.startswith(b"http/1.1 403 ")
    assert b"content-length: 0" in head
    assert not content


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?session_api_key=good", {}), ("", KEY), ("?session_api_key=good", {"X-Session-API-Key": "wrong"})],
)
async def test_socket_with_a_good_key_opens(keyed: SanicClient, query: str, headers: dict[str, str]) -> None:
    async with keyed.ws_connect(f"/sockets/toy/{ID.upper()}{query}", additional_headers=headers) as socket:
        assert await socket.recv() == f"hello {ID}"
        assert await close_of(socket) == (4004, "Conversation not found")


async def test_socket_of_a_server_without_keys_opens_at_once(client: SanicClient) -> None:
    async with client.ws_connect(f"/sockets/toy/{ID}?session_api_key=whatever") as socket:
        assert await socket.recv() == f"hello {ID}"


@pytest.mark.parametrize("extra", ["", ', "more": 1'])
async def test_first_frame_may_bring_the_key(keyed: SanicClient, extra: str) -> None:
    async with keyed.ws_connect(f"/sockets/toy/{ID}") as socket:
        await socket.send(f'{{"type": "auth", "session_api_key": "good"{extra}}}')
        assert await socket.recv() == f"hello {ID}"


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "auth", "session_api_key": "wrong"}',
        '{"type": "auth", "session_api_key": ""}',
        '{"type": "auth", "session_api_key": ["good"]}',
        '{"type": "auth"}',
        '{"type": "hello", "session_api_key": "good"}',
        '{"session_api_key": "good"}',
        '"good"',
        "[]",
        "nonsense",
        "[" * 50_000,
        b'{"type": "auth", "session_api_key": "good"}',
        b"\xff",
        "",
    ],
    ids=lambda frame: repr(frame[:30]),
)
async def test_first_frame_without_a_valid_key_closes_4001(keyed: SanicClient, frame: str | bytes) -> None:
    async with keyed.ws_connect(f"/sockets/toy/{ID}") as socket:
        await socket.send(frame)
        assert await close_of(socket) == (4001, "Authentication failed")


async def test_first_frame_is_small(keyed: SanicClient) -> None:
    """A larger one is refused by its length, before it is taken in."""
    reader, writer = await asyncio.open_connection(keyed.server.host, keyed.server.port)
    try:
        async with asyncio.timeout(5):
            writer.write(handshake(f"/sockets/toy/{ID}", ""))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\x81\xff" + (1 << 20).to_bytes(8, "big"))
            frame = await reader.readexactly(4)
    finally:
        writer.close()
    assert (frame[0], int.from_bytes(frame[2:])) == (0x88, 1009)


async def test_no_first_frame_in_time_closes_4001(keyed: SanicClient) -> None:
    loop = asyncio.get_running_loop()
    async with keyed.ws_connect(f"/sockets/toy/{ID}") as socket:
        opened = loop.time()
        assert await close_of(socket) == (4001, "Authentication failed")
        assert loop.time() - opened >= FIRST_FRAME_SECONDS * 0.9


async def test_cookie_opens_no_socket(keyed: SanicClient) -> None:
    headers = {"Cookie": "oh_workspace_session_key=good"}
    async with keyed.ws_connect(f"/sockets/toy/{ID}", additional_headers=headers) as socket:
        assert await close_of(socket) == (4001, "Authentication failed")


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", [f"/sockets/toy/{ID}?session_api_key=good", "/sockets/nothing"])
async def test_plain_request_on_a_socket_path_is_not_found(keyed: SanicClient, method: str, path: str) -> None:
    assert (await keyed.request(method, path)).status_code == 404


async def test_refused_handshake_is_what_the_websockets_client_calls_invalid_status(keyed: SanicClient) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with keyed.ws_connect("/sockets/toy/nonsense"):
            pass
    assert refused.value.response.status_code == 403
    assert not refused.value.response.body


async def close_of(socket: Any) -> tuple[int, str]:
    """The close frame that follows; fails on any other frame."""
    with pytest.raises(ConnectionClosed) as closed:
        raise AssertionError(f"unexpected frame {await asyncio.wait_for(socket.recv(), 5)!r}")
    frame = closed.value.rcvd
    assert frame is not None
    return frame.code, frame.reason


def handshake(path: str, headers: str) -> bytes:
    """An upgrade request written by hand."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    ).encode()
