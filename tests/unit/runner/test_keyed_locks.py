"""Locks by key."""

from __future__ import annotations

import asyncio

from service.runner.keyed_locks import KeyedLocks


async def test_one_at_a_time_and_nothing_is_left() -> None:
    """Those of a key exclude each other, those of another key do not; afterwards no lock is kept."""
    locks = KeyedLocks[str]()
    inside: list[str] = []
    most = 0

    async def use(key: str) -> None:
        nonlocal most
        async with locks.hold(key):
            assert key not in inside
            inside.append(key)
            most = max(most, len(inside))
            await asyncio.sleep(0)
            inside.remove(key)

    await asyncio.gather(*(use(key) for key in "aaabbb"))
    assert most == 2
    assert len(locks) == 0
