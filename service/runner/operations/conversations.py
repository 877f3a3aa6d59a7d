"""What is asked of one conversation, by name. Each operation parses, tells the conversation, answers."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pydantic_core
from openhands.sdk.launch import ResolvedLaunch
from openhands.sdk.utils.cipher import Cipher

from service.errors import AlreadyRunning, InvalidRequest, RequestFailed
from service.requests.message import Answer, Request
from service.runner.bash.host import BashHost
from service.runner.conversation.creation import plan
from service.runner.conversation.hosted import HostedConversation
from service.runner.extensions.extensions import Extensions
from service.runner.operations.table import (
    SUCCESS,
    Operation,
    answered,
    command_key,
    conversation_id,
    info_for,
    just_made,
    submitting,
)
from service.runner.ownership.host import Host
from service.runner.persistence.stored_profiles import StoredProfiles
from service.runner.untyped import untyped
from service.runner.webhooks.webhooks import Webhooks
from service.runner.wire.request_models import (
    AskAgentRequest,
    ConfirmationResponseRequest,
    GenerateTitleRequest,
    PostMessageRequest,
    SetConfirmationPolicyRequest,
    SetSecurityAnalyzerRequest,
    UpdateConversationRequest,
    UpdateSecretsRequest,
)
from service.runner.wire.validation import parse
from service.runner.workers import Workers
from service.settings import Settings


class ConversationOperations:
    """Those of the conversations that this runner owns or comes to own by being asked."""

    def __init__(
        self,
        settings: Settings,
        host: Host,
        bash: BashHost,
        workers: Workers,
        webhooks: Webhooks,
        cipher: Cipher,
        extensions: Extensions,
    ) -> None:
        self._settings = settings
        self._host = host
        self._bash = bash
        self._workers = workers
        self._webhooks = webhooks
        self._cipher = cipher
        self._extensions = extensions
        self._profiles = StoredProfiles(settings.persistence_root, cipher)
        self.table: dict[str, Operation] = {
            "conversation.create": self._create,
            "conversation.describe": self._describe,
            "conversation.patch": self._patch,
            "conversation.delete": self._delete,
            "conversation.run": self._run,
            "conversation.pause": self._pause,
            "conversation.interrupt": self._interrupt,
            "conversation.secrets": self._secrets,
            "conversation.confirmation_policy": submitting(host, SetConfirmationPolicyRequest, "confirmation_policy"),
            "conversation.security_analyzer": submitting(host, SetSecurityAnalyzerRequest, "security_analyzer"),
            "conversation.ask_agent": self._ask_agent,
            "conversation.generate_title": self._generate_title,
            "events.send": self._send,
            "events.confirm": self._confirm,
        }

    async def _create(self, request: Request) -> Answer:
        key = request.arguments.get("idempotency_key")
        launch = await self._launch(request.body)
        planned = await self._workers.call(plan, request.body, self._cipher, self._settings, key, launch)
        hosted, is_new = await self._host.create(planned)
        with just_made(hosted.conversation_id, key):
            snapshot = hosted.reporter.describe()
            status = snapshot.header.status
            if is_new:
                self._webhooks.tell_status(hosted.conversation_id, snapshot.info)
            if planned.initial_message is not None:
                await hosted.begin(
                    "message", planned.initial_message, starts_run=True, key=command_key(request), is_new=is_new
                )
                snapshot = await hosted.reporter.refresh()
        # Its first message is in it, and its run is not.
        return Answer(201 if is_new else 200, info_for(request, snapshot, execution_status=status))

    async def _launch(self, body: bytes) -> ResolvedLaunch | None:
        """Of the agent profile that a create names; None when it names none. What is wrong with it `plan` tells."""
        given = pydantic_core.from_json(body)
        profile_id = _uuid(given.get("agent_profile_id")) if isinstance(given, dict) else None
        if profile_id is None or given.get("agent") is not None or given.get("agent_settings") is not None:
            return None
        workspace = given.get("workspace")
        folder = workspace.get("working_dir") if isinstance(workspace, dict) else None
        skills = await self._extensions.available_skills(str(folder or self._settings.workspace_path))
        additions = given.get("agent_launch_additions")
        llm_profile = additions.get("llm_profile_ref") if isinstance(additions, dict) else None
        return await self._workers.call(self._profiles.launch_profile, profile_id, llm_profile, skills)

    async def _describe(self, request: Request) -> Answer:
        hosted = await self._hosted(request)
        await hosted.reporter.refresh()
        return SUCCESS

    async def _patch(self, request: Request) -> Answer:
        patch = parse(UpdateConversationRequest, request.body)
        hosted = await self._hosted(request)
        await hosted.reporter.change_meta(**patch.model_dump(exclude_none=True))
        if patch.tags is not None:
            await hosted.submit("tags", pydantic_core.to_json({"tags": patch.tags}))
        await self._tell_status(hosted)
        return SUCCESS

    async def _delete(self, request: Request) -> Answer:
        last = await self._host.delete(conversation_id(request))
        if last is not None:
            self._webhooks.tell_status(conversation_id(request), last.info, execution_status="deleting")
        self._bash.kill_those_of(conversation_id(request))
        return SUCCESS

    async def _run(self, request: Request) -> Answer:
        await (await self._hosted(request)).run()
        return SUCCESS

    async def _pause(self, request: Request) -> Answer:
        hosted = await self._hosted(request)
        await hosted.submit("pause", b"{}")
        await self._tell_status(hosted)
        return SUCCESS

    async def _interrupt(self, request: Request) -> Answer:
        hosted = await self._hosted(request)
        await hosted.interrupt()
        await self._tell_status(hosted)
        return SUCCESS

    async def _secrets(self, request: Request) -> Answer:
        parse(UpdateSecretsRequest, request.body)
        hosted = await self._hosted(request)
        given = pydantic_core.from_json(request.body)["secrets"]
        # What the profile that launched the agent does not allow is left out, as at its creation.
        allowed = {name: value for name, value in given.items() if hosted.reporter.meta.allows_secret(name)}
        await hosted.submit("secrets", pydantic_core.to_json({"secrets": allowed}))
        return SUCCESS

    async def _ask_agent(self, request: Request) -> Answer:
        question = parse(AskAgentRequest, request.body).question
        hosted = await self._hosted(request)
        return await self._response("response", lambda: untyped(hosted.conversation).ask_agent(question))

    async def _generate_title(self, request: Request) -> Answer:
        wanted = parse(GenerateTitleRequest, request.body)
        hosted = await self._hosted(request)
        return await self._response(
            "title",
            lambda: untyped(hosted.conversation).generate_title(wanted.llm, wanted.max_length),
        )

    async def _send(self, request: Request) -> Answer:
        message = parse(PostMessageRequest, request.body)
        if message.role != "user":
            raise InvalidRequest("Only user messages are allowed to be sent to the agent.")
        hosted = await self._hosted(request)
        meets_run = message.multitask_strategy != "enqueue" and await hosted.meets_run(command_key(request))
        if meets_run and message.multitask_strategy == "reject":
            raise AlreadyRunning
        if meets_run:
            await hosted.interrupt()
        starts_run = message.run or meets_run or request.arguments.get("always_run", False)
        content = message.model_copy(update={"run": starts_run}).model_dump_json().encode()
        await hosted.submit("message", content, starts_run=starts_run, key=command_key(request))
        return SUCCESS

    async def _confirm(self, request: Request) -> Answer:
        confirmation = parse(ConfirmationResponseRequest, request.body)
        hosted = await self._hosted(request)
        if not confirmation.accept:
            await hosted.submit("reject", request.body)
            return SUCCESS
        try:
            await hosted.run()
        except AlreadyRunning:
            pass  # what was to be accepted is being executed
        return SUCCESS

    async def _response(self, key: str, function: Callable[[], str]) -> Answer:
        """What the LLM says, or why it did not: the provider's error is the client's answer."""
        try:
            text = await self._workers.call_that_waits(function)
        except Exception as error:
            raise RequestFailed(str(error)) from error
        return answered({key: text})

    async def _tell_status(self, hosted: HostedConversation) -> None:
        snapshot = await hosted.reporter.refresh()
        self._webhooks.tell_status(hosted.conversation_id, snapshot.info)

    async def _hosted(self, request: Request) -> HostedConversation:
        return await self._host.open(conversation_id(request))


def _uuid(given: object) -> UUID | None:
    try:
        return UUID(given) if isinstance(given, str) else None
    except ValueError:
        return None
