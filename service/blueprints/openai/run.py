"""One message to an agent and the run that answers it, as a web worker follows it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from service.blueprints.http.context import WebContext
from service.blueprints.openai.shapes import Usage, usage_of
from service.errors import AlreadyRunning, Conflict, ConversationNotFound, JsonObject, RequestFailed
from service.pubsub.envelope import Kind
from service.pubsub.feed import Feed
from service.pubsub.hub import Arrival, Subscriber
from service.pubsub.progress import Step, decode

Tell = Callable[[str], Awaitable[None]]

_RUNNING = "running"
_STOPPED = {
    "paused": "The conversation was paused.",
    "waiting_for_confirmation": "The agent waits for the confirmation of an action.",
}
_BETWEEN_TEXTS = "\n\n"


class GatewayRun:
    """What has been seen of a run: its texts as they grow, and in the end its answer.

    It is told from the log, so a lost message costs no more than the deltas in it.
    """

    def __init__(self, conversation_id: UUID, feed: Feed, usage_before: Usage) -> None:
        self.conversation_id = conversation_id
        self._feed = feed
        self._usage_before = usage_before
        self._usage = usage_before
        self._status: str | None = None
        self._error = "The run failed."
        self._answer = ""
        self._told = ""
        """Of the text that grows, what `tell` was given."""
        self._has_told = False
        self._item: tuple[bytes, int] | None = None
        """The item and attempt whose text grows; None after a gap."""
        self._is_over = False

    @property
    def usage(self) -> Usage:
        return self._usage.since(self._usage_before)

    async def follow(self, tell: Tell) -> str:
        """The answer, once the run is over; `tell` is given texts as they grow, the whole answer among them.

        Raises:
            Conflict: the run stopped without an answer: paused, or waiting for a confirmation.
            RequestFailed: it failed.
            ConversationGone, LogBehind: as the feed.
        """
        async for batch in self._feed.batches():
            if not batch:
                self._item = None
                self._is_over = self._is_ended
            text = "".join(self._new_texts(batch))
            if text:
                await tell(text)
            if self._is_over:
                break
        rest = self._result().removeprefix(self._told)
        if rest:
            await tell(rest if not self._has_told or self._told else _BETWEEN_TEXTS + rest)
        return self._answer

    @property
    def _is_ended(self) -> bool:
        return self._status not in (None, _RUNNING)

    def _result(self) -> str:
        if self._status in _STOPPED:
            raise Conflict(f"{_STOPPED[self._status]} It is {self.conversation_id}.")
        if self._status != "finished":
            raise RequestFailed(self._error)
        if not self._answer.startswith(self._told):
            self._told = ""
        return self._answer

    def _new_texts(self, batch: list[Arrival]) -> Iterable[str]:
        for arrival in batch:
            envelope = arrival.envelope
            match envelope.kind:
                case Kind.PROGRESS:
                    yield self._grown(envelope.payload)
                case Kind.DURABLE:
                    self._note(json.loads(envelope.payload))
                case Kind.TRANSIENT if self._is_ended and b'"full_state"' in envelope.payload:
                    # It follows everything that a run has left; a hook may have sent a finished run on.
                    self._is_over = True

    def _grown(self, payload: bytes) -> str:
        progress = decode(payload)
        match progress.step:
            case Step.STARTED:
                self._item, self._told = (progress.item_id, progress.attempt), ""
            case Step.DELTA if self._item == (progress.item_id, progress.attempt):
                delta = json.loads(progress.frame)
                if delta["kind"] == "text":
                    between = _BETWEEN_TEXTS if self._has_told and not self._told else ""
                    self._told += delta["content"]
                    self._has_told = True
                    return between + str(delta["content"])
        return ""

    def _note(self, event: JsonObject) -> None:
        match event:
            case {"kind": "ConversationStateUpdateEvent", "key": "execution_status", "value": status}:
                if self._status is not None or status == _RUNNING:
                    self._status = status
            case {"kind": "ConversationStateUpdateEvent", "key": "stats", "value": stats}:
                self._usage = usage_of(stats)
            case {"kind": "MessageEvent", "source": "agent", "llm_message": {"content": parts}}:
                self._answer = "".join(part.get("text", "") for part in parts)
            case {"kind": "ActionEvent", "tool_name": "finish", "action": {"message": text}}:
                self._answer = text
            case {"kind": "ConversationErrorEvent", "detail": detail}:
                self._error = detail


async def send(web: WebContext, conversation_id: UUID, content: list[JsonObject], subscriber: Subscriber) -> GatewayRun:
    """Have the agent answer; the run, of which `subscriber` hears.

    Raises:
        AlreadyRunning, Conflict: it cannot be asked now.
        RunLimitReached: the message is stored, the run was not started.
    """
    info: dict[str, Any] = json.loads(await web.info(conversation_id))
    status = info["execution_status"]
    if status == _RUNNING:
        raise AlreadyRunning
    if status in _STOPPED:
        raise Conflict(_STOPPED[status])
    log = web.logs.open(conversation_id)
    length = await log.length()
    if length is None:
        raise ConversationNotFound(str(conversation_id))
    body = to_json({"role": "user", "content": content, "run": True})
    await web.requester.ask("events.send", conversation_id, body=body)
    return GatewayRun(conversation_id, Feed(log, subscriber, length - 1), usage_of(info.get("stats") or {}))
