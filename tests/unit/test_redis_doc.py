"""docs/redis.md names every key and channel, and no other."""

from __future__ import annotations

import inspect
import re
from uuid import UUID

from service.catalog.keys import Keys
from service.identity import RunnerId
from tests.server_process import REPOSITORY

PAGE = (REPOSITORY / "docs" / "redis.md").read_text(encoding="utf-8")

CONVERSATION_ID = UUID("01234567-89ab-cdef-0123-456789abcdef")
ARGUMENTS = {
    "conversation_id": CONVERSATION_ID,
    "runner_id": RunnerId("<runner id>"),
    "caller_id": "<caller id>",
    "command_id": "<hex command id>",
    "job_id": "<job id>",
}
"""What a key is asked for with, so that its name shows what varies in it."""


def names() -> dict[str, str]:
    """Each public name of Keys with the pattern it gives, namespace left out."""
    keys = Keys("namespace")
    found: dict[str, str] = {}
    for name in dir(Keys):
        if name.startswith("_") or name == "namespace":
            continue
        value = getattr(keys, name)
        if callable(value):
            value = value(**{each: ARGUMENTS[each] for each in inspect.signature(value).parameters})
        found[name] = value.removeprefix("namespace:").replace(CONVERSATION_ID.hex, "<hex id>")
    return found


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    """The tables' first cells are what `Keys` makes."""
    listed = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(names().values())


def test_names_are_seen() -> None:
    """The walk over `Keys` finds properties and methods."""
    assert names()["activity"] == "activity"
    assert names()["owner"] == "owner:<hex id>"
    assert names()["replies"] == "replies:<caller id>"
