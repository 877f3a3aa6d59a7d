"""The SDK's window to the disk: fenced, and handing out what it has written."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from unittest.mock import patch

import pytest
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.event import MessageEvent
from openhands.sdk.utils.cipher import Cipher

from service.errors import OwnershipLost
from service.identity import RunnerId
from service.runner.conversation.command import Command
from service.runner.conversation.owned_store import OwnedStore
from service.store import event_listing
from service.store.inbox import Inbox, InboxEntry
from service.store.layout import ConversationDirectory
from service.store.owner_record import Fence, claim
from tests.unit.runner.rig import Rig, ScriptedLLM, run, says, send, thinks
from tests.unit.store.conversation_files import make_conversation

EVENT = "events/event-00003-0a0b0c0d-0000-4000-8000-000000000001.json"
EVENT_ID = "0a0b0c0d-0000-4000-8000-000000000001"
USER_MESSAGE = '{"id":"1","source":"user","kind":"MessageEvent"}'


class Appended(list[tuple[int, str, bytes]]):
    """What the store has handed out."""

    def note(self, seq: int, event_id: str, data: bytes) -> None:
        self.append((seq, event_id, data))


@pytest.fixture
def directory(tmp_path: Path) -> ConversationDirectory:
    return make_conversation(tmp_path)


def owned(directory: ConversationDirectory, *, fsync: bool = False) -> OwnedStore:
    """A store of the newest owner."""
    fence = Fence(directory, claim(directory, RunnerId("one"), fsync=False))
    return OwnedStore(directory, fence, Inbox(directory, fsync=False), fsync=fsync)


@pytest.fixture
def store(directory: ConversationDirectory) -> OwnedStore:
    return owned(directory)


def watched(store: OwnedStore) -> Appended:
    appended = Appended()
    store.on_append = appended.note
    return appended


# What is written


def test_appended_event_is_handed_out_as_it_was_written(store: OwnedStore, directory: ConversationDirectory) -> None:
    """When it is handed out, it is on disk."""
    on_disk: list[bytes] = []
    appended = Appended()

    def note(seq: int, event_id: str, data: bytes) -> None:
        on_disk.append((directory.path / EVENT).read_bytes())
        appended.note(seq, event_id, data)

    store.on_append = note
    store.write(EVENT, '{"text":"ü"}')
    assert appended == [(3, EVENT_ID, '{"text":"ü"}'.encode())]
    assert on_disk == [appended[0][2]]


def test_event_of_a_long_log_is_listed_before_anybody_hears_of_it(
    store: OwnedStore, directory: ConversationDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And while it is written the directory does not change, so that readers need not list it."""
    monkeypatch.setattr(event_listing, "SHORTEST", 2)
    store.write("events/event-00000-aaaaaaaa.json", "{}")
    lines: list[str] = []
    store.on_append = lambda seq, event_id, data: lines.extend(directory.event_listing.read_text().splitlines())
    with patch.object(os, "replace", side_effect=os.replace) as renamed:
        store.write("events/event-00001-bbbbbbbb.json", "{}")
    assert Path(renamed.call_args_list[0].args[0]).parent == directory.path
    assert [line.split()[1] for line in lines] == ["event-00000-aaaaaaaa.json", "event-00001-bbbbbbbb.json"]


@pytest.mark.parametrize("path", ["base_state.json", "events/other.json", "event-00003-aaaaaaaa.json"])
def test_other_files_are_only_written(store: OwnedStore, directory: ConversationDirectory, path: str) -> None:
    """They are no events."""
    appended = watched(store)
    store.write(path, b"{}")
    assert (directory.path / path).read_bytes() == b"{}"
    assert appended == []


def test_files_are_for_the_servers_eyes_only(store: OwnedStore, directory: ConversationDirectory) -> None:
    """They hold what users wrote and tools read."""
    store.write(EVENT, "{}")
    assert os.stat(directory.path / EVENT).st_mode & 0o777 == 0o600
    assert os.stat(directory.events).st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("fsync", "syncs"), [(False, 0), (True, 2)])
def test_writes_are_synced_when_wanted(directory: ConversationDirectory, fsync: bool, syncs: int) -> None:
    """Each file at once; the names when something is to be acknowledged."""
    store = owned(directory, fsync=fsync)
    with patch.object(os, "fsync") as synced:
        store.write(EVENT, "{}")
        store.write("base_state.json", "{}")
        assert synced.call_count == syncs
        store.sync_names()
        assert synced.call_count == 2 * syncs


def test_length_marker_is_not_kept(store: OwnedStore, directory: ConversationDirectory) -> None:
    """It is for other writers, of whom there are none; the SDK finds what it looks for."""
    marker = "events/.eventlog-len-4.marker"
    store.write(marker, "")
    store.delete(marker)
    assert store.exists(marker)
    assert not directory.events.exists()


def test_a_real_conversation_leaves_events_and_nothing_else(tmp_path: Path) -> None:
    """Bytes are the SDK's own; the seqs are dense; the plain SDK reads the same back."""
    rig = Rig(tmp_path)
    opened = rig.create(ScriptedLLM.of(thinks(), says("done")))
    appended = watched(opened.store)
    send(opened, "go ü")
    run(opened)

    events = list(opened.conversation.state.events)
    assert [seq for seq, _, _ in appended] == list(range(len(events)))
    assert [event_id for _, event_id, _ in appended] == [event.id for event in events]
    assert [data for _, _, data in appended] == [event.model_dump_json(exclude_none=True).encode() for event in events]
    assert sorted(os.listdir(opened.directory.events)) == [
        f"event-{seq:05}-{event.id}.json" for seq, event in enumerate(events)
    ]
    plain = LocalConversation(
        agent=None,
        workspace=str(rig.workspace),
        persistence_dir=str(rig.root.path),
        conversation_id=opened.directory.conversation_id,
        visualizer=None,
        cipher=Cipher("key of the tests"),
    )
    assert [event.model_dump_json() for event in plain.state.events] == [event.model_dump_json() for event in events]


# What is read


def test_files_are_read_listed_and_deleted(store: OwnedStore, directory: ConversationDirectory) -> None:
    """As the SDK's interface has it."""
    store.write(EVENT, '{"text":"ü"}')
    assert store.read(EVENT) == '{"text":"ü"}'
    assert store.exists(EVENT)
    assert store.list("events") == [EVENT]
    assert "./events/" in store.list(".")
    assert store.list("nowhere") == []
    assert store.get_absolute_path(EVENT) == str(directory.path / EVENT)
    store.delete(EVENT)
    store.delete(EVENT)
    assert not store.exists(EVENT)
    with pytest.raises(FileNotFoundError):
        store.read(EVENT)


def test_file_is_read_as_it_is_now(store: OwnedStore, directory: ConversationDirectory) -> None:
    """Nothing is remembered: another process may have written before the claim."""
    store.write("base_state.json", "{}")
    directory.base_state.write_text('{"a":1}')
    assert store.read("base_state.json") == '{"a":1}'


# Ownership


@pytest.mark.parametrize("path", [EVENT, "base_state.json"])
def test_deposed_owner_writes_nothing(store: OwnedStore, directory: ConversationDirectory, path: str) -> None:
    """Neither an event nor the state, and nobody hears of one."""
    store.write("base_state.json", "mine")
    appended = watched(store)
    claim(directory, RunnerId("other"), fsync=False)
    with pytest.raises(OwnershipLost):
        store.write(path, "{}")
    assert directory.base_state.read_text() == "mine"
    assert not (directory.path / EVENT).exists()
    assert appended == []


def test_deposed_owners_run_ends_before_the_next_tool_call(tmp_path: Path) -> None:
    """The action is appended before the tool runs, and that fails."""
    rig = Rig(tmp_path)
    llm = ScriptedLLM.of(
        thinks(),
        says("never"),
        before={0: lambda: claim(opened.directory, RunnerId("other"), fsync=False)},
    )
    opened = rig.create(llm)
    send(opened, "go")
    before = len(os.listdir(opened.directory.events))
    with pytest.raises(OwnershipLost):
        run(opened)
    assert len(os.listdir(opened.directory.events)) == before
    assert len(llm.asked) == 1


def test_constructor_of_a_deposed_owner_writes_nothing(tmp_path: Path) -> None:
    """A conversation that is opened may be changed by that alone, as by another workspace."""
    rig = Rig(tmp_path)
    opened = rig.create(ScriptedLLM.of())
    before = opened.directory.base_state.read_bytes()
    fence = Fence(opened.directory, claim(opened.directory, RunnerId("late"), fsync=False))
    claim(opened.directory, RunnerId("other"), fsync=False)
    store = OwnedStore(opened.directory, fence, opened.inbox, fsync=False)
    with pytest.raises(OwnershipLost):
        LocalConversation(
            agent=None,
            workspace=str(tmp_path / "elsewhere"),
            persistence_dir=str(rig.root.path),
            conversation_id=opened.directory.conversation_id,
            visualizer=None,
            cipher=rig.opener.cipher,
            file_store=store,
        )
    assert opened.directory.base_state.read_bytes() == before


def test_closed_store_is_a_black_hole(store: OwnedStore, directory: ConversationDirectory) -> None:
    """What still runs in an abandoned conversation has no effect, and cannot begin an action."""
    store.write(EVENT, "{}")
    appended = watched(store)
    store.close()
    assert store.is_closed
    store.write("base_state.json", "new")
    with pytest.raises(OwnershipLost):
        store.write("events/event-00004-aaaaaaaa.json", "{}")
    store.delete(EVENT)
    assert sorted(os.listdir(directory.events)) == [Path(EVENT).name]
    assert directory.base_state.read_text() != "new"
    assert appended == []


# Commands on their way


def waiting(directory: ConversationDirectory, kind: str = "message") -> tuple[Command, OwnedStore]:
    """A command in the inbox, and a store whose inbox it is."""
    inbox = Inbox(directory, fsync=False)
    entry = inbox.put(inbox.reserve(), kind, b"{}")
    fence = Fence(directory, claim(directory, RunnerId("one"), fsync=False))
    return Command(kind, b"{}", entry=entry), OwnedStore(directory, fence, inbox, fsync=False)


def entries(directory: ConversationDirectory) -> list[InboxEntry]:
    return Inbox(directory, fsync=False).entries()


async def test_users_message_is_noted_in_the_inbox_before_it_is_appended(directory: ConversationDirectory) -> None:
    """So a crash in between is told from one after it."""
    command, store = waiting(directory)
    noted: list[str | None] = []
    store.on_append = lambda seq, event_id, data: noted.extend(entry.event_id for entry in entries(directory))
    with store.applying(command):
        store.write(EVENT, USER_MESSAGE)
    assert noted == [EVENT_ID]
    assert command.entry is not None
    assert command.entry.event_id == EVENT_ID


@pytest.mark.parametrize(
    "event",
    [
        '{"id":"1","source":"environment","kind":"MessageEvent"}',
        '{"id":"1","source":"agent","text":"\\"source\\":\\"user\\"","kind":"MessageEvent"}',
        '{"id":"1","source":"user","kind":"PauseEvent"}',
    ],
    ids=["environment", "agent that quotes", "no message"],
)
async def test_other_events_are_not_taken_for_the_users_message(directory: ConversationDirectory, event: str) -> None:
    """The first message is preceded by the system prompt, and hooks may speak."""
    command, store = waiting(directory)
    with store.applying(command):
        store.write(EVENT, event)
    assert [entry.event_id for entry in entries(directory)] == [None]


async def test_other_commands_are_not_noted(directory: ConversationDirectory) -> None:
    """A rejection that comes with a message is no message."""
    command, store = waiting(directory, "reject")
    with store.applying(command):
        store.write(EVENT, USER_MESSAGE)
    assert [entry.event_id for entry in entries(directory)] == [None]


async def test_message_of_another_thread_is_not_noted(directory: ConversationDirectory) -> None:
    """A run may append while a command is applied."""
    command, store = waiting(directory)
    with store.applying(command):
        thread = threading.Thread(target=store.write, args=(EVENT, USER_MESSAGE))
        thread.start()
        thread.join()
    assert [entry.event_id for entry in entries(directory)] == [None]


async def test_message_after_the_command_is_not_noted(directory: ConversationDirectory) -> None:
    """The command is over."""
    command, store = waiting(directory)
    with store.applying(command):
        pass
    store.write(EVENT, USER_MESSAGE)
    assert [entry.event_id for entry in entries(directory)] == [None]


def test_sdks_messages_look_as_the_store_expects(tmp_path: Path) -> None:
    """It recognises a user's message by the SDK's bytes, which another version may write otherwise."""
    opened = Rig(tmp_path).create(ScriptedLLM.of())
    send(opened, "go")
    event = opened.conversation.state.events[-1]
    assert isinstance(event, MessageEvent)
    data = event.model_dump_json(exclude_none=True)
    assert '"source":"user"' in data
    assert data.endswith('"kind":"MessageEvent"}')
