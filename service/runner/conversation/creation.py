"""From the body of `POST /api/conversations` to an agent and a record, or to a reason why not.

Whatever can be wrong is found here, before anything exists. Blocking: parsing may fetch skills, and settings may
look for a browser.
"""

from __future__ import annotations

import subprocess
from inspect import signature
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

from openhands.sdk.agent.base import AgentBase
from openhands.sdk.conversation.request import StartConversationRequest
from openhands.sdk.launch import LaunchedAgent, ResolvedLaunch, finalize
from openhands.sdk.launch.errors import AgentLaunchError
from openhands.sdk.profiles.agent_profile import LaunchedAgentProfile
from openhands.sdk.secret import SecretSource
from openhands.sdk.settings.model import validate_agent_settings
from openhands.sdk.tool.client_tool import register_client_tools
from openhands.sdk.tool.registry import list_registered_tools, registered_tool_class
from openhands.sdk.tool.spec import Tool
from openhands.sdk.utils.cipher import Cipher
from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequest
from service.identity import keyed_id
from service.runner.conversation.launching import launch_runtime, with_marketplaces
from service.runner.conversation.meta import Meta
from service.runner.conversation.opening import import_tool_modules, register_agent_definitions
from service.runner.wire.validation import invalid, parse
from service.settings import Settings
from service.store.inbox import key_name

_GIT_TIMEOUT_SECONDS = 10
_OF_ANY_TOOL = "response_schema"
"""A param that the SDK takes out before a tool sees the others."""


class Plan(NamedTuple):
    """A conversation that can be made."""

    meta: Meta
    agent: AgentBase
    secrets: dict[str, SecretSource]
    initial_message: bytes | None
    """SendMessageRequest as JSON, with `run` set: an initial message always starts a run."""


def plan(
    body: bytes,
    cipher: Cipher,
    settings: Settings,
    idempotency_key: str | None,
    launch: ResolvedLaunch | None = None,
) -> Plan:
    """Validate a request to create a conversation.

    A request that names no id gets one from its idempotency key, so that its repetition finds the conversation.
    `launch` is of the agent profile that it names.

    Raises:
        InvalidRequest: anything about the request that could only fail later.
    """
    request = _parse(body, cipher)
    _refuse_unserved(request)
    launched = _launched(request, settings, launch)
    agent = private_copy(with_marketplaces(launched.agent, settings))
    _register_sub_agents(request)
    _require_tools(agent, import_tool_modules(request.tool_module_qualnames))
    _prepare_workspace(Path(request.workspace.working_dir))
    message, profile = request.initial_message, launched.profile
    return Plan(
        _meta(request, idempotency_key, profile),
        agent,
        {name: each for name, each in request.secrets.items() if profile is None or profile.allows_secret(name)},
        None if message is None else message.model_copy(update={"run": True}).model_dump_json().encode(),
    )


def _parse(body: bytes, cipher: Cipher) -> StartConversationRequest:
    request = parse(StartConversationRequest, body)
    if not request.secrets_encrypted:
        return request
    return parse(StartConversationRequest, body, {"cipher": cipher})


def _refuse_unserved(request: StartConversationRequest) -> None:
    if request.initial_message is not None and request.initial_message.role != "user":
        raise InvalidRequest("Only user messages are allowed to be sent to the agent.")
    if request.conversation_runtime not in (None, "local"):
        raise InvalidRequest("This server only runs local conversations")


def _launched(request: StartConversationRequest, settings: Settings, launch: ResolvedLaunch | None) -> LaunchedAgent:
    source: AgentBase | ResolvedLaunch = launch or request.agent
    try:
        if request.agent_settings is not None:
            source = ResolvedLaunch(validate_agent_settings(request.agent_settings))
        client_tools = register_client_tools(request.client_tools) if request.client_tools else []
        return finalize(
            source,
            launch_runtime(settings),
            additions=request.agent_launch_additions,
            client_tools=client_tools,
        )
    except ValidationError as error:
        raise invalid(error) from None
    except AgentLaunchError as error:
        raise InvalidRequest(error.to_detail()) from error
    except (TypeError, ValueError) as error:
        raise InvalidRequest(str(error)) from error


def private_copy[Model: BaseModel](original: Model) -> Model:
    """An agent or LLM with its secrets. The SDK shares the LLM object it is given; each user must have its own."""
    return type(original).model_validate(original.model_dump(context={"expose_secrets": True}))


def _require_tools(agent: AgentBase, not_imported: dict[str, str]) -> None:
    used = [tool.name for tool in agent.tools]
    broken = [f"'{name}' ({not_imported[name]})" for name in used if name in not_imported]
    if broken:
        raise InvalidRequest(f"The agent uses tools whose modules the agent server cannot import: {', '.join(broken)}")
    registered = set(list_registered_tools())
    unknown = sorted({name for name in used if name not in registered})
    if unknown:
        raise InvalidRequest(
            f"The agent uses tools that are not registered: {', '.join(unknown)}. "
            f"Registered tools: {', '.join(sorted(registered))}"
        )
    for tool in agent.tools:
        _require_params(tool)


def _require_params(tool: Tool) -> None:
    """Those that its tool class has names for; a client's tool has none to be asked."""
    tool_class = registered_tool_class(tool.name)
    given = {name: value for name, value in tool.params.items() if name != _OF_ANY_TOOL}
    try:
        if tool_class is not None:
            signature(tool_class.create).bind(conv_state=None, **given)
    except TypeError as error:
        raise InvalidRequest(f"The agent uses the tool '{tool.name}' with params it cannot have: {error}") from None


def _register_sub_agents(request: StartConversationRequest) -> None:
    failures = register_agent_definitions(request)
    if failures:
        reasons = "; ".join(f"'{name}' ({reason})" for name, reason in failures.items())
        raise InvalidRequest(f"Agent definitions that cannot be used: {reasons}")


def _prepare_workspace(path: Path) -> None:
    """Make the directory, and a repository of it unless it is inside one: clients show what changed through git."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error  # ValueError: a NUL in the path
        raise InvalidRequest(f"The working directory {path} cannot be created: {reason}") from error
    if any((directory / ".git").exists() for directory in (path.resolve(), *path.resolve().parents)):
        return
    try:
        subprocess.run(["git", "init", "-q"], cwd=path, check=False, capture_output=True, timeout=_GIT_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return  # without git there is nothing to show, and the agent works all the same


def _meta(request: StartConversationRequest, idempotency_key: str | None, profile: LaunchedAgentProfile | None) -> Meta:
    chosen = uuid4() if idempotency_key is None else keyed_id(idempotency_key)
    conversation_id: UUID = request.conversation_id or chosen
    settings = {name: getattr(request, name) for name in Meta.model_fields if name in type(request).model_fields}
    settings |= {"conversation_id": None, "agent_launch_additions": None, "secrets": {}}
    settings["launched_agent_profile"] = profile and profile.model_dump(mode="json")
    settings["creation_key"] = idempotency_key and key_name(idempotency_key)
    return Meta.model_construct(id=conversation_id, **settings)
