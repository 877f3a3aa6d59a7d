"""A git worktree for a conversation, so that its agent and others in the same repository do not meet. Blocking.

`<root>/<conversation id>/<name of the repository>`, on a branch of its own, which is kept when the conversation is
deleted: it has the agent's work. A conversation that is made again under its id goes on with it.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from openhands.sdk.conversation.request import ConversationWorktreeOptions

from service.errors import InvalidRequest
from service.git.changes import default_branch
from service.git.program import GitFailed, commit_of, git, line, top_of, unfiltered

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
    """Make one for `working_dir`; None where that is in no repository, or in one without a commit or with its files
    elsewhere (`core.worktree`).

    The folder of the conversation's id is emptied first: nobody works in what is there.

    Raises:
        InvalidRequest: the options name no commit, or git refuses.
    """
    top = top_of(working_dir)
    folder = working_dir.resolve()
    if top is None or not folder.is_relative_to(top.resolve()) or commit_of(top, "HEAD") is None:
        return None
    base = _base(top, options)
    path = root / str(conversation_id) / top.name
    branch = _branch(conversation_id, options)
    remove_worktree(root, conversation_id)
    with suppress(GitFailed):  # its folder may have gone without git's knowing
        git(top, "worktree", "remove", "--force", str(path))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    what = [str(path), branch] if _has_work(top, branch, base) else ["-B", branch, str(path), base]
    try:
        git(top, *unfiltered(top), "worktree", "add", "--quiet", *what)
    except GitFailed as error:
        raise InvalidRequest(f"The worktree cannot be made: {error.reason}") from error
    guidance = (
        f"You work in the git worktree {path}, on the branch {branch}, which is yours alone. Others may be at work in "
        f"the repository's main work tree, {top}: leave it as it is, and commit to your branch."
    )
    return Worktree(path / folder.relative_to(top.resolve()), guidance)


def remove_worktree(root: Path, conversation_id: UUID) -> None:
    """Take it away, with what was not committed; the branch stays."""
    folder = root / str(conversation_id)
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            git(path, "worktree", "remove", "--force", str(path))
        except GitFailed:
            continue  # its repository is gone
    shutil.rmtree(folder, ignore_errors=True)


def remove_branch(conversation_id: UUID, working_dir: Path, options: ConversationWorktreeOptions) -> None:
    """Take away the branch of a worktree that has been removed, unless there is work on it."""
    top = top_of(working_dir)
    if top is None:
        return
    branch = _branch(conversation_id, options)
    with suppress(GitFailed, InvalidRequest):  # there is none, nor a commit it could begin at
        if not _has_work(top, branch, _base(top, options)):
            git(top, "branch", "--quiet", "-D", branch)


def _branch(conversation_id: UUID, options: ConversationWorktreeOptions) -> str:
    return f"{options.branch_prefix}{conversation_id}"


def _has_work(top: Path, branch: str, base: str) -> bool:
    """Whether there is such a branch, with commits that `base` does not have."""
    return bool(line(top, "rev-list", "--max-count=1", f"refs/heads/{branch}", f"^{base}"))


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
