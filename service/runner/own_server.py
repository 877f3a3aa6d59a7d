"""How agents reach the server they run on: its address and a key in their environment, its secrets without a request.

A worker thread that asked for a secret over HTTP would wait for a web server that may be waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from openhands.sdk.secret import register_local_secret_resolver, unregister_local_secret_resolver

from service.errors import NotFound
from service.runner.environment import environment_variables
from service.runner.persistence.settings_store import SecretsStore
from service.settings import Settings

_ADDRESS = "OH_INTERNAL_SERVER_URL"
_KEY = "OH_SESSION_API_KEYS_0"
"""Read by the SDK's tools; it and this server keep it from every shell."""
_SDK_DEFAULT = "http://127.0.0.1:8000"
"""What the SDK completes the URL of a secret with when it is told nothing."""
_SECRETS = "/api/settings/secrets/"


@contextmanager
def known_to_agents(settings: Settings, secrets: SecretsStore) -> Iterator[None]:
    """For the length of the block tools and secrets find this deployment."""
    address = settings.internal_server_url or _SDK_DEFAULT
    bases = [base.rstrip("/") + _SECRETS for base in (address, settings.web_url) if base]

    def value_of(url: str) -> str | None:
        for base in bases:
            if url.startswith(base):
                try:
                    return secrets.value(unquote(url.removeprefix(base)))
                except NotFound:
                    return None
        return None

    register_local_secret_resolver(value_of)
    try:
        with environment_variables(_told(settings)):
            yield
    finally:
        unregister_local_secret_resolver(value_of)


def _told(settings: Settings) -> dict[str, str]:
    """What the environment is to say of this deployment."""
    told = {}
    if settings.auth_keys:
        told[_KEY] = settings.auth_keys[0]
    if settings.internal_server_url:
        told[_ADDRESS] = settings.internal_server_url
    return told
