"""What readers are promised of a log that grows as they read."""

from __future__ import annotations

import json

from service.app import create_app
from service.settings import Settings
from service.store.layout import ConversationDirectory
from service.store.snapshot import Snapshot, SnapshotHeader, SnapshotReader, write_snapshot
from tests.conftest import StartClient
from tests.unit.store.conversation_files import make_conversation, message, put_event

FULL_STATE = b'{"kind":"ConversationStateUpdateEvent","key":"full_state"}'


class GrowingLog(SnapshotReader):
    """Appends an event to the log whenever the state, which is the first frame, is read."""

    def full_state(self, directory: ConversationDirectory) -> bytes | None:
        put_event(directory, 1, **message("said as the state was sent"))
        return super().full_state(directory)


async def test_what_is_appended_as_the_state_is_sent_follows_it(sanic_client: StartClient, settings: Settings) -> None:
    """Clients write as soon as they have the first frame; where their stream starts must be settled by then."""
    directory = make_conversation(settings.conversations_path)
    put_event(directory, 0, **message("said before"))
    write_snapshot(directory, Snapshot(SnapshotHeader("idle", "", ""), b"{}", FULL_STATE, b""))
    client = await sanic_client(create_app(settings, embedded_runner=False))
    client.app.ctx.web.snapshots = GrowingLog()
    async with client.ws_connect(f"/sockets/events/{directory.path.name}") as socket:
        assert json.loads(await socket.recv())["key"] == "full_state"
        assert "said as the state was sent" in str(await socket.recv())


class AnsweringLog(SnapshotReader):
    """Appends the agent's answer to the log whenever the information, which names it as HEAD, is read."""

    def info(self, directory: ConversationDirectory, with_skills: bool = False) -> bytes | None:
        put_event(directory, 1, id="00000001", **message("the answer", source="agent"))
        return super().info(directory, with_skills)


async def test_answer_that_comes_as_it_is_asked_for_is_found(sanic_client: StartClient, settings: Settings) -> None:
    """HEAD is never newer than the log it is looked for in."""
    directory = make_conversation(settings.conversations_path)
    put_event(directory, 0, **message("asked"))
    info = b'{"leaf_event_id":"00000001"}'
    write_snapshot(directory, Snapshot(SnapshotHeader("running", "", ""), info, FULL_STATE, b""))
    client = await sanic_client(create_app(settings, embedded_runner=False))
    client.app.ctx.web.snapshots = AnsweringLog()
    answer = await client.get(f"/api/conversations/{directory.path.name}/agent_final_response")
    assert answer.json() == {"response": "the answer"}
