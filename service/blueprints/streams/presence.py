"""Who watches a conversation through this worker, said to all others in time for nobody to be shown for long."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated
from uuid import UUID

import structlog
from pydantic import Field

from service.catalog.keys import Keys
from service.catalog.watchers import WATCHERS_TTL_SECONDS, LocalWatchers, Watchers
from service.errors import BrokerUnavailable
from service.identity import UNKNOWN_STREAM_EPOCH
from service.pubsub.broker import Broker, Channel
from service.pubsub.envelope import Envelope, Kind, encode

_log = structlog.get_logger(__name__)

WatcherName = Annotated[str, Field(min_length=1, max_length=64)]

_NAMES = 20
"""So many names of one conversation are shown per worker; all watchers are counted."""
_RENEW_SECONDS = WATCHERS_TTL_SECONDS / 3
_PAUSE_SECONDS = 0.2
"""Between two announcements: a crowd that comes at once is told of a few times, not once a head."""
_AGAIN_SECONDS = 2.0
"""Before Redis is asked again when it did not answer."""
_HEAD = encode(Envelope(Kind.PRESENCE, -1, UNKNOWN_STREAM_EPOCH, b""))


class Presence:
    """The watchers at this worker. `run` says who they are; methods of one event loop."""

    def __init__(self, watchers: Watchers, broker: Broker, keys: Keys) -> None:
        self._watchers = watchers
        self._broker = broker
        self._keys = keys
        self._worker_id = uuid.uuid4().hex
        self._here: dict[UUID, Counter[str | None]] = {}
        self._changed: set[UUID] = set()
        self._news = asyncio.Event()

    @contextmanager
    def watching(self, conversation_id: UUID, name: str | None) -> Iterator[None]:
        """A client watches for the length of the block; a name is shown to the others."""
        here = self._here.setdefault(conversation_id, Counter())
        here[name] += 1
        self._note(conversation_id)
        try:
            yield
        finally:
            here[name] -= 1
            if not here[name]:
                del here[name]
            if not here:
                self._here.pop(conversation_id, None)
            self._note(conversation_id)

    async def run(self) -> None:
        """Announce changes soon, and everybody again before it runs out; until cancelled."""
        renew_at = time.monotonic() + _RENEW_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, renew_at - time.monotonic())):
                    await self._news.wait()
            if time.monotonic() >= renew_at:
                self._changed.update(self._here)
                renew_at = time.monotonic() + _RENEW_SECONDS
            was_said = await self.announce()
            await asyncio.sleep(_PAUSE_SECONDS if was_said else _AGAIN_SECONDS)

    async def announce(self) -> bool:
        """Say what has changed; False when it cannot be said now and is to be said later."""
        self._news.clear()
        changed, self._changed = self._changed, set()
        if not changed:
            return True
        try:
            news = await self._watchers.announce(self._worker_id, {each: self._local(each) for each in changed})
            messages = [(Channel(self._keys.events(each)), _HEAD + told) for each, told in news.items()]
            if messages:
                await self._broker.publish(messages)
        except BrokerUnavailable:
            _log.info("presence_not_announced", conversations=len(changed))
            self._changed |= changed
            self._news.set()
            return False
        return True

    def _local(self, conversation_id: UUID) -> LocalWatchers:
        here = self._here.get(conversation_id, Counter[str | None]())
        names = itertools.islice(sorted(name for name in here if name is not None), _NAMES)
        return LocalWatchers(here.total(), tuple(names))

    def _note(self, conversation_id: UUID) -> None:
        self._changed.add(conversation_id)
        self._news.set()
