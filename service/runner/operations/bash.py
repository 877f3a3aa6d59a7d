"""What is asked of commands, by name."""

from __future__ import annotations

import json
from signal import Signals

from service.errors import JsonObject
from service.requests.message import Answer, Request
from service.runner.bash.host import BashHost
from service.runner.bash.process import CommandProcess, CommandRequest, TerminalSize
from service.runner.operations.table import SUCCESS, Operation, answered
from service.runner.ownership.host import Host
from service.settings import Settings


class BashOperations:
    """Those of the commands that this runner executes, for a conversation or for none."""

    def __init__(self, settings: Settings, host: Host, bash: BashHost) -> None:
        self._settings = settings
        self._host = host
        self._bash = bash
        self.table: dict[str, Operation] = {
            "bash.start": self._start_command,
            "bash.stop": self._stop_command,
            "bash.input": self._input,
            "bash.resize": self._resize,
            "bash.signal": self._signal,
        }

    async def _start_command(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        history = self._settings.bash_events_dir
        if request.conversation_id is not None:
            hosted = await self._host.open(request.conversation_id)
            history = hosted.directory.bash_events
        command_id = request.arguments["command_id"]
        wait_seconds = request.arguments.get("wait_seconds", 0.0)
        events = await self._bash.start(command_id, _command(wanted), history, request.conversation_id, wait_seconds)
        self._host.note_activity()
        return Answer(200, b"\n".join(events))

    async def _stop_command(self, request: Request) -> Answer:
        self._host.note_activity()
        is_here = await self._bash.stop(request.arguments["command_id"])
        return answered({"success": is_here})

    async def _input(self, request: Request) -> Answer:
        wanted, process = json.loads(request.body), await self._process(request)
        process.write(wanted["text"].encode(errors="surrogatepass"))
        if wanted["eof"]:
            process.end_input()
        return SUCCESS

    async def _resize(self, request: Request) -> Answer:
        (await self._process(request)).resize(TerminalSize(**json.loads(request.body)))
        return SUCCESS

    async def _signal(self, request: Request) -> Answer:
        (await self._process(request)).signal_foreground(Signals[json.loads(request.body)["signal"]])
        return SUCCESS

    async def _process(self, request: Request) -> CommandProcess:
        self._host.note_activity()
        return await self._bash.process(request.arguments["command_id"])


def _command(wanted: JsonObject) -> CommandRequest:
    """What a web worker asks for; an older one knows of no input."""
    terminal = TerminalSize(**wanted["size"]) if wanted.get("pty", False) else None
    return CommandRequest(wanted["command"], wanted["cwd"], wanted["timeout"], wanted.get("stdin", False), terminal)
