"""A lock for each of many things, kept only while somebody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class KeyedLocks[Key: Hashable]:
    """Of one event loop."""

    def __init__(self) -> None:
        self._locks: dict[Key, asyncio.Lock] = {}
        self._users: Counter[Key] = Counter()
        self._freed = asyncio.Event()
        self._freed.set()

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def hold(self, key: Key) -> AsyncIterator[None]:
        """Nobody else holds the lock of this key while the block runs."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] += 1
        self._freed.clear()
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
            if not self._locks:
                self._freed.set()

    async def wait_free(self) -> None:
        """Until nobody holds any of them or waits for it."""
        await self._freed.wait()
