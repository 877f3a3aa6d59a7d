"""Bodies of OpenAI's interface: what is asked, and how answers, chunks and errors look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_json

from service.errors import BadRequest, JsonObject

MODEL_PREFIX = "openhands_"
"""Before the name of an LLM profile, in a model's id."""

_BEGAN = "You began the conversation by saying:"


class ChatMessage(BaseModel):
    """One turn; other fields of OpenAI's are ignored, calls of tools too, for the agent has its own."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatCompletionRequest(BaseModel):
    """Body of `POST /v1/chat/completions`; other fields of OpenAI's are ignored."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = False
    stream_options: StreamOptions | None = None


class ResponsesRequest(BaseModel):
    """Body of `POST /v1/responses`; other fields of OpenAI's are ignored."""

    model: str
    input: str | list[ChatMessage]
    instructions: str | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = False
    store: bool | None = False
    previous_response_id: str | None = None

    @property
    def messages(self) -> list[ChatMessage]:
        """The input as turns, after the instructions."""
        given = [ChatMessage(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return [ChatMessage(role="system", content=self.instructions), *given] if self.instructions else given


class Model(BaseModel):
    """One LLM profile."""

    id: str
    created: int = 0
    object: Literal["model"] = "model"
    owned_by: str = "openhands"


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class OpenAIErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(BaseModel):
    """What every error below `/v1/` looks like."""

    error: OpenAIErrorBody


class Usage(NamedTuple):
    """Tokens of all LLM calls of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def since(self, earlier: Usage) -> Usage:
        return Usage(*(now - before for now, before in zip(self, earlier, strict=True)))

    def as_json(self) -> JsonObject:
        return {**self._asdict(), "total_tokens": sum(self)}


def usage_of(stats: Mapping[str, Any]) -> Usage:
    """The sum over every LLM of a conversation, from its `stats`."""
    spent = [metrics.get("accumulated_token_usage") or {} for metrics in stats.get("usage_to_metrics", {}).values()]
    return Usage(*(sum(each.get(name, 0) for each in spent) for name in Usage._fields))


class Prompt(NamedTuple):
    """A request's messages as the agent is given them; contents are lists of the SDK's parts."""

    system: str
    history: list[JsonObject]
    """`{"role": "user"|"assistant", "content": [...]}`; the first is a user's."""
    message: list[JsonObject]
    """The content of the last user message."""


def prompt_of(messages: list[ChatMessage]) -> Prompt:
    """Take the messages apart. What follows the last user message is left out: it could only be the answer.

    Raises:
        BadRequest: there is no user message, or a part is neither text nor an image.
    """
    last = max((index for index, message in enumerate(messages) if message.role == "user"), default=None)
    if last is None or not _parts(messages[last]):
        raise BadRequest("There must be a message with the role user, and something in the last one.")
    system = [_text(message) for message in messages if message.role in ("system", "developer")]
    turns = [message for message in messages[:last] if message.role not in ("system", "developer")]
    while turns and turns[0].role == "assistant":
        system.append(f"{_BEGAN}\n{_text(turns.pop(0))}")
    history = [
        {"role": "assistant" if turn.role == "assistant" else "user", "content": content}
        for turn in turns
        if (content := _parts(turn))
    ]
    return Prompt("\n\n".join(filter(None, system)), history, _parts(messages[last]))


def chat_completion(answer_id: str, model: str, text: str, usage: Usage) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return to_json(_envelope(answer_id, model, "chat.completion") | {"choices": [choice], "usage": usage.as_json()})


def response(answer_id: str, wanted: ResponsesRequest, text: str, usage: Usage) -> bytes:
    """The body of an answer of `/v1/responses`."""
    message = {
        "type": "message",
        "id": f"msg_{answer_id}",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }
    tokens = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": sum(usage),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return to_json(
        {
            "id": f"resp_{answer_id}",
            "object": "response",
            "created_at": int(time.time()),
            "model": wanted.model,
            "status": "completed",
            "output": [message],
            "usage": tokens,
            "instructions": wanted.instructions,
            "metadata": wanted.metadata or {},
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "incomplete_details": None,
        }
    )


class Chunks:
    """The chunks of one streamed answer, as server-sent events."""

    def __init__(self, answer_id: str, model: str) -> None:
        self._head = _envelope(answer_id, model, "chat.completion.chunk")

    def role(self) -> bytes:
        return self._choice({"role": "assistant", "content": ""})

    def content(self, text: str) -> bytes:
        return self._choice({"content": text})

    def stop(self) -> bytes:
        return self._choice({}, "stop")

    def usage(self, usage: Usage) -> bytes:
        return _sent(to_json(self._head | {"choices": [], "usage": usage.as_json()}))

    def _choice(self, delta: JsonObject, finish_reason: str | None = None) -> bytes:
        return _sent(to_json(self._head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}))


DONE = b"data: [DONE]\n\n"


def error_body(status: int, message: str) -> JsonObject:
    """An error as OpenAI's clients read it."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    code = {401: "invalid_api_key", 404: "not_found"}.get(status)
    return OpenAIError(error=OpenAIErrorBody(message=message, type=kind, code=code)).model_dump()


def error_event(status: int, message: str) -> bytes:
    """The same in the middle of a stream."""
    return _sent(to_json(error_body(status, message)))


def _sent(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _envelope(answer_id: str, model: str, kind: str) -> JsonObject:
    return {"id": answer_id, "object": kind, "created": int(time.time()), "model": model}


def _text(message: ChatMessage) -> str:
    return "".join(part.get("text", "") for part in _parts(message))


def _parts(message: ChatMessage) -> list[JsonObject]:
    content = message.content or []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> JsonObject:
    match part:
        case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image_url", "image_url": {"url": str(url)}} | {"type": "input_image", "image_url": str(url)}:
            return {"type": "image", "image_urls": [url]}
    raise BadRequest("A part of a message's content must be a text or an image_url.")
