"""A process that keeps dying is started again less and less often."""

from __future__ import annotations

import pytest

from service.backoff import Backoff


def test_backoff_starts_again_at_once_the_first_time() -> None:
    """One death is an accident."""
    backoff = Backoff()
    backoff.started("web", 0.0)
    assert backoff.wait_seconds("web", 1.0) == 0


def test_backoff_waits_longer_each_time_up_to_a_limit() -> None:
    """A process that keeps dying is started less and less often."""
    backoff = Backoff()
    now, waits = 0.0, []
    for _ in range(9):
        backoff.started("web", now)
        died_at = now
        while backoff.wait_seconds("web", now):
            now += 0.05
        waits.append(now - died_at)
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(waits[-2], abs=0.1)
    assert waits[-1] == pytest.approx(4.0, abs=0.1)


def test_backoff_forgets_after_a_long_life() -> None:
    """A process that has served for a while is started again at once, whatever was before."""
    backoff = Backoff()
    for _ in range(5):
        backoff.started("web", 0.0)
        backoff.wait_seconds("web", 0.0)
    backoff.started("web", 0.0)
    assert backoff.wait_seconds("web", 60.0) == 0


def test_backoff_keeps_processes_apart() -> None:
    """One that keeps dying does not delay another."""
    backoff = Backoff()
    for _ in range(5):
        backoff.started("web", 0.0)
        backoff.wait_seconds("web", 0.0)
    backoff.started("redis", 0.0)
    assert backoff.wait_seconds("redis", 0.0) == 0
