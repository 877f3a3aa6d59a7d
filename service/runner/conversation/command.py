"""One accepted command between its arrival and its outcome."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from service.errors import FanoutError
from service.store.inbox import InboxEntry

ENCRYPTED_KINDS = ("secrets", "switch_llm")
"""Commands that lie on disk encrypted while they wait."""


@dataclass(eq=False)
class Command:
    """One command on its way."""

    kind: str
    content: bytes
    starts_run: bool = False
    key: str | None = None
    """Idempotency key of the client's request (`store.inbox.key_name`)."""
    number: int = 0
    """Its place in the inbox, whether or not it is stored there; 0 before it has one."""
    entry: InboxEntry | None = None
    event_id: str | None = None
    """Of the user's message that it has become or was about to become."""
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the command is in the inbox, or need not be."""
    outcome: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    traceparent: str | None = None
    """Of the request that brought it; lost with the process."""
    is_acknowledged: bool = False
    """The client was told before the outcome was known."""
    has_failed: bool = False
    """It could not be applied; a client that was not told before waits for that."""

    def answer(self, error: FanoutError | None = None) -> None:
        """Say what became of it, unless that was said before."""
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)
