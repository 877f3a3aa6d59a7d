"""The disk fills up, becomes read-only or holds broken files: a clear error for what it concerns, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.bash import Bash
from tests.integration.contract.conversations import Conversation, Conversations, user_message
from tests.server_process import Server
from tests.waiting import wait_until

DISK_BYTES = 8 << 20


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def directory(self, conversation: Conversation) -> Path:
        return self.path / "conversations" / conversation.id.replace("-", "")

    def remount(self, mode: str) -> None:
        as_root("mount", "-o", f"remount,{mode}", str(self.path))

    def fill(self) -> None:
        """Leave no room at all."""
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def empty(self) -> None:
        self._filler.unlink()


def as_root(*command: str) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*sudo, *command], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """Mounting needs root, with or without sudo."""
    path = tmp_path_factory.mktemp("disk")
    options = f"size={DISK_BYTES},uid={os.geteuid()},mode=700"
    as_root("mount", "-t", "tmpfs", "-o", options, "fanout-tests", str(path))
    yield Disk(path)
    as_root("umount", "--lazy", str(path))


@pytest.fixture(scope="module")
def server(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process whose conversations are on that disk."""
    environment = {"OH_CONVERSATIONS_PATH": str(disk.path / "conversations")}
    with Server(tmp_path_factory.mktemp("server"), environment) as server:
        yield server


@pytest.fixture
def conversation(server: Server, scripted_llm: ScriptedLlm, tmp_path: Path) -> Iterator[Conversations]:
    """`conversation()` creates one and returns its handle."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
        yield Conversations(http, scripted_llm, str(tmp_path / "project"))


def readiness(conversation: Conversation) -> str:
    return conversation.http.get("/ready").text


def is_ready(conversation: Conversation) -> bool:
    return conversation.http.get("/ready").status_code == 200


def texts(conversation: Conversation) -> list[str]:
    """What was said, by whom ever."""
    messages = [event for event in conversation.events if event["kind"] == "MessageEvent"]
    return [message["llm_message"]["content"][0]["text"] for message in messages]


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_disk_that_takes_no_writes(disk: Disk, conversation: Conversations, trouble: str) -> None:
    """Writes are refused with the reason, reads go on, the server says that it is not ready; then all is as before."""
    one, other = conversation(), conversation()
    one.run_to("finished", "SAY before")
    other.send("before")
    before = one.events

    disk.fill() if trouble == "full" else disk.remount("ro")
    try:
        wait_until(lambda: trouble in readiness(one), f"the server says that the disk is {trouble}")
        refused = [one.post("/events", user_message("lost")), conversation.create(), one.patch({"title": "lost"})]
        for answer in refused:
            assert answer.status_code in {500, 503}, answer.text
            assert "space" in answer.text or "Read-only" in answer.text
        assert one.events == before
        assert other.get().status_code == 200
    finally:
        disk.empty() if trouble == "full" else disk.remount("rw")

    wait_until(lambda: is_ready(one), "the server is ready again")
    one.run_to("finished", "SAY after")
    other.send("after")
    assert [text for text in texts(one) if not text.startswith("SAY")] == ["before", "after"]
    assert texts(other) == ["before", "after"]
    assert one.info["title"] is None


def test_delete_makes_room(server: Server, disk: Disk, conversation: Conversations) -> None:
    """Of a conversation in use, and of one that nobody has opened."""
    one, other = conversation(), conversation()
    server.kill()
    server.start()
    one.send("opens it")
    disk.fill()
    try:
        for each in (one, other):
            answer = each.delete()
            assert (answer.status_code, each.get().status_code) == (200, 404), answer.text
    finally:
        disk.empty()


def test_message_that_does_not_fit_leaves_the_conversation_usable(conversation: Conversations) -> None:
    """Nothing of it is stored, and smaller ones still are."""
    one = conversation()
    answer = one.post("/events", user_message("x" * DISK_BYTES))
    assert answer.status_code == 500
    assert "space" in answer.text
    one.run_to("finished", "SAY still here")
    assert texts(one) == ["SAY still here", "still here"]


def test_disk_that_fills_up_during_a_run_ends_the_run(
    server: Server, disk: Disk, conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """The answer cannot be stored: the run is over, and once there is room the next one works."""
    one = conversation()
    one.send("HOLD full", "SAY lost", run=True)
    scripted_llm.wait_held("full")
    disk.fill()
    try:
        scripted_llm.release("full")
        wait_until(lambda: "crash_not_recorded" in server.log, "the run has ended")
    finally:
        disk.empty()
    one.wait_status("error")
    reason = one.wait_event("the reason is in the log", lambda event: event["kind"] == "ConversationErrorEvent")
    assert "space" in reason["detail"]
    one.run_again()
    one.wait_status("finished")
    assert texts(one)[-1] == "lost", "the LLM is asked again for what could not be stored"


def test_command_whose_output_meets_a_full_disk_ends_when_there_is_room(
    server: Server, disk: Disk, conversation: Conversations, tmp_path: Path
) -> None:
    """With all that it has put out, once."""
    one, gate = conversation(), tmp_path / "go"
    bash = Bash(one.http, f"{one.path}/bash")
    command = bash.start(f"while [ ! -e {gate} ]; do sleep 0.05; done; head -c 20000 /dev/zero | tr '\\0' x; exit 3")
    disk.fill()
    try:
        gate.touch()
        wait_until(lambda: "output_not_stored" in server.log, "the end was refused")
    finally:
        disk.empty()
    wait_until(lambda: bash.outputs(command["id"]) != [], "the command has ended")
    [output] = bash.outputs(command["id"])
    assert (output["stdout"], output["exit_code"]) == ("x" * 20_000, 3)
    assert bash.execute("echo after")["stdout"] == "after\n"


def test_torn_last_event_is_set_aside(server: Server, disk: Disk, conversation: Conversations) -> None:
    """As a power cut may leave it: what is whole stays, and the conversation goes on."""
    one = conversation()
    one.run_to("finished", "SAY before")
    server.kill()
    events = disk.directory(one) / "events"
    last = max(events.glob("event-*.json"))
    last.write_bytes(last.read_bytes()[:20])
    server.start()
    one.run_to("finished", "SAY after")
    assert texts(one)[-1] == "after"
    assert "EventUnreadable" in [event.get("code") for event in one.events]
    assert [path.name for path in events.glob(".torn-*")] == [f".torn-{last.name}.told"]


@pytest.mark.parametrize("name", ["meta.json", "owner.json"])
def test_unreadable_record_concerns_one_conversation(
    server: Server, disk: Disk, conversation: Conversations, name: str
) -> None:
    """Its commands say why they fail; lists and the others go on."""
    one, other = conversation(), conversation()
    one.send("before")
    server.kill()
    record = disk.directory(one) / name
    whole = record.read_bytes()
    record.write_bytes(b"{")
    server.start()
    answer = one.post("/events", user_message("lost"))
    assert answer.status_code == 500
    assert one.id in answer.text
    assert texts(one) == ["before"]
    other.send("still here")
    listed = one.http.get("/api/conversations/search").raise_for_status().json()["items"]
    assert other.id in [item["id"] for item in listed]
    record.write_bytes(whole)
    one.send("after")
    assert texts(one) == ["before", "after"]
