"""What clients send on a socket: messages for the agent. Each is appended and always starts a run."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from service.blueprints.arguments import problem
from service.blueprints.auth import is_auth_frame
from service.errors import FanoutError, InvalidRequest, OwnershipLost, RunLimitReached

_CODES: dict[type[FanoutError], str] = {
    InvalidRequest: "ValidationError",
    RunLimitReached: "ConversationRunLimitExceeded",
    OwnershipLost: "ConversationOwnershipLostError",
}
"""The contract's names for what goes wrong; for others the error's own name."""


class NotJson(ValueError):
    """A frame that is no JSON text."""


def message_body(frame: str | bytes) -> bytes | None:
    """The frame as the body of `POST .../events`; None for a repeated authentication, which is ignored.

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
        raise problem("missing", ["body", "role"], "Field required", message)
    content = message.get("content", [])
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return to_json({"role": message["role"], "content": content})


def server_error_event(error: Exception) -> bytes:
    """A ServerErrorEvent as JSON: tells this one client what was wrong with what it sent; never stored."""
    code = "JSONDecodeError" if isinstance(error, NotJson) else type(error).__name__
    detail: Any = str(error)
    if isinstance(error, FanoutError):
        code = _CODES.get(type(error), code)
        detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail)
    event = {
        "id": str(uuid.uuid4()),
        "timestamp": datetime.now().isoformat(),  # noqa: DTZ005  events carry the server's local time (contract)
        "source": "environment",
        "code": code,
        "detail": detail,
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
