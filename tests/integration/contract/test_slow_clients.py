"""Clients that do not read: how they are given up, and that they do not hold up the end of the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.integration.contract.conversations import Conversations
from tests.integration.contract.frames import ANY_SIZE, close_of, event_ids, flood, idle_client, news, read_until
from tests.scripted_llm import ScriptedLlm
from tests.server_process import Server
from tests.waiting import wait_until

STALL_SECONDS = 1
DRAIN_SECONDS = 1
STOP_SECONDS = 8
"""Far more than giving up on one client takes, and less than waiting for it: 3 and 11 s on a busy machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that soon gives up on clients that do not read, and on stopping gently."""
    settings = {"OH_SOCKET_STALL_SECONDS": str(STALL_SECONDS), "OH_DRAIN_SECONDS": str(DRAIN_SECONDS)}
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


# The last one: there is no server after it.
def test_stopping_server_closes_its_sockets_with_1012(
    server: Server, http: httpx.Client, llm: ScriptedLlm, project: Path
) -> None:
    """Viewers are told to come back, at once and though another client does not read; the exit is a clean one."""
    watched = Conversations(http, llm, str(project))()
    with idle_client(watched), ExitStack() as stack:
        viewers = [stack.enter_context(watched.socket(max_size=None)) for _ in range(3)]
        flood(watched)
        with ThreadPoolExecutor(1) as background:
            exit_code = background.submit(server.terminate, STOP_SECONDS)

            assert [close_of(viewer) for viewer in viewers] == [(1012, "")] * 3
            assert exit_code.result() == 0
