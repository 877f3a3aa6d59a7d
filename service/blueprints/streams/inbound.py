"""What clients send on a socket: messages for the agent. Each is appended and always starts a run."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from service.blueprints.http.arguments import invalid_value
from service.blueprints.http.auth import is_auth_frame
from service.errors import FanoutError, InvalidRequest, OwnershipLost, RunLimitReached

_CODES: dict[type[FanoutError], str] = {
    InvalidRequest: "ValidationError",
    RunLimitReached: "ConversationRunLimitExceeded",
    OwnershipLost: "ConversationOwnershipLostError",
}
"""The contract's names for what goes wrong; for others the error's own name."""


class NotJson(ValueError):
    """A frame that is no JSON text."""


def message_body(frame: str | bytes, watcher: str | None) -> bytes | None:
    """The frame as the body of `POST .../events`, from the `watcher` unless it names a sender.

    None for a repeated authentication, which is ignored.

    Raises:
        NotJson: the frame is binary or no JSON.
        InvalidRequest: it is JSON and no object, or an object without a role, such as a `{"type": "ping"}`.
    """
    message = parse_frame(frame)
    if is_auth_frame(message):
        return None
    if not isinstance(message, dict):
        raise InvalidRequest("A message must be a JSON object")
    if "role" not in message:
        raise invalid_value("missing", ["body", "role"], "Field required", message)
    content = message.get("content", [])
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    sender = message.get("sender", watcher)
    return to_json({"role": message["role"], "content": content, "sender": sender})


class Problem(NamedTuple):
    """What was wrong with what a client sent, in the contract's words."""

    code: str
    detail: str


def problem_of(error: NotJson | FanoutError) -> Problem:
    if isinstance(error, NotJson):
        return Problem("JSONDecodeError", str(error))
    detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail)
    return Problem(_CODES.get(type(error), type(error).__name__), detail)


def server_error_event(problem: Problem) -> bytes:
    """A ServerErrorEvent as JSON: tells this one client what was wrong with what it sent; never stored."""
    event = {
        "id": str(uuid.uuid4()),
        "timestamp": datetime.now().isoformat(),  # noqa: DTZ005  events carry the server's local time (contract)
        "source": "environment",
        **problem._asdict(),
        "kind": "ServerErrorEvent",
    }
    return to_json(event)


def parse_frame(frame: str | bytes) -> Any:
    if isinstance(frame, bytes):
        raise NotJson("Messages must be sent as text frames")
    try:
        json.loads(frame)  # says what is wrong in the words clients of the published server know
        return from_json(frame)  # the stricter parser: no lone surrogates, no nesting that could not be written again
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from None
