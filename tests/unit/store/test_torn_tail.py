"""What a power cut may leave at the end of a log is set aside."""

from __future__ import annotations

from pathlib import Path

from service.store.torn_tail import set_aside_torn_tail
from tests.unit.store.conversation_files import make_conversation, put_event


def test_newest_events_are_those_with_the_highest_numbers(tmp_path: Path) -> None:
    """Also above 99,999, where names no longer sort as their numbers do."""
    directory = make_conversation(tmp_path)
    for seq in (99_998, 99_999, 100_000, 100_001):
        put_event(directory, seq)
    names = [path.name for path in sorted(directory.events.iterdir(), key=lambda path: int(path.name.split("-")[1]))]
    for name in names[2:]:
        (directory.events / name).write_bytes(b'{"id":')
    aside = set_aside_torn_tail(directory)
    assert sorted(path.name for path in aside) == sorted(f".torn-{name}" for name in names[2:])
    assert all((directory.events / name).exists() for name in names[:2])
