"""A directory as one file to take away: what differs from where it came from, as a patch, or all its files.

A patch is made with an index and an object store of its own, so the repository is not written to.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from service.git.changes import default_branch
from service.git.program import (
    EMPTY_TREE,
    ONLY_GIT,
    GivenUp,
    commit_of,
    git,
    is_given_up,
    line,
    top_of,
    unfiltered,
)

DEFAULT_EXCLUDES = (
    *(".git/", "node_modules/", ".venv/", "venv/", "__pycache__/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/"),
    *("dist/", "build/", ".next/", "target/", "*.pyc"),
)
_SEARCHED_LEVELS = 3
_NOT_SEARCHED = {"node_modules", "venv", "site-packages", "vendor"}
_STEP_SECONDS = 300.0
_CREDENTIALS = {"config", "config.worktree", "credentials", ".git-credentials", "FETCH_HEAD"}
"""In `.git`: addresses with tokens."""
_MANIFEST = "archive_manifest.json"


class NotArchived(Exception):
    """The request makes no sense for this directory."""


class Base(NamedTuple):
    """What a patch starts from."""

    tree: str
    commit: str | None


def archive_root(directory: Path) -> Path:
    """Where below a directory that is in no repository the only one within three levels is, else nothing. Blocking."""
    if top_of(directory) is not None:
        return Path()
    found = list(_repositories(directory, _SEARCHED_LEVELS))
    return found[0].relative_to(directory) if len(found) == 1 else Path()


def base_of_patch(directory: Path, base_ref: str | None) -> Base:
    """Where a patch of `directory` begins: at `base_ref`, else where the branch was published. Blocking.

    Raises:
        NotArchived: it is in no repository, or the name means no commit.
    """
    if top_of(directory) is None:
        raise NotArchived(f"Not a git repository: {directory.resolve()}")
    if base_ref is not None and base_ref.startswith("-"):
        raise NotArchived("base_ref must not start with '-'")
    commit = commit_of(directory, base_ref) if base_ref is not None else _published(directory)
    if base_ref is not None and commit is None:
        raise NotArchived(f"base_ref '{base_ref}' could not be resolved")
    return Base(commit or EMPTY_TREE, commit)


def write_patch(directory: Path, base: Base, excludes: tuple[str, ...], file: IO[bytes]) -> None:
    """What makes the work tree out of `base`; untracked files are in it, ignored ones not. Blocking.

    Raises GitFailed and GivenUp.
    """
    objects = Path(git(directory, "rev-parse", "--path-format=absolute", "--git-path", "objects").decode().strip())
    with tempfile.TemporaryDirectory(prefix="fanout-archive-") as scratch:
        own = Path(scratch) / "objects"
        own.mkdir()
        environment = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": str(own),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }
        step = partial(git, directory, environment=environment, timeout_seconds=_STEP_SECONDS)
        options, submodules = unfiltered(directory), _submodules(directory, base.tree)
        step(*options, "read-tree", base.tree)
        untracked = step("ls-files", "--others", "--exclude-standard", "-z", "--", ".")
        # `add` enters submodules, in which other programs are configured, and fails at what has no commit to name.
        left_out = (*submodules, *_without_commit(directory, untracked))
        others = (".", *(f":(exclude,literal){path}" for path in left_out))
        step(*options, "add", "--all", "--", *others)
        step(*options, "update-index", "--", *submodules)
        # Not `diff`, which shows things as the user's configuration would have them.
        shown = ("--cached", "--binary", "--full-index", *ONLY_GIT)
        paths = (".", *(pathspec for exclude in excludes for pathspec in _pathspecs(exclude)))
        step("diff-index", *shown, base.tree, "--", *paths, output=file)


def write_tar(directory: Path, top: str, excludes: tuple[str, ...], file: IO[bytes]) -> None:
    """Directories and regular files, below the name `top`; never what holds git's credentials. Blocking.

    Raises GivenUp.
    """
    count = total_bytes = 0
    has_manifest = False
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as tar, _descriptor(directory) as start:
        for folder, names, files, descriptor in os.fwalk(".", follow_symlinks=False, dir_fd=start):
            below = Path(folder)
            names[:] = sorted(name for name in names if not _is_excluded(below / name, excludes, is_directory=True))
            _add_directory(tar, os.fstat(descriptor), top / below)
            for name in sorted(files):
                if _is_excluded(below / name, excludes, is_directory=False) or _holds_credentials(below / name):
                    continue
                size_bytes = _add_file(tar, descriptor, name, top / below / name)
                if size_bytes is not None:
                    count, total_bytes = count + 1, total_bytes + size_bytes
                    has_manifest = has_manifest or below / name == Path(_MANIFEST)
        if not has_manifest:
            told = {"excludes": list(excludes), "file_count": count, "format": "tar.gz", "source": top}
            _add_text(tar, f"{top}/{_MANIFEST}", json.dumps({**told, "total_bytes": total_bytes}))


def described(directory: Path) -> dict[str, str]:
    """Of the repository that a directory is in: `Repo-Root`, `Branch`, `Head-Commit`, `Repo-Remote`. Blocking."""
    top = top_of(directory)
    if top is None:
        return {}
    remote = line(directory, "remote", "get-url", "origin")
    found = {
        "Repo-Root": str(top),
        "Branch": line(directory, "symbolic-ref", "--short", "--quiet", "HEAD") or "DETACHED",
        "Head-Commit": commit_of(directory, "HEAD"),
        "Repo-Remote": None if remote is None else _without_credentials(remote),
    }
    return {name: value for name, value in found.items() if value is not None}


def _repositories(directory: Path, levels: int) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return  # nobody may look into it, or it is gone
    for name in names:
        if name.startswith(".") or name in _NOT_SEARCHED:
            continue
        if os.path.exists(directory / name / ".git"):
            yield directory / name
        elif levels > 1:
            yield from _repositories(directory / name, levels - 1)


def _published(directory: Path) -> str | None:
    branch = line(directory, "symbolic-ref", "--short", "--quiet", "HEAD")
    if branch is None:
        return commit_of(directory, "HEAD")
    published = commit_of(directory, f"refs/remotes/origin/{branch}")
    if published is not None:
        return published
    default = default_branch(directory)
    if default is None:
        return None
    return line(directory, "merge-base", "HEAD", default) or commit_of(directory, default)


def _submodules(directory: Path, tree: str) -> list[str]:
    """Those of `tree` that are checked out below `directory`."""
    entries = git(directory, "ls-tree", "-r", "-z", tree).split(b"\0")
    paths = [os.fsdecode(entry.partition(b"\t")[2]) for entry in entries if entry.startswith(b"160000 ")]
    real = os.path.realpath(directory)
    return [
        path
        for path in paths
        if os.path.exists(f"{real}/{path}/.git") and os.path.realpath(f"{real}/{path}") == f"{real}/{path}"
    ]


def _without_commit(directory: Path, untracked: bytes) -> Iterator[str]:
    """Repositories, behind which git puts a slash, that have no commit yet, so there is nothing to say of them."""
    for path in map(os.fsdecode, untracked.split(b"\0")):
        if path.endswith("/") and commit_of(directory / path, "HEAD") is None:
            yield path


def _pathspecs(exclude: str) -> list[str]:
    """The exclude in git's words (gitglossary, pathspec): what is below it, and itself unless it ends with a slash."""
    name = exclude.strip("/")
    anchored = name if "/" in exclude.rstrip("/") else f"**/{name}"
    contents = f":(exclude,glob){anchored}/**"
    return [contents] if exclude.endswith("/") else [f":(exclude,glob){anchored}", contents]


def _is_excluded(path: Path, excludes: tuple[str, ...], *, is_directory: bool) -> bool:
    """Whether a path that was reached, so none of its parents is excluded, is."""
    return any(_matches(path, exclude) for exclude in excludes if is_directory or not exclude.endswith("/"))


def _matches(path: Path, exclude: str) -> bool:
    if "/" not in exclude.rstrip("/"):
        return fnmatch.fnmatchcase(path.name, exclude.rstrip("/"))
    segments = exclude.strip("/").split("/")
    pairs = zip(path.parts, segments, strict=False)
    return len(segments) == len(path.parts) and all(fnmatch.fnmatchcase(part, wanted) for part, wanted in pairs)


def _holds_credentials(path: Path) -> bool:
    """In a repository's own folder, nested ones and work trees' included; and wherever credentials are kept by name."""
    if path.name == ".git-credentials":
        return True
    inside = path.parts[path.parts.index(".git") + 1 :] if ".git" in path.parts else ()
    return bool(inside) and (path.name in _CREDENTIALS or "logs" in inside)


@contextmanager
def _descriptor(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _add_directory(tar: tarfile.TarFile, status: os.stat_result, as_name: Path) -> None:
    member = tarfile.TarInfo(str(as_name))
    member.type, member.mode, member.mtime = tarfile.DIRTYPE, stat.S_IMODE(status.st_mode), int(status.st_mtime)
    tar.addfile(member)


def _add_file(tar: tarfile.TarFile, folder: int, name: str, as_name: Path) -> int | None:
    """Add a regular file; its size in bytes, or None when it is no such file (any more) or nobody may read it."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with open(descriptor, "rb") as source:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        member = tar.gettarinfo(arcname=str(as_name), fileobj=source)
        tar.addfile(member, _Exactly(source, member.size))
        return member.size


class _Exactly:
    """As many bytes of a file as were announced, with zeros for what it has lost since then (as GNU tar does)."""

    def __init__(self, source: IO[bytes], size_bytes: int) -> None:
        self._source = source
        self._left_bytes = size_bytes

    def read(self, size_bytes: int = -1, /) -> bytes:
        if is_given_up():
            raise GivenUp
        wanted = self._left_bytes if size_bytes < 0 else min(size_bytes, self._left_bytes)
        self._left_bytes -= wanted
        return self._source.read(wanted).ljust(wanted, b"\0")


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(text.encode()), int(time.time())
    tar.addfile(member, io.BytesIO(text.encode()))


def _without_credentials(remote: str) -> str:
    """Whatever stands before the last `@` of an address's host; not parsed, for a remote may be anything."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)[^/?#]*@", r"\1***@", remote, flags=re.IGNORECASE)
