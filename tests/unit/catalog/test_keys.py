"""Every name on Redis: in the namespace, and in the table of the module that makes them."""

from __future__ import annotations

import inspect
import re
from uuid import UUID

import pytest

from service.catalog import keys as keys_module
from service.catalog.keys import Keys
from service.identity import RunnerId
from tests.redis_under_test import known_keys

ARGUMENTS = {
    "conversation_id": UUID(int=10),
    "runner_id": RunnerId("host.7.aa"),
    "caller_id": "c1",
    "command_id": "ab",
    "job_id": "cd",
}
NAMES = sorted(name for name in vars(Keys) if not name.startswith("_") and name != "namespace")
CHANNELS = {"events", "bash", "bash_live", "bash_command", "inbox", "replies", "control"}


def value_of(name: str, namespace: str = "some:where") -> str:
    """What `Keys` makes of it."""
    value = getattr(Keys(namespace), name)
    if callable(value):
        value = value(**{each: ARGUMENTS[each] for each in inspect.signature(value).parameters})
    return str(value)


@pytest.mark.parametrize("name", NAMES)
def test_name_is_in_the_namespace(name: str) -> None:
    """Two deployments may share a Redis."""
    assert value_of(name).startswith("some:where:")
    assert value_of(name, "elsewhere").startswith("elsewhere:")


@pytest.mark.parametrize("name", sorted(set(NAMES) - CHANNELS))
def test_key_is_in_one_row_of_the_table(name: str) -> None:
    """Whoever looks at a Redis finds out what it is."""
    key = value_of(name).removeprefix("some:where:")
    assert len([row for row in known_keys() if row.matches(key)]) == 1


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_channel_is_in_the_table(name: str) -> None:
    """With who publishes on it and who hears it."""
    channel = value_of(name).removeprefix("some:where:").split(":")[0]
    assert re.search(rf"^\| {channel}(:<.*>)? +\|", keys_module.__doc__ or "", re.MULTILINE)


def test_table_has_no_row_without_a_key() -> None:
    """What is no longer used is not described."""
    made = [value_of(name).removeprefix("some:where:") for name in NAMES]
    assert all(any(row.matches(key) for key in made) for row in known_keys())
    assert len(known_keys()) == len(set(NAMES) - CHANNELS)


def test_no_two_names_are_the_same() -> None:
    """Nothing overwrites anything else."""
    assert len({value_of(name) for name in NAMES}) == len(NAMES)
