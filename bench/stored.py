"""Conversations laid out on disk, as many and as long as wanted: copies of one that a server has made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

from bench.sides import Subject, serving
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


def _compact(content: object) -> str:
    """As the SDK writes JSON."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
