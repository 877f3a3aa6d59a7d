"""A conversation on the terminal: a panel for each thing said or done."""

from __future__ import annotations

import re

from openhands.sdk import Event, MessageEvent
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
from openhands.tools.terminal import TerminalAction
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

DIRECTIVE = re.compile(r"^(SLEEP|CALL|SAY) .*$", re.MULTILINE)


class Screen:
    """Draws each event of the conversation as it arrives on the events socket."""

    def __init__(self, console: Console, answer: str) -> None:
        self._console = console
        self._answer = answer
        self.has_answer = False
        """Whether the agent's last words, `answer`, have arrived."""

    def show(self, event: Event) -> None:
        """Print one event; called in the SDK client's socket thread."""
        if isinstance(event, MessageEvent) and event.source == "agent":
            self.has_answer = self._answer in content_to_str(event.llm_message.content)
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
