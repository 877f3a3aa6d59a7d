"""Where an ACP agent's login comes from and is kept up to date: a service that holds the newest version of it.

The SDK reads the login before the agent starts and writes back what the agent renews. Which service that is, and with
which headers it is asked, a client may say before it creates the conversation; both are stored encrypted.
"""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from openhands.sdk.agent.acp_agent import ACPAgent
from openhands.sdk.agent.acp_file_credentials import file_credential_looks_usable
from openhands.sdk.agent.base import AgentBase
from openhands.sdk.credential import (
    CredentialAuthorizationRejected,
    CredentialBindingUnsupported,
    CredentialConflict,
    CredentialInvalidResponse,
    CredentialNeedsReauthentication,
    CredentialSyncError,
    HttpVersionedCredentialBinding,
)
from openhands.sdk.utils.cipher import Cipher
from pydantic import SecretStr

from service.errors import Conflict, Forbidden, InvalidRequest, RemoteUnavailable, Unsupported
from service.store.atomic import write_atomically
from service.store.layout import ConversationDirectory

_log = structlog.get_logger(__name__)

_RETRY_DELAYS_SECONDS = (0.1, 0.5)
_TOO_LATE = "Credential binding activation arrived after ACP initialization"


class CredentialBindings:
    """Those of all conversations. Blocking, but for `require_usable`."""

    def __init__(self, cipher: Cipher, *, fsync: bool) -> None:
        self._cipher = cipher
        self._fsync = fsync
        self._live: weakref.WeakValueDictionary[tuple[UUID, str], HttpVersionedCredentialBinding]
        self._live = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def activate(self, directory: ConversationDirectory, agent: AgentBase, allows: Callable[[str], bool]) -> None:
        """Have an agent that has not started yet use what is stored for its conversation, as far as it may have it."""
        if not isinstance(agent, ACPAgent):
            return
        with self._lock:
            for name, stored in self._read(directory).items():
                if not allows(name):
                    continue
                self._give(directory, agent, name, HttpVersionedCredentialBinding(stored["url"], stored["headers"]))

    def bind(
        self,
        directory: ConversationDirectory,
        agent: AgentBase | None,
        name: str,
        binding: HttpVersionedCredentialBinding,
    ) -> None:
        """Use `binding` from now on; `agent` is that of the conversation, if there is one already.

        Raises:
            Conflict: the agent is no ACP server's, or has started with another service.
        """
        with self._lock:
            if agent is not None:
                self._give(directory, agent, name, binding)
            bound = self._read(directory) | {name: {"url": binding.url, "headers": binding.headers}}
            sealed = self._cipher.encrypt(SecretStr(json.dumps(bound)))
            directory.credential_bindings.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(directory.credential_bindings, str(sealed).encode(), fsync=self._fsync)

    def _give(
        self, directory: ConversationDirectory, agent: AgentBase, name: str, binding: HttpVersionedCredentialBinding
    ) -> None:
        key = directory.conversation_id, name
        live = self._live.get(key)
        if live is not None and live.url == binding.url:
            live.reauthorize(binding)
            return
        if not isinstance(agent, ACPAgent):
            raise Conflict(_TOO_LATE)
        try:
            agent.activate_file_credential_binding(name, binding)
        except RuntimeError:
            raise Conflict(_TOO_LATE) from None
        self._live[key] = binding

    def _read(self, directory: ConversationDirectory) -> dict[str, Any]:
        try:
            sealed = directory.credential_bindings.read_text("utf-8")
        except FileNotFoundError:
            return {}
        opened = self._cipher.try_decrypt_str(sealed)
        if opened is None:
            _log.error("credential_bindings_not_readable", conversation_id=str(directory.conversation_id))
            return {}
        return dict(json.loads(opened))


async def require_usable(name: str, binding: HttpVersionedCredentialBinding) -> None:
    """Ask the service once.

    Raises:
        Forbidden: it refuses the headers.
        Conflict: it is being changed.
        InvalidRequest: it has no such login, or what it has is none.
        Unsupported: it does not do this.
        RemoteUnavailable: it cannot be reached, or fails.
    """
    try:
        credential = await _load(binding)
    except CredentialBindingUnsupported:
        raise Unsupported("Credential binding source is unsupported") from None
    except CredentialAuthorizationRejected:
        raise Forbidden("Credential binding authorization was rejected") from None
    except (CredentialNeedsReauthentication, CredentialInvalidResponse):
        raise InvalidRequest("Credential binding source is invalid") from None
    except CredentialConflict:
        raise Conflict("Credential binding source changed") from None
    except CredentialSyncError:
        raise RemoteUnavailable("Credential binding source is unavailable") from None
    if not file_credential_looks_usable(name, credential):
        raise InvalidRequest("Credential binding source is invalid")


async def _load(binding: HttpVersionedCredentialBinding) -> str:
    for delay_seconds in _RETRY_DELAYS_SECONDS:
        try:
            return (await binding.load()).value
        except (CredentialAuthorizationRejected, CredentialConflict, CredentialInvalidResponse):
            raise
        except CredentialSyncError:
            await asyncio.sleep(delay_seconds)
    return (await binding.load()).value
