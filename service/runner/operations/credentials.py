"""`conversation.bind_credential`, asked of the owner, or of any runner before there is a conversation."""

from __future__ import annotations

from openhands.sdk.agent.acp_file_credentials import supports_file_credential_binding
from openhands.sdk.credential import HttpVersionedCredentialBinding

from service.errors import Forbidden, NotFound
from service.requests.message import Answer, Request
from service.runner.operations.table import Operation, conversation_id
from service.runner.ownership.host import Host
from service.runner.servers.credential_bindings import CredentialBindings, require_usable
from service.runner.wire.request_models import CredentialBindingRequest
from service.runner.wire.validation import parse
from service.runner.workers import Workers


class CredentialOperations:
    """Arguments: `secret_name`."""

    def __init__(self, host: Host, workers: Workers, bindings: CredentialBindings) -> None:
        self._host = host
        self._workers = workers
        self._bindings = bindings
        self.table: dict[str, Operation] = {"conversation.bind_credential": self._bind}

    async def _bind(self, request: Request) -> Answer:
        wanted = parse(CredentialBindingRequest, request.body)
        name = str(request.arguments["secret_name"])
        if not supports_file_credential_binding(name):
            raise NotFound
        binding = HttpVersionedCredentialBinding(wanted.url, wanted.headers)
        await require_usable(name, binding)
        wanted_id = conversation_id(request)
        agent = None
        if self._host.root.exists(wanted_id):
            hosted = await self._host.open(wanted_id)
            if not hosted.reporter.meta.allows_secret(name):
                raise Forbidden("Credential binding authorization was rejected")
            agent = hosted.conversation.agent
        await self._workers.call(self._bindings.bind, self._host.root.directory(wanted_id), agent, name, binding)
        return Answer(204, b"")
