"""What web workers may ask of a runner, by name: a table of what the groups of operations bring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import pydantic_core

from service.errors import OwnerMoving, OwnershipLost, RequestFailed
from service.requests.message import Request
from service.requests.requester import Answer
from service.store.inbox import key_name
from service.store.snapshot import Snapshot

SUCCESS = Answer(200, b'{"success":true}')


def answered(content: Any) -> Answer:
    """What can be JSON, as the answer."""
    return Answer(200, pydantic_core.to_json(content))


Operation = Callable[[Request], Awaitable[Answer]]
"""Does what a request asks and answers it, or raises the FanoutError that says why not."""


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
                raise
            raise OwnerMoving(str(request.conversation_id)) from None


def conversation_id(request: Request) -> UUID:
    """Of the conversation that the request is about; for operations whose blueprints name one."""
    assert request.conversation_id is not None, "the blueprint names a conversation"
    return request.conversation_id


def info_for(request: Request, snapshot: Snapshot) -> bytes:
    """What a conversation's snapshot tells of it, with its agent's skills if the request wants them."""
    return snapshot.info_with_skills if request.arguments.get("include_skills") else snapshot.info


def command_key(request: Request) -> str | None:
    """The request's idempotency key as a command has it, if any."""
    key = request.arguments.get("idempotency_key")
    return None if key is None else key_name(key)
