"""Session keys."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from service.blueprints.http.auth import admits, is_auth_frame


def test_every_configured_key_is_admitted() -> None:
    keys = ("a", "schlüssel", "c")
    assert [admits(keys, key) for key in keys] == [True, True, True]


@pytest.mark.parametrize("presented", ["", "A", "a ", "aa", "b", None, 5, ["a"], b"a", "\udcff"])
def test_anything_else_is_refused(presented: Any) -> None:
    assert not admits(("a", "c"), presented)


@pytest.mark.parametrize("presented", [None, "", "whatever"])
def test_without_keys_everything_is_admitted(presented: Any) -> None:
    assert admits((), presented)


def test_key_sent_in_bytes_that_are_no_utf_8_is_compared_as_bytes() -> None:
    key = b"\xff".decode("utf-8", "surrogateescape")
    assert admits((key,), key)


def test_every_key_is_compared_in_constant_time_whatever_matched_before(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def spy(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    assert admits(("a", "b", "c"), "a")
    assert compared == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "auth", "session_api_key": "k"}, True),
        ({"type": "auth"}, True),
        ({"type": "auth", "session_api_key": "k", "command": "ls"}, False),
        ({"type": "user", "session_api_key": "k"}, False),
        ({"role": "user"}, False),
        ("auth", False),
        (None, False),
    ],
)
def test_repeated_authentication_is_told_from_a_message(message: Any, expected: bool) -> None:
    assert is_auth_frame(message) is expected
