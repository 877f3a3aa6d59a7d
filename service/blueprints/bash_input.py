"""`.../bash_commands/{id}/input`, `/resize` and `/signal`: steering a command that runs, from any worker.

A command takes input when it was started with `stdin` or `pty`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.bash import TerminalSize, ask_runner_of, scope_of
from service.blueprints.http.answers import Success, json_answer
from service.blueprints.http.arguments import body
from service.blueprints.http.openapi import documented
from service.blueprints.http.scopes import SCOPED_PREFIX, Routes
from service.errors import Conflict

blueprint = Blueprint("bash_input", url_prefix="/api/bash")
scoped = Blueprint("conversation_bash_input", url_prefix=f"{SCOPED_PREFIX}/bash")
_route = Routes(blueprint, scoped)


class BashInput(BaseModel):
    """What a command is to read."""

    text: str = Field("", max_length=1 << 20)
    eof: bool = Field(False, description="Then the end of the input; on a terminal that is Ctrl-D.")


class BashSignal(BaseModel):
    """What a command's process group is to be told."""

    signal: Literal["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGUSR1", "SIGUSR2"]


@_route("POST", "/bash_commands/<command_id:str>/input")
@documented(
    summary="Send input to a running command",
    description="In the order of the requests; answered before the command has read it.",
    body=BashInput,
    response=Success,
    errors=(404, 409, 422),
)
async def send_bash_input(
    request: Request, command_id: str, runtime_conversation_id: str | None = None
) -> HTTPResponse:
    return await _ask(request, command_id, runtime_conversation_id, "bash.input", body(request, BashInput))


@_route("POST", "/bash_commands/<command_id:str>/resize")
@documented(
    summary="Change the size of a running command's terminal",
    body=TerminalSize,
    response=Success,
    errors=(404, 409, 422),
)
async def resize_bash_terminal(
    request: Request, command_id: str, runtime_conversation_id: str | None = None
) -> HTTPResponse:
    return await _ask(request, command_id, runtime_conversation_id, "bash.resize", body(request, TerminalSize))


@_route("POST", "/bash_commands/<command_id:str>/signal")
@documented(
    summary="Signal a running command",
    description="Its process group; with a terminal the group in the foreground, as the terminal's keys do.",
    body=BashSignal,
    response=Success,
    errors=(404, 409, 422),
)
async def signal_bash_command(
    request: Request, command_id: str, runtime_conversation_id: str | None = None
) -> HTTPResponse:
    return await _ask(request, command_id, runtime_conversation_id, "bash.signal", body(request, BashSignal))


async def _ask(
    request: Request, command_id: str, runtime_conversation_id: str | None, operation: str, wanted: BaseModel
) -> HTTPResponse:
    scope = await scope_of(request, runtime_conversation_id)
    if not await ask_runner_of(scope, command_id, operation, wanted.model_dump_json().encode()):
        raise Conflict("The command has ended.")
    return json_answer(Success())
