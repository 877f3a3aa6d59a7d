"""A git worktree for a conversation, so that its agent and others in the same repository do not meet. Blocking.

`<root>/<conversation id>/<name of the repository>`, on a branch of its own, which is kept when the conversation is
deleted: it has the agent's work.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from openhands.sdk.conversation.request import ConversationWorktreeOptions

from service.errors import InvalidRequest
from service.git.changes import default_branch
from service.git.program import GitFailed, commit_of, git, top_of, unfiltered

_LOCAL_DEFAULTS = ("refs/heads/main", "refs/heads/master")


class Worktree(NamedTuple):
    """One that was made."""

    working_dir: Path
    """The folder in it that stands for the one the conversation was to work in."""
    guidance: str
    """For the agent."""


def add_worktree(
    root: Path, conversation_id: UUID, working_dir: Path, options: ConversationWorktreeOptions
) -> Worktree | None:
    """Make one for `working_dir`; None where that is in no repository, or in one without a commit.

    Raises:
        InvalidRequest: the options name no commit; nothing is left.
    """
    top = top_of(working_dir)
    if top is None or commit_of(top, "HEAD") is None:
        return None
    base = _base(top, options)
    path = root / str(conversation_id) / top.name
    branch = f"{options.branch_prefix}{conversation_id}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        git(top, *unfiltered(top), "worktree", "add", "--quiet", "-b", branch, str(path), base)
    except GitFailed as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise InvalidRequest(f"The worktree cannot be made: {error.reason}") from error
    guidance = (
        f"You work in the git worktree {path}, on the branch {branch}, which is yours alone. Others may be at work in "
        f"the repository's main work tree, {top}: leave it as it is, and commit to your branch."
    )
    return Worktree(path / working_dir.resolve().relative_to(top.resolve()), guidance)


def remove_worktree(root: Path, conversation_id: UUID) -> None:
    """Take it away, with what was not committed; the branch stays."""
    folder = root / str(conversation_id)
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            git(path, "worktree", "remove", "--force", str(path))
        except GitFailed:
            continue  # its repository is gone
    shutil.rmtree(folder, ignore_errors=True)


def _base(top: Path, options: ConversationWorktreeOptions) -> str:
    """Where the branch begins."""
    if options.base == "head":
        return "HEAD"
    if options.base == "ref":
        wanted = options.ref or ""
        for name in (wanted, f"refs/remotes/origin/{wanted}"):
            if commit_of(top, name) is not None:
                return name
        raise InvalidRequest(f"The worktree's ref '{wanted}' is unknown")
    local = (name for name in _LOCAL_DEFAULTS if commit_of(top, name) is not None)
    return default_branch(top) or next(local, "HEAD")
