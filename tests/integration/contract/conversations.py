"""Conversations of one server as a plain HTTP and WebSocket client sees them; the agent asks the scripted LLM."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from websockets.sync.client import ClientConnection, connect

from service.demo.scripted_llm import ScriptedLlm
from tests.server_process import Server
from tests.waiting import wait_until

JsonObject = dict[str, Any]

PATH = "/api/conversations"


def call(tool: str, **arguments: object) -> str:
    """The script line that makes the scripted LLM call a tool."""
    return f"CALL {tool} {json.dumps(arguments)}"


def terminal(command: str) -> str:
    """The script line that makes the scripted LLM run a command."""
    return call("terminal", command=command)


# Starts at once, and what it does can be seen on disk.
FILE_EDITOR: JsonObject = {"name": "file_editor"}

# Gone with its server, unlike one in tmux.
TERMINAL: JsonObject = {"name": "terminal", "params": {"terminal_type": "subprocess"}}


def write(path: Path, text: str = "written") -> str:
    """The script line that makes the scripted LLM write a file, with `FILE_EDITOR`."""
    return call("file_editor", command="create", path=str(path), file_text=text)


def agent_of(llm: ScriptedLlm, *tools: JsonObject, **llm_options: Any) -> JsonObject:
    """An agent as the wire has it: the scripted LLM, `finish`, `think` and `tools`.

    Args:
        tools: `FILE_EDITOR`, or `TERMINAL`, which takes a second to start.
        llm_options: fields of the LLM beside the scripted one's.
    """
    return {"kind": "Agent", "llm": llm.settings | llm_options, "tools": list(tools)}


def user_message(*lines: str, run: bool = False) -> JsonObject:
    """Body of a message post: one text with these script lines."""
    return {"role": "user", "content": [{"type": "text", "text": "\n".join(lines)}], "run": run}


class Conversation:
    """One conversation, by id; every method is a request."""

    def __init__(self, http: httpx.Client, conversation_id: str, llm: ScriptedLlm) -> None:
        self.http = http
        self.id = conversation_id
        self.llm = llm
        self.path = f"{PATH}/{conversation_id}"

    @property
    def info(self) -> JsonObject:
        """What `GET` says now."""
        content: JsonObject = self.get().raise_for_status().json()
        return content

    @property
    def status(self) -> str:
        return str(self.info["execution_status"])

    @property
    def events(self) -> list[JsonObject]:
        """Up to 100 events of the log, oldest first."""
        page = self.get("/events/search", params={"limit": 100}).raise_for_status().json()
        assert page["next_page_id"] is None, "the log fits one page"
        return list(page["items"])

    @property
    def outline(self) -> list[str]:
        """What was said and done, in order, one line an event; see `outline_line`."""
        return [line for event in self.events if (line := outline_line(event))]

    def get(self, route: str = "", **options: Any) -> httpx.Response:
        return self.http.get(f"{self.path}{route}", **options)

    def post(self, route: str, content: object = None) -> httpx.Response:
        """POST `content` as JSON; without it, no body."""
        return self.http.post(f"{self.path}{route}", json=content) if content is not None else self._bare(route)

    def patch(self, content: object) -> httpx.Response:
        return self.http.patch(self.path, json=content)

    def delete(self) -> httpx.Response:
        return self.http.delete(self.path)

    def send(self, *lines: str, run: bool = False) -> None:
        """Post a user message with a script of these lines."""
        self.post("/events", user_message(*lines, run=run)).raise_for_status()

    def run(self) -> None:
        self.post("/run").raise_for_status()

    def run_again(self) -> None:
        """Start a run as soon as the former one has let go."""
        wait_until(self._try_run, "the former run is over and a new one starts")

    def run_to(self, status: str, *lines: str) -> None:
        """Send a script, run it and wait until the conversation has this status."""
        self.send(*lines, run=True)
        self.wait_status(status)

    def wait_status(self, *statuses: str, timeout_seconds: float = 20.0) -> str:
        """Wait until the server tells one of these execution statuses, and return it."""
        return wait_status(self.http, self.id, *statuses, timeout_seconds=timeout_seconds)

    def wait_event(self, description: str, predicate: Callable[[JsonObject], bool]) -> JsonObject:
        """Wait until the log holds an event of which `predicate` is true, and return the first."""
        return wait_until(lambda: next(filter(predicate, self.events), None) or {}, description)

    def socket(self, query: str = "", **options: Any) -> ClientConnection:
        """Open the events socket; use it with `with`.

        Args:
            query: with its question mark.
        """
        return self._connect(f"/sockets/events/{self.id}{query}", options)

    def session(self, query: str = "", **options: Any) -> ClientConnection:
        """Open the session socket; use it with `with`.

        Args:
            query: with its question mark.
        """
        return self._connect(f"/sockets/session/{self.id}{query}", options)

    def _connect(self, path: str, options: JsonObject) -> ClientConnection:
        base = str(self.http.base_url).rstrip("/").replace("http", "ws", 1)
        return connect(f"{base}{path}", proxy=None, **options)

    def _bare(self, route: str) -> httpx.Response:
        return self.http.post(f"{self.path}{route}")

    def _try_run(self) -> bool:
        response = self.post("/run")
        assert response.status_code in {200, 409}, response.text
        return response.status_code == 200


class Conversations:
    """Makes conversations on one server; calling it makes one and returns its handle."""

    def __init__(self, http: httpx.Client, llm: ScriptedLlm, working_dir: str) -> None:
        """Make nothing yet.

        Args:
            working_dir: the agents' directory, on the machine that server and tests share.
        """
        self.http = http
        self.llm = llm
        self.working_dir = working_dir
        self._ids: list[str] = []

    def __call__(self, **fields: Any) -> Conversation:
        """Create a conversation; `fields` are the request's, beside the defaults of `request`."""
        response = self.create(**fields)
        assert response.status_code in {200, 201}, response.text
        return self.handle(response.json()["id"])

    def with_editor(self, **fields: Any) -> Conversation:
        """Create a conversation whose agent can write files."""
        return self(agent=agent_of(self.llm, FILE_EDITOR), **fields)

    def with_terminal(self, **fields: Any) -> Conversation:
        """Create a conversation whose agent has a terminal, started by its first message."""
        return self(agent=agent_of(self.llm, TERMINAL), **fields)

    def create(self, **fields: Any) -> httpx.Response:
        """The answer to a create request, whatever it is."""
        response = self.http.post(PATH, json=self.request(**fields))
        if response.status_code == 201:
            self._ids.append(response.json()["id"])
        return response

    def request(self, **fields: Any) -> JsonObject:
        """Body of a create: the scripted agent, no title of its own making, and `fields` over that."""
        defaults = {
            "agent": agent_of(self.llm),
            "workspace": {"working_dir": self.working_dir},
            "autotitle": False,
        }
        return defaults | fields

    def handle(self, conversation_id: str) -> Conversation:
        """The handle of a conversation that exists, or does not."""
        return Conversation(self.http, conversation_id, self.llm)

    def adopt(self, conversation_id: str) -> Conversation:
        """The handle of a conversation that something else has made; the end of the test deletes it."""
        self._ids.append(conversation_id)
        return self.handle(conversation_id)

    def unknown(self) -> Conversation:
        """The handle of a conversation nobody has made."""
        return self.handle(str(uuid4()))

    def delete_all(self) -> None:
        """Remove what this factory has made."""
        for conversation_id in self._ids:
            self.http.delete(f"{PATH}/{conversation_id}")


def wait_status(http: httpx.Client, conversation_id: str, *statuses: str, timeout_seconds: float = 20.0) -> str:
    """Wait until `GET` tells one of these execution statuses, and return it.

    Raises:
        AssertionError: it told none of them within `timeout_seconds`.
    """

    def told() -> str | None:
        status = http.get(f"{PATH}/{conversation_id}").raise_for_status().json()["execution_status"]
        return status if status in statuses else None

    return wait_until(told, f"the conversation is {' or '.join(statuses)}", timeout_seconds) or ""


def made(server: Server) -> set[str]:
    """What lies in the conversations' directory of a server, which the first create makes."""
    return {path.name for path in server.conversations_path.glob("*")}


def outline_line(event: JsonObject) -> str | None:
    """One line for what was said or done; None for state updates and the system prompt."""
    match event["kind"]:
        case "MessageEvent":
            text = "".join(part.get("text", "") for part in event["llm_message"]["content"])
            return "user" if event["source"] == "user" else f"{event['source']}: {text}"
        case "ActionEvent":
            return f"call {event['tool_name']}"
        case "ObservationEvent":
            return f"result {event['tool_name']}"
        case "UserRejectObservation":
            return f"rejected {event['tool_name']}"
        case "AgentErrorEvent":
            return f"error {event['tool_name']}"
        case "PauseEvent" | "InterruptEvent" as kind:
            return str(kind)
    return None


def state_updates(events: Collection[JsonObject], key: str) -> list[Any]:
    """The values of the state updates of one key, in order."""
    updates = [event for event in events if event["kind"] == "ConversationStateUpdateEvent"]
    return [event["value"] for event in updates if event["key"] == key]
