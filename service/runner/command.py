"""One accepted command between its arrival and its outcome."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from service.store.inbox import InboxEntry


@dataclass(eq=False)
class Command:
    """One command on its way."""

    kind: str
    content: bytes
    starts_run: bool = False
    key: str | None = None
    """Idempotency key of the client's request (`store.inbox.key_name`)."""
    entry: InboxEntry | None = None
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the command is in the inbox, or need not be."""
    outcome: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    is_acknowledged: bool = False
    """The client was told before the outcome was known."""
