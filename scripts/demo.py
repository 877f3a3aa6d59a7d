"""`make demo`: a scripted LLM, a server and the SDK's remote client, all on loopback, with the conversation on screen.

Exit status 0 only when the agent has really finished; everything started here is gone and removed at the end.
"""

from __future__ import annotations

import os

# Before the SDK is imported: no price list from the network, no banner, no log lines between the panels.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["OPENHANDS_SUPPRESS_BANNER"] = "1"
os.environ["LOG_AUTO_CONFIG"] = "false"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

import logging
import re
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType

import httpx
from openhands.sdk import LLM, Agent, Event, MessageEvent, RemoteConversation, Tool, Workspace
from openhands.sdk.conversation.exceptions import ConversationRunError
from openhands.sdk.event import (
    ActionEvent,
    AgentErrorEvent,
    ConversationStateUpdateEvent,
    ObservationEvent,
    SystemPromptEvent,
)
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.llm import content_to_str
from openhands.sdk.tool.builtins.think import ThinkAction
from openhands.tools.terminal import TerminalAction, TerminalTool
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from tests.e2e.remote_client import call, run, send, terminal
from tests.scripted_llm import ScriptedLlm
from tests.server_process import Server, ServerFailedError

PROGRAM = r"printf 'for n in 1 2 3 4 5; do\n    echo $n squared is $((n * n))\ndone\n' > squares.sh"
ANSWER = "Done: squares.sh prints 1, 4, 9, 16 and 25."
STORY = [
    "Write a program that prints the first five squares, and run it.",
    "(There is no model here: the lines below tell the scripted LLM what to answer.)",
    "SLEEP 0.8",
    call("think", thought="Three lines of shell will do. I write them to a file first, then run it."),
    "SLEEP 0.8",
    terminal(PROGRAM),
    "SLEEP 0.8",
    terminal("cat squares.sh; sh squares.sh"),
    "SLEEP 0.8",
    f"SAY {ANSWER}",
]
DIRECTIVE = re.compile(r"^(SLEEP|CALL|SAY) .*$", re.MULTILINE)
RUN_SECONDS = 60.0


class Screen:
    """Draws each event of the conversation as it arrives on the events socket."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.has_answer = False
        """Whether the agent's last words have arrived."""

    def show(self, event: Event) -> None:
        """Print one event; called in the SDK client's socket thread."""
        if isinstance(event, MessageEvent) and event.source == "agent":
            self.has_answer = ANSWER in content_to_str(event.llm_message.content)
        if (drawing := draw(event)) is not None:
            self._console.print(drawing)


def draw(event: Event) -> RenderableType | None:
    """A panel for what was said or done, a rule for a change of status, nothing for the rest."""
    match event:
        case SystemPromptEvent():
            return Text(f"  the agent is told its task and offered {len(event.tools)} tools", style="dim")
        case MessageEvent():
            who, colour = ("You", "green") if event.source == "user" else ("Agent", "cyan")
            text = Text("".join(content_to_str(event.llm_message.content)))
            text.highlight_regex(DIRECTIVE, "dim")
            return panel(text, who, colour)
        case ActionEvent(action=TerminalAction(command=command)):
            return panel(Syntax(f"$ {command}", "console", word_wrap=True), "Action: terminal", "blue")
        case ActionEvent(action=ThinkAction(thought=thought)):
            return panel(Text(thought), "Action: think", "blue")
        case ActionEvent():
            return panel(event.visualize, f"Action: {event.tool_name}", "blue")
        case ObservationEvent():
            text = Text(plain("".join(content_to_str(event.observation.content))) or "(no output)")
            return panel(text, f"Observation: {event.tool_name}", "yellow")
        case AgentErrorEvent():
            return panel(Text(event.error), f"Error: {event.tool_name}", "red")
        case ConversationErrorEvent():
            return panel(Text(event.detail), f"Error: {event.code}", "red")
        case ConversationStateUpdateEvent(key="execution_status"):
            return Rule(f"status: {event.value}", style="magenta")
    return None


def panel(content: RenderableType, title: str, colour: str) -> Panel:
    """One event's box."""
    return Panel(content, title=title, title_align="left", border_style=colour)


def plain(text: str) -> str:
    """Terminal output without escape sequences."""
    return Text.from_ansi(text.replace("\x1b[?2004l", "").replace("\x1b[?2004h", "")).plain.strip()


def main() -> int:
    """Play the story; 0 when the server says that the agent has finished and its answer has arrived."""
    console = Console()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    logging.disable()
    try:
        with tempfile.TemporaryDirectory(prefix="fanout-demo-") as directory:
            return play(console, Path(directory))
    except KeyboardInterrupt:
        console.print("[red]Interrupted; server and files are removed.")
        return 130
    except (ServerFailedError, ConversationRunError, httpx.HTTPError) as error:
        console.print(Text(str(error), style="red"))
        return 1


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, whatever the signal and also where the shell has had it ignored."""
    raise KeyboardInterrupt


def play(console: Console, directory: Path) -> int:
    """Start everything, run one conversation and report how it ended."""
    project = directory / "project"
    project.mkdir()
    server = Server(directory / "server")
    with console.status("Starting the server"), ScriptedLlm() as llm:
        with server:
            console.print(Rule(f"an agent on {server.url}"))
            screen = Screen(console)
            status = converse(screen, server, llm, project)
    if status == "finished" and screen.has_answer:
        console.print("[green]The agent has finished.")
        return 0
    console.print(f"[red]The agent has not finished: its status is {status}.")
    return 1


def converse(screen: Screen, server: Server, llm: ScriptedLlm, project: Path) -> str:
    """Hold the conversation and return its status as the server tells it."""
    agent = Agent(
        llm=LLM(**llm.settings),
        tools=[Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})],
    )
    workspace = Workspace(host=server.url, working_dir=str(project))
    conversation = RemoteConversation(agent=agent, workspace=workspace, callbacks=[screen.show], visualizer=None)
    try:
        send(conversation, *STORY)
        run(conversation, RUN_SECONDS)
        info = workspace.client.get(f"/api/conversations/{conversation.id}").raise_for_status().json()
        return str(info["execution_status"])
    finally:
        # Closes the events socket from the server's side, for which the client would wait otherwise.
        with suppress(httpx.HTTPError):
            workspace.client.delete(f"/api/conversations/{conversation.id}")
        conversation.close()
        workspace.reset_client()


if __name__ == "__main__":
    sys.exit(main())
