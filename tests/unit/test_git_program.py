"""What programs that git starts are told, and which of them a repository may name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from service.git.program import git, unfiltered


def test_git_is_told_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As shells are not: a repository's configuration and the user's own name programs for many things."""
    monkeypatch.setenv("OH_SESSION_API_KEYS_0", "hush")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "hush")
    monkeypatch.setenv("OF_NO_CONCERN", "told")
    environment = git(tmp_path, "-c", "alias.environment=!env", "environment")
    assert b"hush" not in environment
    assert b"OF_NO_CONCERN=told" in environment


NAMES = pytest.mark.parametrize("name", ["evil", "e.v.i.l", "e=vil", "e vil", "a.command.b"])


@NAMES
def test_filters_of_any_name_are_off(tmp_path: Path, name: str) -> None:
    """Those that write files as well as those that read them."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for kind in ("clean", "smudge", "process", "required"):
        git(tmp_path, "config", f"filter.{name}.{kind}", "true")
    off = unfiltered(tmp_path)
    for kind in ("clean", "smudge", "process"):
        assert git(tmp_path, *off, "config", f"filter.{name}.{kind}") == b"\n"
    assert git(tmp_path, *off, "config", f"filter.{name}.required") == b"false\n"


@NAMES
def test_hooks_of_any_name_are_off(tmp_path: Path, name: str) -> None:
    """Those that the configuration names, which are not in the folder of hooks."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    git(tmp_path, "config", f"hook.{name}.event", "post-index-change")
    git(tmp_path, "config", f"hook.{name}.command", "true")
    assert git(tmp_path, *unfiltered(tmp_path), "config", f"hook.{name}.enabled") == b"false\n"
