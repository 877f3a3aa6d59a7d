"""`/api/bash`: shell commands on the machine of the agents, and `/api/conversations/{id}/bash` for one conversation.

A runner runs them; what they are and put out is read from the disk, so any worker answers for any command.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import Enum
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.answers import Success, json_answer
from service.blueprints.http.arguments import body, event_ids, query, uuid_path
from service.blueprints.http.context import WebContext, web_of
from service.blueprints.http.openapi import array_of, documented
from service.blueprints.http.places import place
from service.blueprints.http.scopes import SCOPED_PREFIX, Routes, workspace_of
from service.errors import BadRequest, NoRunner, NotFound, OutcomeUnknown
from service.pubsub.broker import Channel
from service.store.bash_history import BashHistory, Entry, micros_of, new_command_id

blueprint = Blueprint("bash", url_prefix="/api/bash")
scoped = Blueprint("conversation_bash", url_prefix=f"{SCOPED_PREFIX}/bash")
_route = Routes(blueprint, scoped)

_LOOK_AGAIN_SECONDS = 1.0
"""How long a waiting request trusts that it will be told."""
_AT_ONCE_SECONDS = 1.0
"""How long the runner keeps its answer to a start back, so that it says how the command ended; most have by then."""
_FOREVER = 1 << 53


class TerminalSize(BaseModel):
    """In characters."""

    columns: int = Field(80, ge=1, le=10_000)
    rows: int = Field(24, ge=1, le=10_000)


class ExecuteBashRequest(BaseModel):
    """A command for the shell."""

    command: str
    cwd: str | None = Field(None, description="Directory to run in; relative to the server's.")
    timeout: int = Field(300, description="Seconds until its process group is ended.")
    stdin: bool = Field(False, description="Whether it takes input while it runs; otherwise its input is empty.")
    pty: bool = Field(False, description="Whether it runs on a terminal, which takes input, too; all output is stdout.")
    size: TerminalSize = Field(default_factory=TerminalSize, description="Of the terminal.")


class BashCommand(BaseModel):
    """A command that was started."""

    id: str
    timestamp: datetime
    command: str
    cwd: str | None
    timeout: int
    kind: Literal["BashCommand"]


class BashOutput(BaseModel):
    """Some output of a command; with an exit code, the last."""

    id: str
    timestamp: datetime
    command_id: str
    order: int
    exit_code: int | None
    stdout: str | None
    stderr: str | None
    kind: Literal["BashOutput"]


class BashEventPage(BaseModel):
    """A page of events."""

    items: list[BashCommand | BashOutput]
    next_page_id: str | None


class Cleared(BaseModel):
    """How many events were deleted."""

    cleared_count: int


class BashSortOrder(Enum):
    """The contract's names."""

    TIMESTAMP = "TIMESTAMP"
    TIMESTAMP_DESC = "TIMESTAMP_DESC"


class BashSearch(BaseModel):
    """Query of `bash_events/search`."""

    kind__eq: Literal["BashCommand", "BashOutput"] | None = None
    command_id__eq: UUID | None = None
    timestamp__gte: datetime | None = Field(None, description="Without an offset it is UTC.")
    timestamp__lt: datetime | None = None
    order__gt: int | None = None
    sort_order: BashSortOrder = BashSortOrder.TIMESTAMP
    page_id: str | None = None
    limit: int = Field(100, gt=0, le=100)


class Scope(NamedTuple):
    """Whose commands a request is about."""

    web: WebContext
    history: BashHistory
    conversation_id: UUID | None = None
    working_dir: str | None = None


async def scope_of(request: Request, runtime_conversation_id: str | None) -> Scope:
    """Raises InvalidRequest for an id that is none, ConversationNotFound."""
    web = web_of(request)
    conversation_id, working_dir = await workspace_of(request, runtime_conversation_id)
    directory = web.root.directory(conversation_id).bash_events if conversation_id else web.settings.bash_events_dir
    return Scope(web, BashHistory(directory), conversation_id, working_dir)


@_route("POST", "/start_bash_command")
@documented(summary="Start a shell command", body=ExecuteBashRequest, response=BashCommand, errors=(404, 422, 429))
async def start_bash_command(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    [command] = await start(await scope_of(request, runtime_conversation_id), body(request, ExecuteBashRequest))
    return json_answer(command)


@_route("POST", "/execute_bash_command")
@documented(
    summary="Run a shell command to its end",
    description="A client that goes away does not end the command.",
    body=ExecuteBashRequest,
    response=BashOutput,
    errors=(404, 422, 429),
)
async def execute_bash_command(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    scope = await scope_of(request, runtime_conversation_id)
    outputs = await _run_to_its_end(scope, body(request, ExecuteBashRequest))
    return json_answer(outputs[0] if len(outputs) == 1 else _joined([json.loads(output) for output in outputs]))


@_route("GET", "/bash_events/search")
@documented(summary="A page of commands and output", query=BashSearch, response=BashEventPage, errors=(400, 404, 422))
async def search_bash_events(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    scope = await scope_of(request, runtime_conversation_id)
    items, next_page_id = await asyncio.to_thread(search, scope.history, query(request, BashSearch))
    next_id = json.dumps(next_page_id).encode()
    return json_answer(b'{"items":[' + b",".join(items) + b'],"next_page_id":' + next_id + b"}")


@_route("GET", "/bash_events/", ignore_body=False)
@documented(
    summary="Several commands and outputs by id, null for an unknown one",
    body=array_of("EventId"),
    response={"type": "array", "items": {}},
    errors=(404, 422),
)
async def get_bash_events(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    scope = await scope_of(request, runtime_conversation_id)
    found = [await asyncio.to_thread(scope.history.event, event_id) for event_id in event_ids(request)]
    return json_answer(b"[" + b",".join(event or b"null" for event in found) + b"]")


@_route("GET", "/bash_events/<event_id:str>")
@documented(summary="One command or output", response={"type": "object"}, errors=(404,))
async def get_bash_event(request: Request, event_id: str, runtime_conversation_id: str | None = None) -> HTTPResponse:
    scope = await scope_of(request, runtime_conversation_id)
    event = await asyncio.to_thread(scope.history.event, event_id)
    if event is None:
        raise NotFound
    return json_answer(event)


@_route("DELETE", "/bash_events")
@documented(summary="Delete the history of commands", response=Cleared, errors=(404,))
async def clear_bash_events(request: Request, runtime_conversation_id: str | None = None) -> HTTPResponse:
    scope = await scope_of(request, runtime_conversation_id)
    return json_answer(Cleared(cleared_count=await asyncio.to_thread(scope.history.clear)))


@_route("POST", "/bash_commands/<command_id:str>/stop")
@documented(summary="End a command's process group", response=Success, errors=(404, 422))
async def stop_bash_command(
    request: Request, command_id: str, runtime_conversation_id: str | None = None
) -> HTTPResponse:
    scope = await scope_of(request, runtime_conversation_id)
    if not await ask_runner_of(scope, command_id, "bash.stop"):
        await scope.web.note_activity()  # as its runner would have
    return json_answer(Success())


async def ask_runner_of(scope: Scope, command_id: str, operation: str, content: bytes = b"") -> bool:
    """Have the runner of a command do something with it; False when the command has ended.

    Raises:
        InvalidRequest: the id is none.
        NotFound: no command of the scope has it.
        FanoutError: what the runner raised.
    """
    wanted = uuid_path(command_id, "command_id").hex
    running = await asyncio.to_thread(scope.web.running_commands.find, wanted)
    if running is not None and running.history == scope.history.directory:
        arguments = {"command_id": wanted}
        try:
            await scope.web.requester.ask(operation, runner_id=running.runner_id, body=content, arguments=arguments)
        except NoRunner:
            if await asyncio.to_thread(scope.web.running_commands.find, wanted) is not None:
                raise  # another runner gives it its end shortly
        else:
            return True
    if await asyncio.to_thread(scope.history.event, wanted) is None:
        raise NotFound
    return False


async def start(
    scope: Scope, wanted: ExecuteBashRequest, command_id: str | None = None, wait_seconds: float = 0.0
) -> list[bytes]:
    """Have a runner start the command, with this id if one is given; returns its event.

    With `wait_seconds` the event of its output may follow, when it ends within them.

    Raises:
        InvalidRequest: its directory is not in the conversation's workspace.
        FanoutError: no runner could start it.
    """
    content = wanted.model_dump_json().encode()
    if scope.working_dir is not None:
        cwd = await asyncio.to_thread(_directory, scope.working_dir, wanted.cwd)
        content = wanted.model_copy(update={"cwd": cwd}).model_dump_json().encode()
    arguments = {"command_id": command_id or new_command_id(), "wait_seconds": wait_seconds}
    answer = await scope.web.requester.ask("bash.start", scope.conversation_id, body=content, arguments=arguments)
    return answer.body.split(b"\n")


def search(history: BashHistory, wanted: BashSearch, page_bytes: float = math.inf) -> tuple[list[bytes], str | None]:
    """The events of a page and the name of the next. Blocking. Raises BadRequest for an unknown `page_id`.

    A page ends with the event that brings it to `page_bytes`.
    """
    if wanted.command_id__eq is not None and wanted.kind__eq == "BashCommand":
        return [], None
    descending = wanted.sort_order is BashSortOrder.TIMESTAMP_DESC
    first = 0 if wanted.timestamp__gte is None else micros_of(wanted.timestamp__gte)
    last = _FOREVER if wanted.timestamp__lt is None else micros_of(wanted.timestamp__lt)
    page = _page(wanted.page_id) if wanted.page_id else None
    if page is not None:
        first, last = (first, min(last, page[0] + 1)) if descending else (max(first, page[0]), last)
    find = _events if wanted.command_id__eq is None else _outputs
    items: list[bytes] = []
    size = 0
    for entry, event in find(history, wanted, first, last, descending):
        here = (entry.micros, entry.event_id)
        if page is not None and (here > page if descending else here < page):
            continue
        if len(items) == wanted.limit or size >= page_bytes:
            return items, entry.cursor
        items.append(event)
        size += len(event)
    return items, None


def _events(
    history: BashHistory, wanted: BashSearch, first: int, last: int, descending: bool
) -> Iterator[tuple[Entry, bytes]]:
    for entry in history.entries(first, last, descending=descending):
        if wanted.kind__eq is not None and entry.is_command != (wanted.kind__eq == "BashCommand"):
            continue
        event = history.read(entry)
        if event is None:
            continue
        if wanted.order__gt is None or entry.is_command or json.loads(event)["order"] > wanted.order__gt:
            yield entry, event


def _outputs(
    history: BashHistory, wanted: BashSearch, first: int, last: int, descending: bool
) -> Iterable[tuple[Entry, bytes]]:
    """As `_events`, of one command."""
    assert wanted.command_id__eq is not None
    command_id = wanted.command_id__eq.hex
    after_order = -1 if wanted.order__gt is None else wanted.order__gt
    found = []
    for event in history.outputs(command_id, after_order):
        output = json.loads(event)
        entry = Entry(micros_of(datetime.fromisoformat(output["timestamp"])), output["id"], command_id)
        if first <= entry.micros < last and output["order"] > after_order:
            found.append((entry, event))
    return reversed(found) if descending else found


def _page(page_id: str) -> tuple[int, str]:
    """What a page's name says; the event itself may have been deleted, and the page then begins after it."""
    micros, _, event_id = page_id.partition("_")
    if len(micros) != 16 or not micros.isdecimal() or len(event_id) != 32:
        raise BadRequest(f"Unknown page_id: {page_id}")
    return int(micros), event_id


def _directory(working_dir: str, cwd: str | None) -> str:
    """Where a conversation's command runs. Blocking."""
    if cwd is None:
        return os.path.abspath(working_dir)
    place(cwd, "cwd", working_dir)
    return cwd


def _joined(outputs: list[dict[str, Any]]) -> bytes:
    """The last output, with the text of all."""
    whole = {name: "".join(each[name] or "" for each in outputs) or None for name in ("stdout", "stderr")}
    return json.dumps(outputs[-1] | whole, ensure_ascii=False).encode()


async def _run_to_its_end(scope: Scope, wanted: ExecuteBashRequest) -> list[bytes]:
    """The events of all outputs of a command, the last included."""
    command_id = new_command_id()
    try:
        _, *outputs = await start(scope, wanted, command_id, _AT_ONCE_SECONDS)
    except OutcomeUnknown:
        # Its runner may have died while it waited with us. If it was started, it gets an end.
        if await asyncio.to_thread(scope.history.event, command_id) is None:
            raise
        outputs = []
    if outputs:
        return outputs
    channel = Channel(scope.web.keys.bash_command(command_id))
    async with scope.web.hub.subscribe(channel, scope.web.settings.socket_backlog_bytes) as subscriber:
        while True:
            outputs = await asyncio.to_thread(scope.history.outputs, command_id)
            if outputs and json.loads(outputs[-1])["exit_code"] is not None:
                return outputs
            if not outputs and await asyncio.to_thread(scope.history.event, command_id) is None:
                raise NotFound  # the history was cleared meanwhile
            await subscriber.wait(_LOOK_AGAIN_SECONDS)
            subscriber.take()
