"""The git program, asked so that it neither waits, nor asks, nor runs what a repository wants it to run."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import IO

from service.settings.secrets import without_secrets

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""The id of the tree without entries (git hash-object -t tree /dev/null)."""
UNENTERED = "--ignore-submodules=dirty"
"""For what looks at a work tree: that of a submodule is read with the programs which its own configuration names."""
ONLY_GIT = ("--no-ext-diff", "--no-textconv", UNENTERED)
"""For what compares."""
_TIMEOUT_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_OPTIONS = (
    "--no-pager",
    # Whoever may ask for the directory may know what is in it, whoever owns it.
    *("-c", "safe.directory=*"),
    # A repository's own configuration must not make the server run programs.
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "log.showSignature=false"),
)
_NAMING_PROGRAMS = r"^(filter\..*\.(clean|smudge|process|required)|hook\..*\.command)$"
_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    # What is missing is not fetched: programs of the configuration's choice would do it. Versions that do not know the
    # first obey the second, which allows one protocol, of a name that no repository can have made an alias for.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": secrets.token_hex(16),
    "LC_ALL": "C.UTF-8",
    "FANOUT_NO_PROGRAM": "",
    "FANOUT_NO": "false",
}


given_up: ContextVar[threading.Event] = ContextVar("given_up")
"""Set when who asked no longer waits. Without one it is waited for."""


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


class GitFailed(Exception):
    """git did not do what it was asked."""

    def __init__(self, arguments: tuple[str, ...], reason: str) -> None:
        super().__init__(arguments, reason)
        self.arguments = arguments
        self.reason = reason

    def __str__(self) -> str:
        return f"Git command failed: git {' '.join(self.arguments)}: {self.reason}"


def git(
    directory: Path,
    *arguments: str,
    output: IO[bytes] | int = subprocess.PIPE,
    environment: Mapping[str, str] = MappingProxyType({}),
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> bytes:
    """What git prints in `directory`; nothing when it prints into a file, its `output`. Blocking.

    Raises:
        GitFailed: it ended with an error, or took longer than `timeout_seconds`.
        GivenUp: who asked has `given_up`; git is ended.
    """
    try:
        process = subprocess.Popen(
            ["git", *_OPTIONS, *arguments],
            cwd=directory,
            env={**without_secrets(), **_ENVIRONMENT, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise GitFailed(arguments, str(error)) from error
    with process:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline and not is_given_up():
            with suppress(subprocess.TimeoutExpired):
                printed, complaint = process.communicate(timeout=_LOOK_SECONDS)
                break
        else:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if is_given_up():
                raise GivenUp
            raise GitFailed(arguments, f"no answer within {timeout_seconds:g} s")
    if process.returncode != 0:
        raise GitFailed(arguments, complaint.decode(errors="replace").strip())
    return printed or b""


def is_given_up() -> bool:
    """Whether nobody waits for what this thread does."""
    event = given_up.get(None)
    return event is not None and event.is_set()


def line(directory: Path, *arguments: str) -> str | None:
    """What git prints as one line; None when it fails."""
    try:
        return git(directory, *arguments).decode(errors="surrogateescape").removesuffix("\n")
    except GitFailed:
        return None


def commit_of(directory: Path, name: str) -> str | None:
    """The commit that a name means, if any."""
    if "\0" in name:
        return None  # no program can be given a NUL
    return line(directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")


def top_of(directory: Path) -> Path | None:
    """The root of the work tree that `directory` is in, if any."""
    top = line(directory, "rev-parse", "--show-toplevel") if directory.is_dir() else None
    return Path(top) if top else None


def unfiltered(directory: Path) -> tuple[str, ...]:
    """Options for what reads or makes files of a work tree, or writes an index: the filters that a repository's
    configuration names are programs, and so are the hooks that it names (from git 2.54 on)."""
    named = line(directory, "config", "--null", "--name-only", "--get-regexp", _NAMING_PROGRAMS)
    names = [re.sub(r"\.command$", ".enabled", name) for name in (named or "").split("\0") if name]
    # Not `-c`: it ends the name of a setting at its first "=", and the name of a filter may hold one.
    values = ("FANOUT_NO" if name.endswith((".required", ".enabled")) else "FANOUT_NO_PROGRAM" for name in names)
    return tuple(f"--config-env={name}={value}" for name, value in zip(names, values, strict=True))
