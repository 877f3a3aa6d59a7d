"""Which variables are kept from what agents start."""

from __future__ import annotations

import pytest

from service.settings.secrets import forget_secrets, is_secret_variable


@pytest.mark.parametrize(
    "name",
    [
        "OH",
        "SESSION_API_KEY",
        "OH_SESSION_API_KEYS",
        "OH_SESSION_API_KEYS_0",
        "OH_SESSION_API_KEYS_12",
        "OH_SECRET_KEY",
        "OH_PREVIOUS_SECRET_KEYS",
        "OH_PREVIOUS_SECRET_KEYS_0",
        "REDIS_URL",
        "OH_REDIS_URL",
        "OH_METRICS_KEY",
        "OH_WEBHOOKS",
        "OH_WEBHOOKS_0",
        "OH_WEBHOOKS_0_HEADERS",
        "OH_WEBHOOKS_0_SIGNING_SECRET",
    ],
)
def test_secrets(name: str) -> None:
    assert is_secret_variable(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "OH_PORT", "OH_CONVERSATIONS_PATH", "OH_INTERNAL_SERVER_URL", "REDIS_URLS", "MY_OH_SECRET_KEY", "OHIO"],
)
def test_others(name: str) -> None:
    assert not is_secret_variable(name)


def test_only_secrets_are_forgotten() -> None:
    environ = {"PATH": "/bin", "OH_SECRET_KEY": "s", "OH_SESSION_API_KEYS_0": "k", "OH_PORT": "1"}
    forget_secrets(environ)
    assert environ == {"PATH": "/bin", "OH_PORT": "1"}
