"""What is asked of a conversation's agent, by name: see `service.runner.conversation.switches`."""

from __future__ import annotations

import re
from pathlib import Path

from openhands.sdk.llm import LLM
from openhands.sdk.llm.llm_profile_store import PROFILE_NAME_PATTERN, canonical_profile_name
from openhands.sdk.llm.provider_connection_store import ProviderConnectionNotFound
from openhands.sdk.utils.cipher import Cipher

from service.errors import BadRequest
from service.requests.message import Answer, Request
from service.runner.operations.profiles import load_usable
from service.runner.operations.store_access import store_errors
from service.runner.operations.table import SUCCESS, Operation, conversation_id, submitting
from service.runner.ownership.host import Host
from service.runner.persistence.profile_stores import ProfileStores
from service.runner.wire.request_models import (
    LoadPluginRequest,
    SwitchAcpModelRequest,
    SwitchLlmRequest,
    SwitchProfileRequest,
)
from service.runner.wire.validation import parse
from service.runner.workers import Workers


class SwitchOperations:
    """Asked of the conversation's owner. What can be wrong is found before anything is promised."""

    def __init__(self, host: Host, workers: Workers, root: Path, cipher: Cipher) -> None:
        self._host = host
        self._workers = workers
        self._stores = ProfileStores(root)
        self._cipher = cipher
        self.table: dict[str, Operation] = {
            "agent.switch_llm": self._switch_llm,
            "agent.switch_profile": self._switch_profile,
            "agent.switch_acp_model": submitting(host, SwitchAcpModelRequest, "switch_acp_model"),
            "agent.load_plugin": submitting(host, LoadPluginRequest, "load_plugin"),
        }

    async def _switch_llm(self, request: Request) -> Answer:
        given = parse(SwitchLlmRequest, request.body, {"cipher": self._cipher}).llm
        return await self._install(request, await self._workers.call(self._connected, given))

    async def _switch_profile(self, request: Request) -> Answer:
        name = parse(SwitchProfileRequest, request.body).profile_name
        if not re.fullmatch(PROFILE_NAME_PATTERN, name):
            raise BadRequest(f"Invalid profile name: {name!r}")
        return await self._install(request, await self._workers.call(self._profile, canonical_profile_name(name)))

    async def _install(self, request: Request, llm: LLM) -> Answer:
        content = SwitchLlmRequest(llm=llm).model_dump_json(context={"expose_secrets": True}).encode()
        await (await self._host.open(conversation_id(request))).submit("switch_llm", content)
        return SUCCESS

    def _connected(self, llm: LLM) -> LLM:
        """With the key and address of the provider connection that it names, if it names one."""
        if llm.provider_connection_id is None:
            return llm
        with store_errors():
            return self._stores.llm_profiles.resolve_provider_connection(llm, cipher=self._cipher)

    def _profile(self, name: str) -> LLM:
        with store_errors():
            try:
                llm = load_usable(self._stores, name, self._cipher)
            except ProviderConnectionNotFound:
                raise
            except ValueError as error:
                raise BadRequest(f"Profile '{name}' cannot be used: {error}") from error
        return llm.model_copy(update={"usage_id": f"profile:{name}"})
