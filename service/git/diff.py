"""One file before and after; a side that is a directory, or nothing, is empty."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from service.git.changes import base_of
from service.git.program import EMPTY_TREE, GitFailed, commit_of, git, top_of

MAX_BYTES = 1 << 20


class Diff(NamedTuple):
    """Both texts; empty where there is no file, or no UTF-8; None outside of any repository."""

    modified: str | None
    original: str | None


class NoDiff(ValueError):
    """There is nothing to compare; the text says why."""


class File(NamedTuple):
    """Which file, and how its content is come by."""

    path: Path
    """As messages show it."""
    directory: Path
    """An existing one above it, in the same repository if it is in any."""
    name: str
    """Relative to `directory`."""
    open: Callable[[], BinaryIO]
    """Raises FileNotFoundError, IsADirectoryError or another OSError."""


def diff(file: File, ref: str | None) -> Diff:
    """A file of the work tree against `ref`, or against where its branch came; lines end with a newline. Blocking.

    Raises:
        NoDiff: it is no file and was none, or is too large.
        GitFailed: `ref` is unknown, or git failed.
        OSError: nobody may read it.
    """
    top = top_of(file.directory)
    content = _content(file)
    if top is None:
        if content is None:
            raise _no_file(file)
        return Diff(None, None)
    original = _blob(top, base_of(top, ref), _relative(file, top))
    if content is None and original is None:
        raise _no_file(file)
    return Diff(_lines(content or b""), _lines(original or b""))


def diff_of(file: File, sha: str) -> Diff:
    """What a commit made of a file, against its first parent, as it is stored. Raises as `diff`."""
    top = top_of(file.directory)
    if top is None:
        if (file.directory / file.name).is_dir():
            raise _no_file(file)
        return Diff(None, None)
    commit = commit_of(top, sha)
    if commit is None:
        raise GitFailed(("rev-parse", "--verify", f"{sha}^{{commit}}"), "unknown commit")
    parent = commit_of(top, f"{commit}^1") or EMPTY_TREE
    trees, path = (parent, commit), _relative(file, top)
    before, after = (_blob(top, tree, path) for tree in trees)
    if before is None and after is None and any(_kind(top, tree, path) for tree in trees):
        raise NoDiff(f"Path is not a file: {file.path}")
    return Diff(_text(after or b""), _text(before or b""))


def _content(file: File) -> bytes | None:
    """None when there is no such file, or something else. Raises NoDiff: it is too large."""
    try:
        with file.open() as source:
            content = source.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise _too_large(source.seek(0, os.SEEK_END))
            return content
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _no_file(file: File) -> NoDiff:
    exists = os.path.lexists(file.directory / file.name)
    return NoDiff(f"{'Path is not a file' if exists else 'File does not exist'}: {file.path}")


def _too_large(size_bytes: int) -> NoDiff:
    return NoDiff(f"File too large for git diff: {size_bytes} bytes (max: {MAX_BYTES} bytes)")


def _relative(file: File, top: Path) -> str:
    """As trees name it. Raises NoDiff: `core.worktree` has the repository's files elsewhere."""
    path, work_tree = file.directory.resolve() / file.name, top.resolve()
    if not path.is_relative_to(work_tree):
        raise NoDiff(f"Path is outside of its repository's work tree: {file.path}")
    return path.relative_to(work_tree).as_posix()


def _blob(top: Path, tree: str, path: str) -> bytes | None:
    """The content of a file in a tree; None where there is none, or something else. Raises NoDiff: it is too large."""
    name = f"{tree}:{path}"
    if _kind(top, tree, path) != "blob":
        return None
    size_bytes = int(git(top, "cat-file", "-s", name))
    if size_bytes > MAX_BYTES:
        raise _too_large(size_bytes)
    return git(top, "cat-file", "blob", name)


def _kind(top: Path, tree: str, path: str) -> str | None:
    """What is in a tree under a path: `blob`, `tree` for a directory, or `commit` for a submodule; None: nothing."""
    entry = git(top, "--literal-pathspecs", "ls-tree", tree, "--", path).split(maxsplit=2)
    return entry[1].decode() if entry else None


def _lines(content: bytes) -> str:
    """As the contract has it: every kind of line break is a newline, and the last one is dropped."""
    return "\n".join(_text(content).splitlines())


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return ""
