"""Conversations and shell commands laid out on disk, as many and as long as wanted, as a server leaves them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from bench.sides import OURS, Subject, serving
from service.store.bash_history import BashHistory, new_command_id
from tests.integration.contract.conversations import Conversation
from tests.waiting import wait_until


class Template:
    """A conversation of one side, with a run behind it and one message that nobody has answered."""

    def __init__(self, side: str, directory: Path) -> None:
        """Run the side's server once for it.

        Args:
            directory: where the template is kept; made here.
        """
        with serving(side) as subject:
            one = subject.create()
            one.run_to("finished", "SAY hello")
            one.send("a message that waits")
            wait_until(lambda: one.status == "idle", "the message has arrived")
            subject.server.terminate()
            self._directory = directory
            self._id = UUID(one.id)
            self._parent = str(subject.server.conversations_path)
            shutil.copytree(subject.server.conversations_path / self._id.hex, directory)

    def copies(self, into: Path, count: int) -> None:
        """Lay out so many of them, with ids of their own."""
        for _ in range(count):
            self._copy(into / uuid4().hex)

    def lengthened(self, into: Path, length: int) -> Path:
        """One whose log has so many events: messages, each with the state update that follows it."""
        copy = self._copy(into / uuid4().hex)
        # What else the server keeps beside the log is about a shorter one; it is made anew from the log.
        (copy / "snapshot.jsonl").unlink(missing_ok=True)
        for marker in (copy / "events").glob(".eventlog*"):
            marker.unlink()
        events = sorted((copy / "events").glob("event-*.json"))
        message, update = (json.loads(path.read_bytes()) for path in events[-2:])
        last_id = message["id"]
        for seq in range(len(events), length):
            if (length - seq) % 2 == 0:
                event = message = message | {"id": str(uuid4()), "parent_id": last_id}
                event["llm_message"]["content"][0]["text"] = f"message {seq} of many"
                last_id = event["id"]
            else:
                event = update | {"id": str(uuid4()), "parent_id": last_id, "value": last_id}
            (copy / "events" / f"event-{seq:05d}-{event['id']}.json").write_text(_compact(event))
        state = json.loads((copy / "base_state.json").read_bytes())
        state |= {"leaf_event_id": last_id, "last_user_message_id": last_id}
        (copy / "base_state.json").write_text(_compact(state))
        return copy

    def _copy(self, copy: Path) -> Path:
        new = UUID(copy.name)
        for path in self._directory.rglob("*"):
            target = copy / path.relative_to(self._directory)
            if path.is_dir():
                target.mkdir(parents=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text()
            for old, its in ((self._id.hex, new.hex), (str(self._id), str(new)), (self._parent, str(copy.parent))):
                text = text.replace(old, its)
            target.write_text(text)
        return copy


@contextmanager
def serving_long(
    side: str, template: Template, length: int, *, others: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Subject, Conversation]]:
    """A server with a conversation of so many events, and so many short ones beside it; see `serving`."""
    folders: list[Path] = []

    def prepare(path: Path) -> None:
        template.copies(path, others)
        folders.append(template.lengthened(path, length))

    with serving(side, prepare, environment) as subject:
        one = subject.create.handle(folders[0].name)
        assert one.get("/events/count").text == str(length)
        yield subject, one


def add_commands(side: str, history: Path, count: int) -> None:
    """So many shell commands that have ended, in the history of one side."""
    if side == OURS:
        _add_our_commands(BashHistory(history), count)
        return
    history.mkdir(exist_ok=True)
    moment = datetime.now(UTC) - timedelta(hours=1)
    for _ in range(count):
        moment += timedelta(milliseconds=10)
        command_id, output_id = uuid4().hex, uuid4().hex
        common = {"timestamp": moment.isoformat().replace("+00:00", "Z")}
        command = {"id": command_id, "command": "true", "cwd": None, "timeout": 300, "kind": "BashCommand"}
        output = {"id": output_id, "command_id": command_id, "order": 0, "exit_code": 0, "kind": "BashOutput"}
        stem = moment.strftime("%Y%m%d%H%M%S%f")
        (history / f"{stem}_BashCommand_{command_id}").write_text(_compact(common | command))
        texts = {"stdout": None, "stderr": None}
        (history / f"{stem}_BashOutput_{command_id}_{output_id}").write_text(_compact(common | output | texts))


def _add_our_commands(history: BashHistory, count: int) -> None:
    for _ in range(count):
        command_id = new_command_id()
        history.begin(command_id, "true", None, 300)
        history.add_output(command_id, 0, 0, None, None)


def _compact(content: object) -> str:
    """As the SDK writes JSON."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
