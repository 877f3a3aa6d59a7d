"""Requests from web workers to runners, and their replies, as bytes.

A message is one line of JSON (the head), a newline, and a body that is passed on untouched: what the client posted,
and what the client is answered.
"""

from __future__ import annotations

import json
from typing import NamedTuple
from uuid import UUID

from service.errors import JsonObject


class Request(NamedTuple):
    """One call of an operation on a runner."""

    request_id: str
    """Unique, also among attempts at the same; the reply has it too."""
    operation: str
    conversation_id: UUID | None
    reply_to: str
    """Channel for the reply."""
    arguments: JsonObject
    body: bytes
    traceparent: str | None = None
    """The caller's span, as W3C Trace Context writes it; None while nothing is traced."""


IN_PROGRESS = 102
"""Status of a reply that only says that the runner is alive and at it; the real one follows (as HTTP's 102)."""

PROGRESS_SECONDS = 2.0
"""How often a runner says so."""


class Answer(NamedTuple):
    """What a successful reply brings: HTTP status and JSON bytes, ready to be sent."""

    status: int
    body: bytes


class Reply(NamedTuple):
    """What a request came to: a status and a body, or an error (`service.errors.to_wire`)."""

    request_id: str
    status: int
    error: JsonObject | None
    body: bytes
    """UTF-8 JSON for the client; empty with an error."""


def encode_request(request: Request) -> bytes:
    head = {
        "id": request.request_id,
        "op": request.operation,
        "conversation": request.conversation_id and request.conversation_id.hex,
        "reply_to": request.reply_to,
        "args": request.arguments,
    }
    if request.traceparent is not None:
        head["trace"] = request.traceparent
    return json.dumps(head).encode() + b"\n" + request.body


def decode_request(message: bytes) -> Request:
    """Reverse of `encode_request`; raises ValueError or KeyError for anything else."""
    head, body = _split(message)
    conversation = head["conversation"] and UUID(hex=str(head["conversation"]))
    return Request(head["id"], head["op"], conversation, head["reply_to"], head["args"], body, head.get("trace"))


def encode_reply(reply: Reply) -> bytes:
    head = {"id": reply.request_id, "status": reply.status, "error": reply.error}
    return json.dumps(head).encode() + b"\n" + reply.body


def decode_reply(message: bytes) -> Reply:
    """Reverse of `encode_reply`; raises ValueError or KeyError for anything else."""
    head, body = _split(message)
    return Reply(head["id"], head["status"], head["error"], body)


def _split(message: bytes) -> tuple[JsonObject, bytes]:
    line, _, body = message.partition(b"\n")
    head = json.loads(line)
    if not isinstance(head, dict):
        raise ValueError("the head is no object")
    return head, body
