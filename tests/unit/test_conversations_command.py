"""Following a conversation from the command line."""

from __future__ import annotations

import json
from unittest.mock import patch
from uuid import uuid4

import httpx
import pytest

from service import conversations_command
from service.conversations_command import _session


@pytest.mark.parametrize("status", [502, 503, 504])
def test_following_goes_on_when_the_server_is_away(status: int) -> None:
    """As a balancer says it while a server restarts; from the last event on."""
    frame = json.dumps({"type": "durable", "seq": 7, "event": {"kind": "PauseEvent"}})
    streams = iter([httpx.Response(200, text=f"data:{frame}\n\n"), httpx.Response(status)])
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/stream"):
            return httpx.Response(200, json={})
        asked.append(request)
        return next(streams, httpx.Response(200, text=f"data:{frame}\n\n"))

    with (
        patch.object(conversations_command, "_COME_BACK_SECONDS", 0),
        httpx.Client(base_url="http://fanout", transport=httpx.MockTransport(answer)) as client,
    ):
        frames = _session(client, uuid4(), None)
        assert [next(frames)["seq"] for _ in range(2)] == [7, 7]
    assert [request.url.params.get("after_seq") for request in asked] == [None, "7", "7"]
