"""Locks by key."""

from __future__ import annotations

import asyncio

from service.runner.ownership.keyed_locks import KeyedLocks


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


async def test_all_are_free_when_the_last_holder_is_done() -> None:
    """Of whatever key."""
    locks = KeyedLocks[str]()
    await locks.wait_free()
    async with locks.hold("a"):
        waiting = asyncio.create_task(locks.wait_free())
        async with locks.hold("b"):
            pass
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
