"""The history that leads to HEAD."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from service.git.program import commit_of, git

_FORMAT = "%x1f".join(("%H", "%h", "%s", "%an", "%aI"))


class Commit(NamedTuple):
    """One commit, as `git log` tells it."""

    sha: str
    short_sha: str
    subject: str
    author: str
    timestamp: str
    """The author's date, ISO 8601 with offset."""


def commits(directory: Path, limit: int) -> tuple[list[Commit], bool]:
    """The newest first, and whether there are more. None outside of any repository. Blocking. Raises GitFailed.

    A bare repository has a history, too.
    """
    if commit_of(directory, "HEAD") is None:
        return [], False
    printed = git(directory, "log", f"--max-count={limit + 1}", f"--format={_FORMAT}", "-z")
    records = printed.decode(errors="replace").split("\0") if printed else []
    found = [Commit(*record.removesuffix("\n").split("\x1f")) for record in records if record]
    return found[:limit], len(found) > limit
