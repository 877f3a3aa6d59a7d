"""Repositories that tests make."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Repository:
    """A work tree that the test makes."""

    def __init__(self, path: Path) -> None:
        """One that is there already stays as it is."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        if not (path / ".git").exists():
            self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, "-c", "protocol.file.allow=always", *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.path.parent)}
        # What it complains of is in the test's own output.
        process = subprocess.run(command, cwd=self.path, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        return process.stdout

    def write(self, name: str, content: str | bytes = "1\n") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def commit(self, message: str = "work") -> str:
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    @property
    def head(self) -> str:
        """The commit it is at."""
        return self.git("rev-parse", "HEAD").strip()

    @property
    def branches(self) -> set[str]:
        return set(self.git("branch", "--format=%(refname:short)").split())

    @property
    def worktrees(self) -> list[str]:
        """Itself, and those that were made of it."""
        return self.git("worktree", "list", "--porcelain").strip().split("\n\n")
