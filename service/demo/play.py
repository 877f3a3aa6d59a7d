"""What `fanout demo` shows: a scripted LLM, a server and the SDK's remote client, all on loopback.

Exit status 0 only when the agent has really finished; everything started here is gone and removed at the end.
"""

from __future__ import annotations

import os

# Before the SDK is imported: no price list from the network, no banner, no log lines between the panels.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["OPENHANDS_SUPPRESS_BANNER"] = "1"
os.environ["LOG_AUTO_CONFIG"] = "false"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

import json
import logging
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from openhands.sdk import LLM, Agent, RemoteConversation, Tool, Workspace
from openhands.sdk.conversation.exceptions import ConversationRunError
from openhands.tools.terminal import TerminalTool
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from service.demo.own_server import OwnServer, ServerNotReady
from service.demo.screen import Screen
from service.demo.scripted_llm import ScriptedLlm


def _call(tool: str, **arguments: str) -> str:
    return f"CALL {tool} {json.dumps(arguments)}"


PROGRAM = r"printf 'for n in 1 2 3 4 5; do\n    echo $n squared is $((n * n))\ndone\n' > squares.sh"
ANSWER = "Done: squares.sh prints 1, 4, 9, 16 and 25."
STORY = [
    "Write a program that prints the first five squares, and run it.",
    "(There is no model here: the lines below tell the scripted LLM what to answer.)",
    "SLEEP 0.8",
    _call("think", thought="Three lines of shell will do. I write them to a file first, then run it."),
    "SLEEP 0.8",
    _call(TerminalTool.name, command=PROGRAM),
    "SLEEP 0.8",
    _call(TerminalTool.name, command="cat squares.sh; sh squares.sh"),
    "SLEEP 0.8",
    f"SAY {ANSWER}",
]
RUN_SECONDS = 60.0


def play() -> int:
    """Show the story; 0 when the server says that the agent has finished and its answer has arrived, else not."""
    console = Console()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    logging.disable()
    try:
        with tempfile.TemporaryDirectory(prefix="fanout-demo-") as directory:
            return _play_in(Path(directory), console)
    except KeyboardInterrupt:
        console.print("[red]Interrupted; server and files are removed.")
        return 130
    except (ServerNotReady, ConversationRunError, httpx.HTTPError) as error:
        console.print(Text(str(error), style="red"))
        return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, whatever the signal and also where the shell has had it ignored."""
    raise KeyboardInterrupt


def _play_in(directory: Path, console: Console) -> int:
    project = directory / "project"
    project.mkdir()
    with (
        console.status("Starting the server") as status,
        ScriptedLlm() as llm,
        OwnServer(directory / "server") as server,
    ):
        status.stop()
        console.print(Rule(f"an agent on {server.url}"))
        screen = Screen(console, ANSWER)
        ended_in = _converse(screen, server.url, llm, project)
    if ended_in == "finished" and screen.has_answer:
        console.print("[green]The agent has finished.")
        return 0
    console.print(f"[red]The agent has not finished: its status is {ended_in}.")
    return 1


def _converse(screen: Screen, url: str, llm: ScriptedLlm, project: Path) -> str:
    """Hold the conversation and return its status as the server tells it."""
    agent = Agent(
        llm=LLM(**llm.settings),
        tools=[Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})],
    )
    workspace = Workspace(host=url, working_dir=str(project))
    conversation = RemoteConversation(agent=agent, workspace=workspace, callbacks=[screen.show], visualizer=None)
    # SDK 1.58 traces these methods with a decorator after which a type checker accepts no argument.
    untyped: Any = conversation
    try:
        untyped.send_message("\n".join(STORY))
        untyped.run(timeout=RUN_SECONDS)
        info = workspace.client.get(f"/api/conversations/{conversation.id}").raise_for_status().json()
        return str(info["execution_status"])
    finally:
        # Closes the events socket from the server's side, for which the client would wait otherwise.
        with suppress(httpx.HTTPError):
            workspace.client.delete(f"/api/conversations/{conversation.id}")
        conversation.close()
        workspace.reset_client()
