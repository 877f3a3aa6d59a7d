"""SDK conversations on disk, opened as a runner opens them, with an LLM that says what a test wants."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

from openhands.sdk import LLM, Action, Agent, Message, Observation, TextContent, Tool, ToolDefinition, register_tool
from openhands.sdk.event import Event, LLMConvertibleEvent
from openhands.sdk.llm import MessageToolCall
from openhands.sdk.llm.llm_response import LLMResponse
from openhands.sdk.mcp.utils import DefaultMCPToolProvider
from openhands.sdk.testing import TestLLM
from openhands.sdk.tool import ToolExecutor
from openhands.sdk.utils.cipher import Cipher
from openhands.sdk.workspace import LocalWorkspace
from pydantic import PrivateAttr

from service.catalog.keys import Keys
from service.identity import RunnerId
from service.pubsub.broker import Channel
from service.pubsub.envelope import Envelope, decode
from service.runner.conversation import owned_store
from service.runner.conversation.meta import Meta, write_meta
from service.runner.conversation.opening import Opened, Opener
from service.runner.publisher import Message as Published
from service.runner.publisher import Publisher
from service.runner.servers.credential_bindings import CredentialBindings
from service.settings import Settings
from service.store.atomic import write_atomically
from service.store.layout import ConversationDirectory, ConversationsRoot

JsonObject = dict[str, Any]

_numbers = itertools.count()


class RecordingPublisher(Publisher):
    """Keeps what is published; there is neither a loop nor a broker."""

    def __init__(self) -> None:
        self.published: list[tuple[Channel, bytes]] = []
        self.puts = 0
        """How often something was put, however much at once."""

    def put(self, channel: Channel, *messages: Published) -> None:
        self.published += [(channel, message if isinstance(message, bytes) else message()) for message in messages]
        self.puts += 1

    @property
    def envelopes(self) -> list[Envelope]:
        return [decode(message) for _, message in self.published]


def says(text: str) -> Message:
    """An answer of the LLM in words, which ends the run."""
    return Message(role="assistant", content=[TextContent(text=text)])


def calls(*tool_calls: tuple[str, JsonObject]) -> Message:
    """An answer of the LLM that calls tools, all at once."""
    return Message(
        role="assistant",
        content=[],
        tool_calls=[
            MessageToolCall(
                id=f"call_{next(_numbers)}", name=name, arguments=json.dumps(arguments), origin="completion"
            )
            for name, arguments in tool_calls
        ],
    )


def thinks(thought: str = "hm") -> Message:
    """An answer of the LLM that calls the think tool."""
    return calls(("think", {"thought": thought}))


class EchoAction(Action):
    """What the echo tool is asked."""

    text: str


class EchoObservation(Observation):
    """What it answers."""


class EchoExecutor(ToolExecutor[EchoAction, EchoObservation]):
    """Answers with what it is asked."""

    def __call__(self, action: EchoAction, conversation: object = None) -> EchoObservation:
        return EchoObservation.from_text(action.text)


class EchoTool(ToolDefinition[EchoAction, EchoObservation]):
    """A tool for which a client may be asked; for thoughts nobody ever is."""

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> Sequence[EchoTool]:
        executor = EchoExecutor()
        return [cls(description="Echo.", action_type=EchoAction, observation_type=EchoObservation, executor=executor)]


ECHO = "echo_for_tests"
register_tool(ECHO, EchoTool)


def echoes(*texts: str) -> Message:
    """An answer of the LLM that calls the echo tool once for each text."""
    return calls(*((EchoTool.name, {"text": text}) for text in texts))


class ScriptedLLM(TestLLM):
    """Answers in order; before each answer it does what the test has put there."""

    _before: dict[int, Callable[[], object]] = PrivateAttr(default_factory=dict)
    _asked: list[list[Message]] = PrivateAttr(default_factory=list)

    @classmethod
    def of(cls, *answers: Message, before: dict[int, Callable[[], object]] | None = None) -> ScriptedLLM:
        """`before`: by number of the call, 0-based."""
        llm = cls(model="scripted", usage_id="agent", scripted_responses=list(answers))
        llm._before = before or {}
        return llm

    @property
    def asked(self) -> list[list[Message]]:
        """The prompt of each call so far."""
        return self._asked

    def completion(self, messages: list[Message], *args: Any, **kwargs: Any) -> LLMResponse:
        number = len(self._asked)
        self._asked.append(messages)
        self._before.get(number, lambda: None)()
        return super().completion(messages, *args, **kwargs)


class Rig:
    """One runner's opener over a directory of conversations."""

    def __init__(self, root: Path) -> None:
        self.root = ConversationsRoot(root / "conversations")
        self.workspace = root / "project"
        self.publisher = RecordingPublisher()
        settings = Settings(
            conversations_path=self.root.path,
            workspace_path=root / "workspace",
            bash_events_dir=root / "bash_events",
            fsync=False,
        )
        cipher = Cipher("key of the tests")
        bindings = CredentialBindings(cipher, fsync=False)
        self.opener = Opener(
            settings,
            RunnerId("runner"),
            self.publisher,
            Keys("t"),
            cipher,
            bindings,
            lambda _: DefaultMCPToolProvider(),
        )

    def create(self, llm: LLM, conversation_id: UUID | None = None, **agent: Any) -> Opened:
        """A new conversation; `agent` are fields of the agent beside its LLM."""
        directory = self.root.directory(conversation_id or uuid4())
        directory.path.mkdir(parents=True)
        meta = Meta(id=directory.conversation_id, workspace=LocalWorkspace(working_dir=str(self.workspace)))
        write_meta(directory, meta, fsync=False)
        return self.opener.create(directory, meta, Agent(llm=llm, tools=[Tool(name=ECHO)], **agent), {})

    def open(self, directory: ConversationDirectory) -> Opened:
        """One that exists, as after a restart."""
        return self.opener.open(directory)


def send(opened: Opened, text: str) -> str:
    """A user message; returns the id of its event."""
    _untyped(opened).send_message(text)
    return opened.conversation.state.events[-1].id


def run(opened: Opened) -> None:
    """A run to its end, in this thread."""
    _untyped(opened).run()


def _untyped(opened: Opened) -> Any:
    # SDK 1.58 traces these methods with a decorator after which a type checker accepts no argument and no return.
    return opened.conversation


@contextmanager
def crash_points(directory: ConversationDirectory, copies: Path) -> Iterator[list[ConversationDirectory]]:
    """The directory as a kill would leave it after each write of the block; the list fills up as they happen."""
    points: list[ConversationDirectory] = []

    def write_and_copy(path: Path, data: bytes, **options: Any) -> None:
        write_atomically(path, data, **options)
        copy = copies / f"{len(points):03}" / directory.path.name
        shutil.copytree(directory.path, copy)
        points.append(ConversationDirectory(copy))

    with patch.object(owned_store, "write_atomically", write_and_copy):
        yield points


def stored(directory: ConversationDirectory) -> list[JsonObject]:
    """The events on disk, in order."""
    return [json.loads(path.read_bytes()) for path in sorted(directory.events.glob("event-*.json"))]


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def prompt(opened: Opened) -> list[Message]:
    """What the LLM would be shown next."""
    events = [event for event in opened.conversation.state.view.events if isinstance(event, LLMConvertibleEvent)]
    return LLMConvertibleEvent.events_to_messages(events)
