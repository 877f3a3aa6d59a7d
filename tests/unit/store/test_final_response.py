"""The agent's newest answer on the branch that a client sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.store.event_log import ByteCache, EventLog
from service.store.final_response import final_response
from tests.unit.store.conversation_files import make_conversation, message, put_event


def agent_message(text: str) -> dict[str, Any]:
    return message(text, source="agent")


def finish(action: Any) -> dict[str, Any]:
    return {"kind": "ActionEvent", "source": "agent", "tool_name": "finish", "action": action}


USER = message("hello")
THINK = {"kind": "ActionEvent", "source": "agent", "tool_name": "think", "action": {"thought": "hm"}}
RESULT = {"kind": "ObservationEvent", "source": "environment", "tool_name": "finish"}
ROOT = "__root__"


async def answer(
    tmp_path: Path, events: list[dict[str, Any]], leaf: int | None, parents: list[int | str | None]
) -> str:
    """The final response of a log of these events, with `parents` by seq."""
    directory = make_conversation(tmp_path)
    names = [f"{seq:08}" for seq in range(len(events))]
    for seq, (event, parent) in enumerate(zip(events, parents, strict=True)):
        parent_id = names[parent] if isinstance(parent, int) else parent
        put_event(directory, seq, **event | {"id": names[seq]} | ({"parent_id": parent_id} if parent_id else {}))
    log = EventLog(directory, ByteCache(1 << 20))
    await log.length()
    return await final_response(log, None if leaf is None else names[leaf])


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([USER], ""),
        ([USER, agent_message("hi")], "hi"),
        ([USER, agent_message("hi"), USER], "hi"),
        ([USER, agent_message("old"), USER, agent_message("new")], "new"),
        ([USER, THINK, finish({"message": "bye"}), RESULT], "bye"),
        ([USER, agent_message("hi"), finish({"message": "bye"})], "bye"),
        ([USER, agent_message("hi"), finish(None)], ""),
        ([USER, agent_message("hi"), THINK], "hi"),
    ],
    ids=[
        "no answer yet",
        "message",
        "message before a question",
        "newest message",
        "finish",
        "finish after a message",
        "finish without a valid action ends the search",
        "other actions are passed over",
    ],
)
async def test_newest_answer_of_the_branch(tmp_path: Path, events: list[dict[str, Any]], expected: str) -> None:
    """A message of the agent or its finish message, whichever is newer."""
    parents = [None, *range(len(events) - 1)]
    assert await answer(tmp_path, events, len(events) - 1, parents) == expected


async def test_text_parts_are_joined(tmp_path: Path) -> None:
    """Other parts have no text."""
    said = agent_message("one, ")
    said["llm_message"]["content"] += [{"type": "image"}, {"type": "text", "text": "two"}]
    assert await answer(tmp_path, [said], 0, [None]) == "one, two"


async def test_conversation_without_a_head_has_no_answer(tmp_path: Path) -> None:
    """Nothing was said on an empty branch."""
    assert await answer(tmp_path, [agent_message("hi")], None, [None]) == ""


async def test_abandoned_branch_does_not_answer(tmp_path: Path) -> None:
    """After going back, what was said behind the fork no longer counts."""
    events = [USER, agent_message("kept"), USER, agent_message("abandoned"), USER]
    assert await answer(tmp_path, events, 4, [None, 0, 1, 2, 1]) == "kept"


async def test_second_tree_begins_without_the_first(tmp_path: Path) -> None:
    """After going back to before the beginning, nothing was said yet."""
    events = [USER, agent_message("first tree"), USER]
    assert await answer(tmp_path, events, 2, [None, 0, ROOT]) == ""


async def test_log_without_parents_is_one_branch(tmp_path: Path) -> None:
    """As written before the SDK knew branches."""
    events = [USER, agent_message("hi"), USER]
    assert await answer(tmp_path, events, 2, [None, None, None]) == "hi"
