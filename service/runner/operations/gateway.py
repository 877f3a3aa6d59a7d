"""What OpenAI's interface asks of a runner: which models there are, and a conversation to ask one in."""

from __future__ import annotations

import json

import pydantic_core
from openhands.sdk.utils.cipher import Cipher

from service.errors import JsonObject
from service.requests.message import Answer, Request
from service.runner.conversation.creation import Plan, plan
from service.runner.extensions.extensions import Extensions
from service.runner.operations.table import SUCCESS, Operation, answered, command_key, conversation_id
from service.runner.ownership.host import Host
from service.runner.persistence.stored_profiles import StoredProfiles
from service.runner.workers import Workers
from service.settings import Settings


class GatewayOperations:
    """Those of `/v1`."""

    def __init__(
        self, settings: Settings, host: Host, workers: Workers, cipher: Cipher, extensions: Extensions
    ) -> None:
        self._settings = settings
        self._host = host
        self._workers = workers
        self._cipher = cipher
        self._extensions = extensions
        self._profiles = StoredProfiles(settings.persistence_root, cipher)
        self.table: dict[str, Operation] = {"gateway.models": self._models, "gateway.create": self._create}

    async def _models(self, request: Request) -> Answer:
        return answered(await self._workers.call(self._profiles.llm_names))

    async def _create(self, request: Request) -> Answer:
        """`{"llm_profile", "system", "history", "observability"}`, the last being fields of a create.

        A conversation that exists gets its history if that was cut off.
        """
        wanted = json.loads(request.body)
        if self._host.root.exists(conversation_id(request)):
            hosted, is_new = await self._host.open(conversation_id(request)), False
        else:
            hosted, is_new = await self._host.create(await self._planned(request, wanted))
        if wanted["history"]:
            history = pydantic_core.to_json(wanted["history"])
            await hosted.begin("history", history, key=command_key(request), is_new=is_new)
        return SUCCESS

    async def _planned(self, request: Request, wanted: JsonObject) -> Plan:
        key = request.arguments.get("idempotency_key")
        workspace = str(self._settings.workspace_path)
        skills = await self._extensions.available_skills(workspace)
        launch = await self._workers.call(self._profiles.launch, wanted["llm_profile"], skills)
        conversation = await self._workers.call(self._profiles.conversation)
        system = wanted["system"]
        fields = {
            "conversation_id": str(conversation_id(request)),
            "agent_settings": launch.settings.model_dump(mode="json", context={"expose_secrets": True}),
            "agent_launch_additions": {"system_message_suffix_append": system} if system else None,
            "workspace": {"working_dir": workspace},
            "autotitle": False,  # nobody looks for it by its title
            **wanted["observability"],
        }
        body = pydantic_core.to_json(conversation.create_request(dict, **fields))
        return await self._workers.call(plan, body, self._cipher, self._settings, key)
