"""Webhook posts that were given up, until somebody has them posted again. One small file each, for all conversations.

A letter about events refers to the log. Only one whose log is gone, or that never was about a log, carries its body.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import structlog

from service.store.atomic import write_atomically

_log = structlog.get_logger(__name__)

_MAX_LETTERS = 10_000
"""Guess: months of a receiver's outages. The oldest go first."""


class Letter(NamedTuple):
    """One post."""

    delivery_id: str
    """The same at each attempt."""
    receiver_id: str
    conversation_id: UUID
    path: str
    """Below the receiver's address."""
    first_seq: int | None = None
    last_seq: int | None = None
    """Both None where no event of the log is in it."""
    body: str | None = None
    """None: the events are read from the log."""


class DeadLetter(NamedTuple):
    """A letter, and why it was given up."""

    letter: Letter
    reason: str
    given_up_at: float
    """Unix time."""


class DeadLetters:
    """Blocking calls; any process may make them."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._path = path
        self._fsync = fsync

    def add(self, letter: Letter, reason: str) -> None:
        """Keep a letter; when there are too many the oldest is dropped."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        for path in self._paths()[: 1 - _MAX_LETTERS]:
            _log.error("dead_letter_dropped", delivery_id=_id_in(path))
            path.unlink(missing_ok=True)
        now = time.time()
        content = letter._asdict() | {"conversation_id": letter.conversation_id.hex, "reason": reason}
        path = self._path / f"{int(now * 1_000_000):016}-{letter.delivery_id}.json"
        write_atomically(path, json.dumps(content).encode(), fsync=self._fsync)

    def page(self, after_id: str | None, limit: int) -> list[DeadLetter] | None:
        """Up to `limit` letters, oldest first, from the one that follows `after_id` on; None for an unknown id."""
        paths = self._paths()
        ids = [_id_in(path) for path in paths]
        if after_id is not None and after_id not in ids:
            return None
        start = 0 if after_id is None else ids.index(after_id) + 1
        return [found for path in paths[start : start + limit] if (found := _read(path)) is not None]

    def find(self, delivery_ids: list[str]) -> list[DeadLetter]:
        """Those of these letters that exist, oldest first."""
        wanted = set(delivery_ids)
        found = (_read(path) for path in self._paths() if _id_in(path) in wanted)
        return [letter for letter in found if letter is not None]

    def remove(self, delivery_id: str) -> None:
        for path in self._path.glob(f"*-{delivery_id}.json"):
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self._path.glob("[0-9]*.json"))


def _id_in(path: Path) -> str:
    return path.stem.partition("-")[2]


def _read(path: Path) -> DeadLetter | None:
    """None when it was posted meanwhile."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    reason = content.pop("reason")
    letter = Letter(**content | {"conversation_id": UUID(hex=content["conversation_id"])})
    return DeadLetter(letter, reason, int(path.stem.partition("-")[0]) / 1_000_000)
