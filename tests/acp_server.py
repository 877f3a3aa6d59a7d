"""An agent of another make, as the SDK starts one: a program that speaks ACP on its standard input and output.

`python -m tests.acp_server <log>`: a prompt is a script. `SAY <text>` is said; `ENV <name>` says a variable of its
environment; `FILE <variable>/<name>` says what is in a file of the folder that a variable names, and `WRITE
<variable>/<name> <text>` replaces it. What it is asked goes to the log, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import acp
from acp.schema import (
    AgentCapabilities,
    Implementation,
    InitializeResponse,
    LoadSessionResponse,
    NewSessionResponse,
    PromptResponse,
    SessionConfigOptionSelect,
    SessionConfigSelectOption,
    SetSessionConfigOptionResponse,
)

MODELS = ("small", "large")


class ScriptedAcpAgent:
    """One session at a time; a session that is loaded again is believed to exist."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._model = MODELS[0]

    def on_connect(self, conn: acp.Client) -> None:
        self._client = conn

    async def initialize(self, protocol_version: int, **kwargs: Any) -> InitializeResponse:
        return InitializeResponse(
            protocol_version=protocol_version,
            agent_capabilities=AgentCapabilities(load_session=True),
            agent_info=Implementation(name="scripted-acp", version="1"),
        )

    async def new_session(self, cwd: str, **kwargs: Any) -> NewSessionResponse:
        self._note("new_session")
        return NewSessionResponse(session_id="the-session", config_options=[self._models()])

    async def load_session(self, cwd: str, session_id: str, **kwargs: Any) -> LoadSessionResponse:
        self._note("load_session")
        return LoadSessionResponse(config_options=[self._models()])

    async def set_config_option(
        self, config_id: str, session_id: str, value: str | bool, **kwargs: Any
    ) -> SetSessionConfigOptionResponse:
        self._note("set_config_option", value=value)
        if value not in MODELS:
            raise acp.RequestError.invalid_params({"model": value})
        self._model = str(value)
        return SetSessionConfigOptionResponse(config_options=[self._models()])

    async def prompt(self, session_id: str, prompt: list[Any], **kwargs: Any) -> PromptResponse:
        script = "\n".join(block.text for block in prompt if hasattr(block, "text"))
        self._note("prompt", model=self._model)
        for line in script.splitlines():
            command, _, rest = line.partition(" ")
            said = self._answer(command, rest)
            if said is not None:
                await self._client.session_update(session_id, acp.update_agent_message_text(said))
        return PromptResponse(stop_reason="end_turn")

    async def cancel(self, session_id: str, **kwargs: Any) -> None:
        self._note("cancel")

    def _answer(self, command: str, rest: str) -> str | None:
        match command:
            case "SAY":
                return rest
            case "ENV":
                return f"{rest}={os.environ.get(rest)}"
            case "FILE":
                return _file(rest).read_text(encoding="utf-8")
            case "WRITE":
                place, _, text = rest.partition(" ")
                _file(place).write_text(text, encoding="utf-8")
        return None

    def _models(self) -> SessionConfigOptionSelect:
        return SessionConfigOptionSelect(
            type="select",
            id="model",
            name="Model",
            category="model",
            current_value=self._model,
            options=[SessionConfigSelectOption(name=name, value=name) for name in MODELS],
        )

    def _note(self, what: str, **more: Any) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"what": what, "pid": os.getpid(), **more}) + "\n")


def _file(place: str) -> Path:
    variable, _, name = place.partition("/")
    return Path(os.environ[variable], name)


if __name__ == "__main__":
    asyncio.run(acp.run_agent(cast(acp.Agent, ScriptedAcpAgent(Path(sys.argv[1])))))
