"""What web workers may ask of a runner, by name. Each operation parses, tells one conversation, answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from uuid import UUID

import pydantic_core
from openhands.sdk.conversation.request import SendMessageRequest
from openhands.sdk.tool.registry import list_registered_tools, list_tool_catalog
from openhands.sdk.utils.cipher import Cipher

from service.errors import AlreadyRunning, InvalidRequest, OwnerMoving, OwnershipLost, RequestFailed
from service.requests.message import Request
from service.requests.requester import Answer
from service.runner.bash_host import BashHost
from service.runner.creation import plan
from service.runner.host import Host
from service.runner.hosted import HostedConversation
from service.runner.request_models import (
    AskAgentRequest,
    ConfirmationResponseRequest,
    GenerateTitleRequest,
    SetConfirmationPolicyRequest,
    SetSecurityAnalyzerRequest,
    UpdateConversationRequest,
    UpdateSecretsRequest,
)
from service.runner.schemas import sdk_schemas
from service.runner.traced import traced
from service.runner.validation import parse
from service.runner.workers import Workers
from service.settings import Settings
from service.store.inbox import key_name

SUCCESS = Answer(200, b'{"success":true}')


Operation = Callable[[Request], Awaitable[Answer]]


class Operations:
    """The table, for one runner."""

    def __init__(self, settings: Settings, host: Host, bash: BashHost, workers: Workers, cipher: Cipher) -> None:
        self._settings = settings
        self._host = host
        self._bash = bash
        self._workers = workers
        self._cipher = cipher
        self._table: dict[str, Operation] = {
            "conversation.create": self._create,
            "conversation.describe": self._describe,
            "conversation.patch": self._patch,
            "conversation.delete": self._delete,
            "conversation.run": self._run,
            "conversation.pause": self._pause,
            "conversation.interrupt": self._interrupt,
            "conversation.secrets": self._secrets,
            "conversation.confirmation_policy": self._confirmation_policy,
            "conversation.security_analyzer": self._security_analyzer,
            "conversation.ask_agent": self._ask_agent,
            "conversation.generate_title": self._generate_title,
            "events.send": self._send,
            "events.confirm": self._confirm,
            "sdk.schemas": self._schemas,
            "sdk.tools": self._tools,
            "sdk.tool_catalog": self._tool_catalog,
            "bash.start": self._start_command,
            "bash.stop": self._stop_command,
        }

    async def handle(self, request: Request) -> Answer:
        """Do what is asked.

        Raises:
            FanoutError: why it was not done.
        """
        operation = self._table.get(request.operation)
        if operation is None:
            raise RequestFailed(f"This runner does not know the operation {request.operation}; it may be older.")
        try:
            return await operation(request)
        except OwnershipLost:
            # Nothing happened; the next owner is to be asked.
            if request.conversation_id is None:
                raise
            raise OwnerMoving(str(request.conversation_id)) from None

    async def _create(self, request: Request) -> Answer:
        key = request.arguments.get("idempotency_key")
        planned = await self._workers.call(plan, request.body, self._cipher, self._settings.enable_browser, key)
        hosted, is_new = await self._host.create(planned)
        snapshot = await hosted.reporter.refresh()
        if is_new and planned.initial_message is not None:
            await hosted.submit("message", planned.initial_message, starts_run=True)
        with_skills = request.arguments.get("include_skills", False)
        info = snapshot.info_with_skills if with_skills else snapshot.info
        return Answer(201 if is_new else 200, _without_runtime(info))

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
        return SUCCESS

    async def _delete(self, request: Request) -> Answer:
        await self._host.delete(_id(request))
        self._bash.kill_those_of(_id(request))
        return SUCCESS

    async def _run(self, request: Request) -> Answer:
        await (await self._hosted(request)).run()
        return SUCCESS

    async def _pause(self, request: Request) -> Answer:
        await (await self._hosted(request)).submit("pause", b"{}")
        return SUCCESS

    async def _interrupt(self, request: Request) -> Answer:
        await (await self._hosted(request)).interrupt()
        return SUCCESS

    async def _secrets(self, request: Request) -> Answer:
        parse(UpdateSecretsRequest, request.body)
        await (await self._hosted(request)).submit("secrets", request.body)
        return SUCCESS

    async def _confirmation_policy(self, request: Request) -> Answer:
        parse(SetConfirmationPolicyRequest, request.body)
        await (await self._hosted(request)).submit("confirmation_policy", request.body)
        return SUCCESS

    async def _security_analyzer(self, request: Request) -> Answer:
        parse(SetSecurityAnalyzerRequest, request.body)
        await (await self._hosted(request)).submit("security_analyzer", request.body)
        return SUCCESS

    async def _send(self, request: Request) -> Answer:
        message = parse(SendMessageRequest, request.body)
        if message.role != "user":
            raise InvalidRequest("Only user messages are allowed to be sent to the agent.")
        starts_run = message.run or request.arguments.get("always_run", False)
        content = message.model_copy(update={"run": starts_run}).model_dump_json().encode()
        await (await self._hosted(request)).submit("message", content, starts_run=starts_run, key=_key(request))
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

    async def _ask_agent(self, request: Request) -> Answer:
        question = parse(AskAgentRequest, request.body).question
        hosted = await self._hosted(request)
        return await self._response("response", lambda: traced(hosted.conversation).ask_agent(question))

    async def _generate_title(self, request: Request) -> Answer:
        wanted = parse(GenerateTitleRequest, request.body)
        hosted = await self._hosted(request)
        return await self._response(
            "title",
            lambda: traced(hosted.conversation).generate_title(wanted.llm, wanted.max_length),
        )

    async def _response(self, key: str, function: Callable[[], str]) -> Answer:
        """What the LLM says, or why it did not: the provider's error is the client's answer."""
        try:
            text = await self._workers.call(function)
        except Exception as error:
            raise RequestFailed(str(error)) from error
        return Answer(200, pydantic_core.to_json({key: text}))

    async def _schemas(self, request: Request) -> Answer:
        return Answer(200, await self._workers.call(sdk_schemas))

    async def _tools(self, request: Request) -> Answer:
        return Answer(200, pydantic_core.to_json(list_registered_tools()))

    async def _tool_catalog(self, request: Request) -> Answer:
        # Whether a tool is usable may be found out by looking for programs.
        return Answer(200, pydantic_core.to_json({"tools": await self._workers.call(list_tool_catalog)}))

    async def _start_command(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        history = self._settings.bash_events_dir
        if request.conversation_id is not None:
            hosted = await self._hosted(request)
            history = hosted.directory.bash_events
        started = await self._bash.start(
            wanted["command"], wanted["cwd"], wanted["timeout"], history, request.conversation_id
        )
        self._host.note_activity()
        return Answer(200, started)

    async def _stop_command(self, request: Request) -> Answer:
        self._host.note_activity()
        is_here = await self._bash.stop(request.arguments["command_id"])
        return Answer(200, pydantic_core.to_json({"success": is_here}))

    async def _hosted(self, request: Request) -> HostedConversation:
        return await self._host.open(_id(request))


def _without_runtime(info: bytes) -> bytes:
    """ConversationInfo as the contract has it in the reply to a create, where nobody has looked at the machine yet."""
    return pydantic_core.to_json(pydantic_core.from_json(info) | {"runtime_info": None})


def _id(request: Request) -> UUID:
    assert request.conversation_id is not None, "the blueprint names a conversation"
    return request.conversation_id


def _key(request: Request) -> str | None:
    key = request.arguments.get("idempotency_key")
    return None if key is None else key_name(key)
