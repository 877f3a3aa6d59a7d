"""Every name on Redis is in the namespace, and nobody else's."""

from __future__ import annotations

import inspect
from uuid import UUID

import pytest

from service.catalog.keys import Keys
from service.identity import RunnerId

ARGUMENTS = {
    "conversation_id": UUID(int=10),
    "runner_id": RunnerId("host.7.aa"),
    "caller_id": "c1",
    "command_id": "ab",
    "job_id": "cd",
}
NAMES = sorted(name for name in vars(Keys) if not name.startswith("_") and name != "namespace")


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


def test_no_two_names_are_the_same() -> None:
    """Nothing overwrites anything else."""
    assert len({value_of(name) for name in NAMES}) == len(NAMES)
