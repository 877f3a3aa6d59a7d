"""What differs between a work tree and where it came from, and what a commit changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from service.git.program import EMPTY_TREE, ONLY_GIT, UNENTERED, GitFailed, commit_of, git, line, top_of, unfiltered
from service.open_directory import opened

_STATUS = {"A": "ADDED", "D": "DELETED"}
"""A change of type and a conflict are updates."""


class Change(NamedTuple):
    """One file; sorts by path."""

    path: str
    """Relative, with slashes; bytes that are no UTF-8 are replaced."""
    status: str
    """ADDED, UPDATED or DELETED."""


def changes(directory: Path, ref: str | None) -> list[Change]:
    """The files below `directory` that differ from `ref`, or from where the branch came; those of repositories one
    level below it, too. None outside of any repository. Blocking.

    Raises:
        GitFailed: `ref` is unknown, or git failed.
    """
    if not directory.is_dir():
        return []
    own = _own_changes(directory, ref) if top_of(directory) is not None else []
    # `Path.exists` raises where nobody may look.
    nested = [
        (_told(os.fsencode(child.name)), child)
        for child in sorted(directory.iterdir())
        if not child.is_symlink() and os.path.exists(child / ".git")
    ]
    for name, _ in nested:
        own = [each for each in own if each.path != name and not each.path.startswith(f"{name}/")]
    for name, child in nested:
        try:
            with opened(child) as held:
                below = _own_changes(held, ref)
        except (GitFailed, OSError):
            continue  # a broken one hides nothing of the others
        own += [Change(f"{name}/{each.path}", each.status) for each in below]
    return sorted(own)


def changes_of(directory: Path, sha: str) -> list[Change]:
    """What a commit changed against its first parent, from the root of the repository. Raises GitFailed."""
    if top_of(directory) is None:
        return []
    commit = commit_of(directory, sha)
    if commit is None:
        raise GitFailed(("rev-parse", "--verify", f"{sha}^{{commit}}"), "unknown commit")
    parent = commit_of(directory, f"{commit}^1") or EMPTY_TREE
    return sorted(_parsed(git(directory, "diff", *_PLAIN, parent, commit, "--")))


def base_of(directory: Path, ref: str | None) -> str:
    """The commit or tree to compare a work tree with. Raises GitFailed for an unknown `ref`."""
    head = commit_of(directory, "HEAD")
    if ref is not None:
        if ref == "HEAD" and head is None:
            return EMPTY_TREE
        commit = commit_of(directory, ref)
        if commit is None:
            raise GitFailed(("--no-pager", "rev-parse", "--verify", f"'{ref}^{{commit}}'"), "unknown revision")
        return commit
    if head is None:
        return EMPTY_TREE
    return _upstream(directory, head) or head


_PLAIN = ("--name-status", "-z", "--no-renames", *ONLY_GIT)


def _own_changes(directory: Path, ref: str | None) -> list[Change]:
    tracked = git(directory, *unfiltered(directory), "diff", *_PLAIN, "--relative", base_of(directory, ref), "--", ".")
    untracked = git(directory, "ls-files", "--others", "--exclude-standard", "-z", "--", ".")
    found = {change.path: change for change in _parsed(tracked)}
    for name in _names(untracked):
        path = name.removesuffix("/")  # which git puts behind a repository
        found[path] = Change(path, "ADDED")
    return list(found.values())


def _upstream(directory: Path, head: str) -> str | None:
    """Where the branch is published, or where it left the default branch."""
    branch = line(directory, "symbolic-ref", "--short", "--quiet", "HEAD")
    published = commit_of(directory, f"refs/remotes/origin/{branch}") if branch else None
    if published is not None and (
        published != head or line(directory, *unfiltered(directory), "status", "--porcelain", UNENTERED) != ""
    ):
        return published
    default = default_branch(directory)
    if default is not None:
        return line(directory, "merge-base", "HEAD", default) or commit_of(directory, default)
    for name in ("main", "master"):
        if name != branch and commit_of(directory, f"refs/heads/{name}") is not None:
            return line(directory, "merge-base", "HEAD", f"refs/heads/{name}")
    return None


def default_branch(directory: Path) -> str | None:
    """The full name of the branch that `origin` shows first, if any."""
    announced = line(directory, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD")
    for name in (announced, "refs/remotes/origin/main", "refs/remotes/origin/master"):
        if name and commit_of(directory, name) is not None:
            return name
    return None


def _parsed(printed: bytes) -> list[Change]:
    fields = _names(printed)
    return [Change(path, _STATUS.get(status[:1], "UPDATED")) for status, path in zip(*[iter(fields)] * 2, strict=True)]


def _names(printed: bytes) -> list[str]:
    return [_told(name) for name in printed.split(b"\0")[:-1]]


def _told(name: bytes) -> str:
    return name.decode(errors="replace")
