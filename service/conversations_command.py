"""`fanout conversations`: look at the conversations of a running server, over its API."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

conversations = typer.Typer(
    no_args_is_help=True,
    help="Look at the conversations of a running server.\n\n"
    "The server is FANOUT_URL (default http://127.0.0.1:8000), the key FANOUT_API_KEY or one of those that the server "
    "itself reads.",
)

Url = Annotated[str, typer.Option(envvar="FANOUT_URL", help="Where the server is.")]
Key = Annotated[
    str,
    typer.Option(
        envvar=["FANOUT_API_KEY", "OH_SESSION_API_KEYS_0", "SESSION_API_KEY"],
        help="Its key; better in the environment, where `ps` does not show it.",
        show_default=False,
        show_envvar=False,
    ),
]
Id = Annotated[UUID, typer.Argument(metavar="ID", help="The conversation's id, as `list` shows it.")]

_DEFAULT_URL = "http://127.0.0.1:8000"
_TIMEOUT_SECONDS = 30.0
_SILENCE_SECONDS = 30.0
"""The server says something on a quiet stream every ten seconds: one that is silent for so long has lost it."""
_COME_BACK_SECONDS = 1.0
_AWAY = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
"""What a balancer says while its server is."""
_SHOWN_CHARACTERS = 2000
_COLOURS = {"running": "yellow", "finished": "green", "error": "red", "stuck": "red"}

_console = Console(soft_wrap=True)


@conversations.command(name="list")
def list_conversations(
    url: Url = _DEFAULT_URL,
    key: Key = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the last changed first.")] = 20,
    status: Annotated[str | None, typer.Option(help="Only these: running, finished, paused, error ...")] = None,
) -> None:
    """The conversations that changed last."""
    wanted: dict[str, str | int] = {"limit": limit, "sort_order": "UPDATED_AT_DESC"}
    with _client(url, key) as client:
        page = _get(client, "/api/conversations/search", wanted | ({"status": status} if status else {}))
        total = _get(client, "/api/conversations/count", {"status": status} if status else {})
    table = Table("id", "status", "updated", "model", "title", caption=f"{len(page['items'])} of {total}")
    for info in page["items"]:
        table.add_row(
            info["id"],
            _status(info),
            info["updated_at"][:19].replace("T", " "),
            escape(str(info["agent"].get("llm", {}).get("model", ""))),
            escape(info.get("title") or ""),
        )
    # As wide as it needs: an id that is cut off is of no use, and a pipe has no width.
    Console(width=max(_console.width, 140)).print(table)


@conversations.command()
def show(conversation_id: Id, url: Url = _DEFAULT_URL, key: Key = "") -> None:
    """One conversation: what it is, what it has used, what was said last."""
    path = f"/api/conversations/{conversation_id}"
    with _client(url, key) as client:
        info = _get(client, path)
        count = _get(client, f"{path}/events/count")
        answer = _get(client, f"{path}/agent_final_response")["response"]
    table = Table.grid("", "", padding=(0, 2))
    rows = {
        "id": info["id"],
        "title": escape(info.get("title") or "-"),
        "status": _status(info),
        "created": info["created_at"],
        "updated": info["updated_at"],
        "folder": escape(str(info["workspace"].get("working_dir", "-"))),
        "model": escape(str(info["agent"].get("llm", {}).get("model", "-"))),
        "tools": escape(", ".join(tool["name"] for tool in info["agent"].get("tools", []))),
        "events": str(count),
        "last answer": escape(answer or "-"),
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}", value)
    _console.print(table)


@conversations.command()
def tail(
    conversation_id: Id,
    url: Url = _DEFAULT_URL,
    key: Key = "",
    everything: Annotated[bool, typer.Option("--all", help="From the first event on, not from now on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, as it is stored.")] = False,
    until_ended: Annotated[bool, typer.Option("--until-ended", help="Leave once no run is going on.")] = False,
) -> None:
    """Each event as it happens, once and in order; goes on by itself when the server or a worker restarts."""
    with _client(url, key) as client:
        try:
            for frame in _session(client, conversation_id, -1 if everything else None):
                event = frame["event"]
                if frame["type"] == "durable":
                    if as_json:
                        sys.stdout.write(json.dumps(event) + "\n")
                        sys.stdout.flush()
                    else:
                        _console.print(_line(event), highlight=False)
                if until_ended and _is_ended(event):
                    return
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _session(client: httpx.Client, conversation_id: UUID, after_seq: int | None) -> Iterator[dict[str, Any]]:
    """The frames with events, over as many connections as it takes."""
    path = f"/api/conversations/{conversation_id}/events/stream"
    _get(client, f"/api/conversations/{conversation_id}")  # what cannot be is told at once, not tried again
    position: dict[str, Any] = {} if after_seq is None else {"after_seq": after_seq}
    while True:
        try:
            with client.stream("GET", path, params=position, timeout=_SILENCE_SECONDS) as response:
                if response.status_code in _AWAY:
                    raise httpx.TransportError(f"{response.status_code} from {response.url}")
                _check(response)
                for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    frame = json.loads(line.removeprefix("data:"))
                    if frame["type"] == "sync":
                        position = {"after_seq": frame["through_seq"]} | position
                        position["stream_epoch"] = frame["stream_epoch"]
                    elif "event" in frame:
                        position["after_seq"] = frame.get("seq", position.get("after_seq"))
                        yield frame
        except httpx.TransportError as error:
            typer.echo(f"fanout: lost the server ({error}), trying again", err=True)
        time.sleep(_COME_BACK_SECONDS)


def _is_ended(event: dict[str, Any]) -> bool:
    """Whether this is the full state of a conversation that is not running; one follows every run."""
    if event.get("kind") != "ConversationStateUpdateEvent" or event.get("key") != "full_state":
        return False
    return bool(event["value"].get("execution_status") != "running")


def _line(event: dict[str, Any]) -> str:
    """An event in the fewest words that tell what happened, as rich's markup."""
    moment = f"[dim]{str(event.get('timestamp', ''))[11:19]}[/dim]"
    kind = str(event.get("kind", ""))
    match kind:
        case "MessageEvent":
            who = "user" if event.get("source") == "user" else "agent"
            colour = "green" if who == "user" else "cyan"
            return f"{moment} [bold {colour}]{who}[/] {_text(event['llm_message']['content'])}"
        case "ActionEvent":
            action = {name: value for name, value in (event.get("action") or {}).items() if name != "kind" and value}
            return f"{moment} [bold blue]{escape(event['tool_name'])}[/] {_cut(json.dumps(action))}"
        case "ObservationEvent":
            return f"{moment} [yellow]=[/] {_text(event['observation'].get('content', []))}"
        case "ConversationStateUpdateEvent":
            return f"{moment} [magenta]{escape(str(event.get('key')))}[/] {_cut(json.dumps(event.get('value')), 100)}"
        case _:
            what = event.get("error") or event.get("detail") or ""
            return f"{moment} [bold]{escape(kind)}[/] {_cut(str(what))}"


def _text(content: list[dict[str, Any]]) -> str:
    return _cut("".join(part.get("text", f"<{part.get('type')}>") for part in content))


def _cut(text: str, limit: int = _SHOWN_CHARACTERS) -> str:
    rest = len(text) - limit
    return escape(text if rest <= 0 else f"{text[:limit]} ... {rest} characters more")


def _status(info: dict[str, Any]) -> str:
    status = info["execution_status"]
    return f"[{_COLOURS.get(status, 'default')}]{status}[/]"


@contextmanager
def _client(url: str, key: str) -> Iterator[httpx.Client]:
    """What goes wrong in the block ends the command with one line."""
    headers = {"x-session-api-key": key} if key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS) as client:
        try:
            yield client
        except (httpx.TransportError, httpx.InvalidURL) as error:
            sys.exit(f"fanout: no answer from {url}: {error}")


def _get(client: httpx.Client, path: str, wanted: dict[str, Any] | None = None) -> Any:
    response = client.get(path, params=wanted)
    _check(response)
    return response.json()


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    if response.status_code == httpx.codes.UNAUTHORIZED:
        sys.exit("fanout: the server wants a key: set FANOUT_API_KEY")
    response.read()
    try:
        reason = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        reason = response.text[:200]
    sys.exit(f"fanout: {response.status_code} from {response.url}: {reason}")
