"""A user of the SDK's remote client: makes agents and conversations on one server and reads what they did."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from openhands.sdk import LLM, Agent, Event, MessageEvent, RemoteConversation, RemoteWorkspace, Tool, Workspace
from openhands.sdk.event import ActionEvent, AgentErrorEvent, ObservationEvent, UserRejectObservation
from openhands.sdk.llm import content_to_str
from openhands.tools.terminal import TerminalTool

from service.demo.scripted_llm import ScriptedLlm
from tests.server_process import Server
from tests.waiting import wait_until


def call(tool: str, **arguments: object) -> str:
    """The script line that makes the scripted LLM call a tool."""
    return f"CALL {tool} {json.dumps(arguments)}"


def terminal(command: str) -> str:
    """The script line that makes the scripted LLM run a command."""
    return call(TerminalTool.name, command=command)


class RemoteClient(AbstractContextManager["RemoteClient"]):
    """Conversations of one client; at its end they are deleted on the server and their sockets closed."""

    def __init__(self, server: Server, llm: ScriptedLlm, project: Path, api_key: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            project: the agents' working directory, on the machine that server and tests share.
        """
        self.llm = llm
        self.project = project
        self.workspace: RemoteWorkspace = Workspace(host=server.url, working_dir=str(project), api_key=api_key)
        self._conversations: list[RemoteConversation] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            stack.callback(self.workspace.reset_client)
            for conversation in self._conversations:
                # The SDK's client waits 5 s for its socket thread unless the server closes the socket first,
                # as it does for a deleted conversation.
                stack.callback(conversation.close)
                stack.callback(self.http.delete, f"/api/conversations/{conversation.id}")

    @property
    def http(self) -> httpx.Client:
        """Plain requests with this client's key; paths start with `/api`."""
        return self.workspace.client

    def agent(self, terminal_type: str = "subprocess", **llm_options: Any) -> Agent:
        """An agent with the terminal tool and the scripted LLM.

        Args:
            terminal_type: `subprocess` is faster than `tmux` and is gone with its server.
            llm_options: fields of the LLM beside the scripted one's.
        """
        tool = Tool(name=TerminalTool.name, params={"terminal_type": terminal_type})
        return Agent(llm=LLM(**self.llm.settings | llm_options), tools=[tool])

    def start(self, agent: Agent | None = None, **options: Any) -> RemoteConversation:
        """Create a conversation; `options` are `RemoteConversation`'s."""
        agent = agent or self.agent()
        return self.keep(RemoteConversation(agent=agent, workspace=self.workspace, visualizer=None, **options))

    def attach(self, conversation_id: UUID) -> RemoteConversation:
        """Connect to a conversation somebody else made."""
        return self.keep(RemoteConversation.attach(self.workspace, conversation_id, visualizer=None))

    def status(self, conversation: RemoteConversation) -> str:
        """The execution status the server tells, not the one the client remembers."""
        info = self.http.get(f"/api/conversations/{conversation.id}").raise_for_status().json()
        return str(info["execution_status"])

    def wait_status(self, conversation: RemoteConversation, status: str, timeout_seconds: float = 20.0) -> None:
        """Wait until the server tells this execution status."""
        wait_until(lambda: self.status(conversation) == status, f"the conversation is {status}", timeout_seconds)

    def keep(self, conversation: RemoteConversation) -> RemoteConversation:
        """Delete it on the server, and close it, at the end."""
        self._conversations.append(conversation)
        return conversation


def send(conversation: RemoteConversation, *lines: str) -> None:
    """Send one user message with a script of these lines; nothing runs yet."""
    _untyped(conversation).send_message("\n".join(lines))


def run(conversation: RemoteConversation, timeout_seconds: float = 30.0) -> None:
    """Run until the server says that the run has ended, in whatever status.

    Raises:
        ConversationRunError: the run failed, or had not ended in time.
    """
    _untyped(conversation).run(timeout=timeout_seconds)


def start_run(conversation: RemoteConversation) -> None:
    """Start a run and return while it goes on."""
    _untyped(conversation).run(blocking=False)


def generate_title(conversation: RemoteConversation) -> str:
    """A title that the client has the agent's LLM make."""
    return str(_untyped(conversation).generate_title())


def _untyped(conversation: RemoteConversation) -> Any:
    # SDK 1.58 traces these methods with a decorator after which a type checker accepts no argument.
    return conversation


def outline(conversation: RemoteConversation) -> list[str]:
    """What was said and done, in order, one line an event; state updates and the system prompt are left out."""
    return [line for event in conversation.state.events if (line := _outline_line(event))]


def observations(conversation: RemoteConversation) -> str:
    """What the tools answered, all together."""
    events = [event for event in conversation.state.events if isinstance(event, ObservationEvent)]
    return "\n".join(text for event in events for text in content_to_str(event.observation.to_llm_content))


def _outline_line(event: Event) -> str | None:
    match event:
        case MessageEvent(source="user"):
            return "user"
        case MessageEvent():
            return f"{event.source}: {''.join(content_to_str(event.llm_message.content))}"
        case ActionEvent():
            return f"call {event.tool_name}"
        case ObservationEvent():
            return f"result {event.tool_name}"
        case UserRejectObservation():
            return f"rejected {event.tool_name}"
        case AgentErrorEvent():
            return f"error {event.tool_name}"
    return None
