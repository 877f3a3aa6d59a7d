"""The pages name modules and tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.server_process import REPOSITORY

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
MODULES = [path for room in ("service", "tests", "bench") for path in (REPOSITORY / room).rglob("*.py")]
NAME = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")


def is_there(path: str, test: str) -> bool:
    """Whether some module has that end of a path, and that test if one is named."""
    named = [each for each in MODULES if f"/{each}".endswith(f"/{path}")]
    return any(not test or f"def {test}(" in each.read_text(encoding="utf-8") for each in named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    named = NAME.findall(page.read_text(encoding="utf-8"))
    assert [f"{path}::{test}" for path, test in named if not is_there(path, test)] == []
