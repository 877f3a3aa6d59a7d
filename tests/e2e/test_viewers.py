"""Many people watch one run over sockets of their own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.e2e.remote_client import RemoteClient, call, send, start_run, terminal
from tests.server_process import Server

VIEWERS = 200
STEPS = 10
WATCH_SECONDS = 60.0

JsonObject = dict[str, Any]


@pytest.fixture
def script() -> str:
    """A run of many steps: thoughts and commands in turn, each different so that the agent does not look stuck."""
    thoughts = [call("think", thought=f"thought {number}") for number in range(STEPS)]
    commands = [terminal(f"echo output-{number}") for number in range(STEPS)]
    pairs = [line for pair in zip(thoughts, commands, strict=True) for line in pair]
    return "\n".join([*pairs, "SAY the end"])


async def test_viewers_all_see_the_same_run_in_order(client: RemoteClient, server: Server, script: str) -> None:
    """Each of 200 sockets gets every event of a run once, in the order of the log."""
    conversation = await asyncio.to_thread(client.start)
    address = f"{server.url.replace('http', 'ws')}/sockets/events/{conversation.id}"

    async with asyncio.timeout(WATCH_SECONDS), asyncio.TaskGroup() as group:
        subscribed = asyncio.Barrier(VIEWERS + 1)
        viewers = [group.create_task(watch(address, subscribed)) for _ in range(VIEWERS)]
        await subscribed.wait()
        await asyncio.to_thread(send, conversation, script)
        await asyncio.to_thread(start_run, conversation)

    logged = await asyncio.to_thread(logged_ids, client, str(conversation.id))
    assert len(logged) > 4 * STEPS
    durable = set(logged)
    for viewer in viewers:
        # State updates that are not stored may be left out for a viewer that reads slowly.
        assert [event_id for event_id in viewer.result() if event_id in durable] == logged


async def watch(address: str, subscribed: asyncio.Barrier) -> list[str]:
    """Read one socket to the end of the run; the ids of its frames in order, without the snapshots."""
    async with connect(address, proxy=None, open_timeout=WATCH_SECONDS) as socket:
        greeting = await frame(socket)
        assert greeting["key"] == "full_state"
        await subscribed.wait()
        ids: list[str] = []
        while not is_end_of_run(event := await frame(socket)):
            if event.get("key") != "full_state":
                ids.append(event["id"])
        return ids


async def frame(socket: ClientConnection) -> JsonObject:
    """The next frame, decoded."""
    event: JsonObject = json.loads(await socket.recv())
    return event


def is_end_of_run(event: JsonObject) -> bool:
    """The snapshot that follows every event of a run."""
    return event.get("key") == "full_state" and event["value"]["execution_status"] == "finished"


def logged_ids(client: RemoteClient, conversation_id: str) -> list[str]:
    """The ids of the whole log, over all pages."""
    ids: list[str] = []
    query: dict[str, str] = {}
    while True:
        response = client.http.get(f"/api/conversations/{conversation_id}/events/search", params=query)
        page = response.raise_for_status().json()
        ids += [event["id"] for event in page["items"]]
        if not page["next_page_id"]:
            return ids
        query = {"page_id": page["next_page_id"]}
