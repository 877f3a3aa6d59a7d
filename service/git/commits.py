"""The history that leads to HEAD."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from service.git.program import commit_of, git

_FORMAT = "%x00".join(("%H", "%h", "%s", "%an", "%aI"))


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
    # In another encoding a text may hold the NUL that nothing else can hold.
    options = (f"--max-count={limit + 1}", f"--format={_FORMAT}", "-z", "--encoding=UTF-8")
    fields = git(directory, "log", *options).decode(errors="replace").split("\0")[:-1]
    found = [Commit(*record) for record in zip(*[iter(fields)] * 5, strict=True)]
    return found[:limit], len(found) > limit
