"""When another runner is believed to be dead."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from service.catalog.liveness import Pulse, is_dead, is_gone_from_here, new_runner_id
from service.catalog.runners import HEARTBEAT_SECONDS, HEARTBEAT_TTL_SECONDS, Runners
from service.identity import RunnerId

LONG_SECONDS = HEARTBEAT_TTL_SECONDS + 0.1


def elsewhere() -> RunnerId:
    """A runner of another machine."""
    return RunnerId("other-host.00000000.1.aaaaaaaa")


def dead_here() -> RunnerId:
    """A runner of this machine whose process has ended."""
    code = "from service.catalog.liveness import new_runner_id; print(new_runner_id())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return RunnerId(ended.stdout.strip())


def beat_until(pulse: Pulse, start: float, seconds: float) -> None:
    """Heartbeats as they should be."""
    for beat in range(1, int(seconds / HEARTBEAT_SECONDS) + 1):
        pulse.beat(was_there=True, now=start + beat * HEARTBEAT_SECONDS)


class Listeners(Runners):
    """Says what a test wants."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent

    async def is_silent(self, runner_id: RunnerId) -> bool:
        return self._silent


def test_pulse_is_steady_after_an_undisturbed_while() -> None:
    """From the start, or from the last disturbance on."""
    pulse = Pulse(now=100.0)
    beat_until(pulse, 100.0, HEARTBEAT_TTL_SECONDS)
    assert not pulse.is_steady(100.0 + HEARTBEAT_TTL_SECONDS)
    assert pulse.is_steady(100.0 + LONG_SECONDS)


def test_overdue_heartbeat_leaves_no_pulse_steady() -> None:
    """Redis is silent now, or was until now: others have had no chance to show up either."""
    pulse = Pulse(now=0.0)
    beat_until(pulse, 0.0, 10.0)
    assert pulse.is_steady(10.0 + 2 * HEARTBEAT_SECONDS)
    assert not pulse.is_steady(10.1 + 2 * HEARTBEAT_SECONDS)

    pulse.beat(was_there=True, now=12.5)
    beat_until(pulse, 12.5, HEARTBEAT_TTL_SECONDS)
    assert not pulse.is_steady(12.5 + HEARTBEAT_TTL_SECONDS)
    assert pulse.is_steady(12.5 + LONG_SECONDS)


def test_first_heartbeat_shows_no_loss() -> None:
    """There is none before it."""
    pulse = Pulse(now=0.0)
    assert [pulse.beat(was_there=was_there, now=1.0) for was_there in (False, True, False)] == [False, False, True]


@pytest.mark.parametrize("disturbance", ["missed", "lost"])
def test_disturbed_pulse_is_not_steady_for_a_while(disturbance: str) -> None:
    """Redis was away, or was emptied: everybody is silent then."""
    pulse = Pulse(now=0.0)
    beat_until(pulse, 0.0, 10.0)
    if disturbance == "missed":
        pulse.miss(now=10.0)
    else:
        pulse.beat(was_there=False, now=10.0)
    beat_until(pulse, 10.0, HEARTBEAT_TTL_SECONDS)
    assert not pulse.is_steady(10.0 + HEARTBEAT_TTL_SECONDS)
    assert pulse.is_steady(10.0 + LONG_SECONDS)


def test_runner_ids_are_new_each_time() -> None:
    """Also in one process."""
    assert new_runner_id() != new_runner_id()


def test_process_of_this_machine_is_looked_for() -> None:
    """Its absence is certain; nothing is known of another machine's."""
    assert not is_gone_from_here(new_runner_id())
    assert is_gone_from_here(dead_here())
    assert not is_gone_from_here(elsewhere())


@pytest.mark.parametrize("strange", ["", "one", "a.b", "no.dots.enough"])
def test_strange_ids_are_not_declared_dead(strange: str) -> None:
    """Another version may name its runners otherwise."""
    assert not is_gone_from_here(RunnerId(strange))


@pytest.mark.parametrize(
    ("silent", "now", "expected"),
    [(True, LONG_SECONDS, True), (False, LONG_SECONDS, False), (True, 1.0, False), (False, 1.0, False)],
)
async def test_runner_elsewhere_is_dead_when_it_is_silent_and_we_are_well(
    silent: bool, now: float, expected: bool
) -> None:
    """Both are needed."""
    pulse = Pulse(0.0)
    beat_until(pulse, 0.0, now)
    assert await is_dead(elsewhere(), Listeners(silent=silent), pulse, lambda: now) is expected


async def test_ended_process_of_this_machine_is_dead_at_once() -> None:
    """Whatever Redis says."""
    assert await is_dead(dead_here(), Listeners(silent=False), Pulse(time.monotonic()))
