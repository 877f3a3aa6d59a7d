"""What `POST /api/init` may bring, and how it reaches other processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.errors import InvalidRequest
from service.settings import Settings
from service.settings.late import LateSettings
from service.settings.sealed import SealedOtherwise, seal, unseal

STARTED_WITH = Settings(secret_key=SecretStr("dormant"), max_concurrent_runs=7, conversations_path=Path("/before"))


def late(body: str) -> LateSettings:
    return LateSettings.model_validate_json(body)


def test_what_is_given_goes_over_what_the_process_was_started_with() -> None:
    body = """{
        "session_api_keys": ["k"], "secret_key": "new", "previous_secret_keys": ["old"], "conversations_path": "/c",
        "bash_events_dir": "/b", "conversation_worktree_root": "/w", "web_url": "https://host/rt",
        "webhooks": [{"base_url": "https://receiver", "headers": {"a": "b"}}],
        "allow_cors_origins": ["https://page"], "max_concurrent_runs": 3, "env": {"A": "b"}, "telemetry": {"any": 1}
    }"""
    settings = late(body).over(STARTED_WITH)
    assert settings.auth_keys == ("k",)
    assert settings.cipher_key == "new"
    assert settings.previous_cipher_keys == ("old",)
    assert [str(path) for path in (settings.conversations_path, settings.bash_events_dir)] == ["/c", "/b"]
    assert str(settings.conversation_worktree_root) == "/w"
    assert settings.root_path == "/rt"
    assert settings.webhooks[0].headers["a"].get_secret_value() == "b"
    assert settings.allow_cors_origins == ("https://page",)
    assert settings.max_concurrent_runs == 3


@pytest.mark.parametrize(
    "body", ["{}", '{"secret_key": null, "max_concurrent_runs": null, "conversations_path": null}']
)
def test_what_is_missing_or_null_stays(body: str) -> None:
    assert late(body).over(STARTED_WITH) == STARTED_WITH


def test_relative_paths_are_below_the_working_directory() -> None:
    assert late('{"conversations_path": "here"}').over(STARTED_WITH).conversations_path == Path.cwd() / "here"


@pytest.mark.parametrize(("started_with", "expected"), [(None, "k"), ("dormant", "dormant")])
def test_first_session_key_is_the_secret_key_only_where_there_was_none(started_with: str | None, expected: str) -> None:
    settings = Settings(secret_key=None if started_with is None else SecretStr(started_with))
    assert late('{"session_api_keys": ["k", "l"]}').over(settings).cipher_key == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"session_api_keys": ["k", ""]}',
        '{"session_api_keys": ["  "]}',
        '{"previous_secret_keys": ["  "]}',
        '{"conversations_path": ""}',
        '{"max_concurrent_runs": 0}',
        '{"webhooks": [{}]}',
        '{"port": 1}',
        '{"env": {"A": 1}}',
    ],
)
def test_bad_bodies(body: str) -> None:
    with pytest.raises((ValidationError, InvalidRequest)):
        late(body)


def test_only_the_same_key_unseals() -> None:
    sealed = seal(b'{"session_api_keys": ["hidden"]}', STARTED_WITH)
    assert b"hidden" not in sealed
    assert unseal(sealed, STARTED_WITH).over(STARTED_WITH).auth_keys == ("hidden",)
    for other in (Settings(secret_key=SecretStr("other")), Settings()):
        with pytest.raises(SealedOtherwise):
            unseal(sealed, other)
    with pytest.raises(SealedOtherwise):
        unseal(b"{}", STARTED_WITH)


def test_without_a_key_it_is_the_body_itself() -> None:
    assert unseal(seal(b'{"max_concurrent_runs": 2}', Settings()), Settings()).max_concurrent_runs == 2
