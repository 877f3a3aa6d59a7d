"""Fifty conversations at once on four web workers and two runners, each watched on every worker."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.e2e.remote_client import call

WEB_SERVERS = 4
CONVERSATIONS = 50
THOUGHTS = 8
SECONDS = 100.0
"""Guess: ten times what it takes on an idle machine of two cores."""

JsonObject = dict[str, Any]


class Frame(NamedTuple):
    """What one frame is about."""

    id: str
    snapshot_of: str | None
    """The id of the conversation whose full state this is, or None."""


class Watched(NamedTuple):
    """One conversation, and what each of its sockets has received."""

    id: str
    sockets: list[list[Frame]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four web servers and two runners that take all conversations' runs at once."""
    limit = {"OH_MAX_CONCURRENT_RUNS": str(CONVERSATIONS)}
    with Cluster(tmp_path_factory.mktemp("cluster"), limit, web_servers=WEB_SERVERS) as running:
        yield running


@pytest.mark.heavy
@pytest.mark.timeout(240)
async def test_every_socket_receives_its_conversation_once_and_in_order(
    cluster: Cluster, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """Sockets opened before and during a run each receive all of its events, and nobody else's."""
    # One thread for each conversation's wait on the LLM.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CONVERSATIONS))
    async with asyncio.timeout(SECONDS), httpx.AsyncClient(base_url=cluster.url, timeout=SECONDS) as http:
        async with asyncio.TaskGroup() as group:
            everywhere = asyncio.Barrier(CONVERSATIONS + 1)
            tasks = [
                group.create_task(watch_a_run(cluster, http, scripted_llm, tmp_path, everywhere))
                for _ in range(CONVERSATIONS)
            ]
            await everywhere.wait()
            scripted_llm.release("watched")
        watched = [task.result() for task in tasks]
        logs = {each.id: await logged_ids(http, each.id) for each in watched}

    owners = {event_id: conversation_id for conversation_id, log in logs.items() for event_id in log}
    assert len(owners) > CONVERSATIONS * 2 * THOUGHTS
    for each in watched:
        assert len(each.sockets) == WEB_SERVERS
        for frames in each.sockets:
            assert [frame.id for frame in frames if frame.id in owners] == logs[each.id]
            assert {frame.snapshot_of for frame in frames} == {None, each.id}
    on_runners = Counter(runner_of(cluster, conversation_id) for conversation_id in logs)
    assert len(on_runners) == 2, on_runners


async def watch_a_run(
    cluster: Cluster, http: httpx.AsyncClient, llm: ScriptedLlm, project: Path, everywhere: asyncio.Barrier
) -> Watched:
    """Create a conversation, run it, and read it to its end on every web server, on half of them from its middle."""
    conversation_id = await create(http, llm, project)
    path = f"/sockets/events/{conversation_id}?resend_mode=all"
    addresses = [f"{url.replace('http', 'ws')}{path}" for url in cluster.web_urls]
    early, late = addresses[::2], addresses[1::2]
    async with asyncio.TaskGroup() as group:
        subscribed = asyncio.Barrier(len(early) + 1)
        sockets = [group.create_task(read(address, subscribed)) for address in early]
        await subscribed.wait()
        await start(http, conversation_id)
        await asyncio.to_thread(llm.wait_held, f"started {conversation_id}", SECONDS)
        subscribed = asyncio.Barrier(len(late) + 1)
        sockets += [group.create_task(read(address, subscribed)) for address in late]
        # Not after they have subscribed: they must find both a history and events that come meanwhile.
        llm.release(f"started {conversation_id}")
        await subscribed.wait()
        await everywhere.wait()
    return Watched(conversation_id, [socket.result() for socket in sockets])


async def create(http: httpx.AsyncClient, llm: ScriptedLlm, project: Path) -> str:
    """Create a conversation that can only think and talk; its id."""
    body = {
        "agent": {"kind": "Agent", "llm": llm.settings, "tools": []},
        "workspace": {"working_dir": str(project)},
        "autotitle": False,
    }
    response = await http.post("/api/conversations", json=body)
    return str(response.raise_for_status().json()["id"])


async def start(http: httpx.AsyncClient, conversation_id: str) -> None:
    """Run a script that stops twice: until its late sockets come, and until all conversations have all theirs."""
    thoughts = [call("think", thought=f"thought {number} of {conversation_id}") for number in range(THOUGHTS)]
    thoughts.insert(THOUGHTS // 4, f"HOLD started {conversation_id}")
    thoughts.insert(-(THOUGHTS // 4), "HOLD watched")
    script = "\n".join([*thoughts, "SAY the end"])
    body = {"role": "user", "content": [{"type": "text", "text": script}], "run": True}
    (await http.post(f"/api/conversations/{conversation_id}/events", json=body)).raise_for_status()


async def read(address: str, subscribed: asyncio.Barrier) -> list[Frame]:
    """Read one socket from its greeting to the end of the run."""
    async with connect(address, proxy=None, open_timeout=SECONDS) as socket:
        frames = [frame_of(await receive(socket))]
        await subscribed.wait()
        while not is_end_of_run(event := await receive(socket)):
            frames.append(frame_of(event))
        return frames


async def receive(socket: ClientConnection) -> JsonObject:
    """The next frame, decoded."""
    event: JsonObject = json.loads(await socket.recv())
    return event


def frame_of(event: JsonObject) -> Frame:
    """What a test wants to know of an event."""
    is_snapshot = event.get("key") == "full_state"
    return Frame(event["id"], event["value"]["id"] if is_snapshot else None)


def is_end_of_run(event: JsonObject) -> bool:
    """The snapshot that follows every event of a run."""
    return event.get("key") == "full_state" and event["value"]["execution_status"] == "finished"


async def logged_ids(http: httpx.AsyncClient, conversation_id: str) -> list[str]:
    """The ids of the whole log, which fits one page."""
    response = await http.get(f"/api/conversations/{conversation_id}/events/search", params={"limit": 100})
    page = response.raise_for_status().json()
    assert page["next_page_id"] is None
    return [event["id"] for event in page["items"]]


def runner_of(cluster: Cluster, conversation_id: str) -> str:
    """The runner that owns a conversation, as Redis knows it."""
    key = f"fanout:owner:{conversation_id.replace('-', '')}"
    return str(cluster.redis.client.get(key))
