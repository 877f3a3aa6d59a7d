"""What web workers may ask of a runner, by name: a table of what the groups of operations bring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pydantic_core
from pydantic import BaseModel

from service.errors import NoRunner, OwnerMoving, OwnershipLost, RequestFailed
from service.requests.message import Answer, Request
from service.runner.ownership.host import Host
from service.runner.wire.validation import parse
from service.store.inbox import key_name
from service.store.snapshot import Snapshot

SUCCESS = Answer(200, b'{"success":true}')


def answered(content: Any) -> Answer:
    """What can be JSON, as the answer."""
    return Answer(200, pydantic_core.to_json(content))


Operation = Callable[[Request], Awaitable[Answer]]
"""Does what a request asks and answers it, or raises the FanoutError that says why not."""


def submitting(host: Host, model: type[BaseModel], kind: str) -> Operation:
    """An operation that has the body, which must validate as `model`, applied as a command of this kind."""

    async def operation(request: Request) -> Answer:
        parse(model, request.body)
        await (await host.open(conversation_id(request))).submit(kind, request.body)
        return SUCCESS

    return operation


class Operations:
    """The operations of one runner, put together from tables `{name: operation}` that share no name."""

    def __init__(self, *tables: Mapping[str, Operation]) -> None:
        self._table: dict[str, Operation] = {}
        for table in tables:
            assert not self._table.keys() & table.keys(), "every operation has one place"
            self._table.update(table)

    async def handle(self, request: Request) -> Answer:
        """Do what is asked.

        Raises:
            FanoutError: why it was not done.
        """
        operation = self._table.get(request.operation)
        if operation is None:
            raise RequestFailed(f"This runner does not know the operation {request.operation}; it may be older.")
        try:
            return await operation(request)
        except OwnershipLost:
            # Nothing happened; the next owner is to be asked.
            if request.conversation_id is None:
                raise NoRunner from None
            raise OwnerMoving(str(request.conversation_id)) from None


@contextmanager
def just_made(conversation_id: UUID, key: str | None) -> Iterator[None]:
    """For what a conversation is told at once, by the request that has made it and may have the key of a create.

    Raises:
        OwnerMoving: it is let go already; the request's repetition finds it by its key, and tells it.
        RequestFailed: the same without a key, where a repetition would make another.
    """
    try:
        yield
    except OwnershipLost:
        if key is not None:
            raise OwnerMoving(str(conversation_id)) from None
        reason = "was made by a runner that stops, and has not got its first message"
        raise RequestFailed(f"Conversation {conversation_id} {reason}") from None


def conversation_id(request: Request) -> UUID:
    """Of the conversation that the request is about; for operations whose blueprints name one."""
    assert request.conversation_id is not None, "the blueprint names a conversation"
    return request.conversation_id


def info_for(request: Request, snapshot: Snapshot, **changes: str) -> bytes:
    """ConversationInfo in reply to what made or moved a conversation: nobody has looked at its machine yet. With its
    agent's skills if the request wants them.
    """
    with_skills = request.arguments.get("include_skills") and snapshot.info_with_skills
    info = with_skills or snapshot.info
    return pydantic_core.to_json(pydantic_core.from_json(info) | {"runtime_info": None} | changes)


def command_key(request: Request) -> str | None:
    """The request's idempotency key as a command has it, if any."""
    key = request.arguments.get("idempotency_key")
    return None if key is None else key_name(key)
