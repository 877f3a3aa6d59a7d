"""`event-<seq>-<event id>.json`, the SDK's name for an event's file (openhands-sdk 1.58, persistence_const)."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = re.compile(r"event-(\d{5,})-([0-9a-fA-F\-]{8,})\.json")


class EventName(NamedTuple):
    """A parsed name."""

    seq: int
    """0-based dense index in the log."""
    event_id: str


def parse_event_name(name: str) -> EventName | None:
    """None for anything else in the directory: markers, locks, temporary files."""
    match = _NAME.fullmatch(name)
    return EventName(int(match[1]), match[2]) if match else None


def event_file_name(seq: int, event_id: str) -> str:
    return f"event-{seq:05d}-{event_id}.json"


def names_from(seq: int, names: list[str]) -> list[str]:
    """Some of the names in an events directory, among them all of events from `seq` on that no gap precedes.

    A tenth of what it takes to parse them all. Up to 99,999 events names sort as their numbers do, which are filled up
    with zeros; one with a longer number then is behind a gap.
    """
    first = f"event-{seq:05d}-"
    return names if len(names) >= 100_000 else [name for name in names if name >= first]
