"""Every error of the tree has a status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.blueprints.http.errors import STATUS
from service.errors import FanoutError, Refused


def raised_classes(root: type[FanoutError] = FanoutError) -> Iterator[type[FanoutError]]:
    """The classes with a `code` of their own: what may be raised and sent across."""
    for cls in root.__subclasses__():
        if "code" in cls.__dict__ and cls.__module__ == "service.errors":
            yield cls
        yield from raised_classes(cls)


@pytest.mark.parametrize("cls", sorted(set(raised_classes()), key=str))
def test_error_has_a_row(cls: type[FanoutError]) -> None:
    assert cls in STATUS


@pytest.mark.parametrize("cls", STATUS)
def test_refusals_are_4xx_and_the_rest_5xx(cls: type[FanoutError]) -> None:
    assert STATUS[cls] // 100 == (4 if issubclass(cls, Refused) else 5)
