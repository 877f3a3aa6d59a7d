"""Which process owns a conversation, from the record beside its events."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until


def runner_id(conversations_path: Path, conversation_id: str) -> str:
    """Empty when the last owner has let go."""
    record = conversations_path / conversation_id.replace("-", "") / "owner.json"
    return str(json.loads(record.read_text())["runner_id"])


def owner_pid(conversations_path: Path, conversation_id: str) -> int:
    """The owner's process id."""
    return int(runner_id(conversations_path, conversation_id).split(".")[-2])


def wait_for_another_owner(conversations_path: Path, conversation_id: str, former: int) -> int:
    """Wait until a process other than `former` owns the conversation, and return its id."""

    def other() -> int | None:
        owner = runner_id(conversations_path, conversation_id)
        pid = int(owner.split(".")[-2]) if owner else former
        return pid if pid != former else None

    return wait_until(other, f"another process than {former} owns the conversation", 30.0) or 0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process does not get the processor while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
