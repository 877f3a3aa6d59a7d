"""Whether another runner has lost its conversations for certain: the question before they may be taken from it.

Silence proves nothing right after Redis was away or emptied, since then everybody is silent. So a runner believes in
the death of another only

* at once, when it ran on this machine and its process is gone; or
* when neither heartbeat nor listener is left of it, and this runner's own heartbeats have gone through undisturbed,
  one soon after the other, for longer than a living runner would need to show up again.

One that is merely stopped keeps its connections, so it still seems to listen. It loses what its lease no longer covers,
once it has shown no heartbeat while this runner's own have gone through undisturbed for a whole lease.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from service.catalog.runners import HEARTBEAT_SECONDS, HEARTBEAT_TTL_SECONDS, Runners
from service.identity import RunnerId

_LATE_SECONDS = 2 * HEARTBEAT_SECONDS
"""Between two heartbeats: Redis did not answer for a while, though within the time-out of a command."""


class Pulse:
    """How long this runner's own heartbeats have gone through. Pure: the caller brings the time, in seconds."""

    def __init__(self, now: float) -> None:
        self._disturbed_at = now
        self._beaten_at = now
        self._has_beaten = False

    def beat(self, *, was_there: bool, now: float) -> bool:
        """A heartbeat went through; `was_there`: the one before it is left. Returns whether one ran out or was lost."""
        is_loss = self._has_beaten and not was_there
        if not was_there or self._is_late(now):
            self._disturbed_at = now
        self._beaten_at = now
        self._has_beaten = True
        return is_loss

    def miss(self, now: float) -> None:
        """A heartbeat did not go through."""
        self._disturbed_at = now

    def is_steady(self, now: float, seconds: float = HEARTBEAT_TTL_SECONDS) -> bool:
        """Whether nothing disturbed it for longer than that, and none is overdue."""
        return now - self._disturbed_at > seconds and not self._is_late(now)

    def _is_late(self, now: float) -> bool:
        return now - self._beaten_at > _LATE_SECONDS


async def is_dead(
    runner_id: RunnerId, runners: Runners, pulse: Pulse, clock: Callable[[], float] = time.monotonic
) -> bool:
    """Whether `runner_id` is dead for certain. Raises BrokerUnavailable when Redis does not answer."""
    if is_gone_from_here(runner_id):
        return True
    # The pulse last: Redis may have taken its time to answer.
    return await runners.is_silent(runner_id) and pulse.is_steady(clock())


async def dead_among(runner_ids: Iterable[RunnerId], runners: Runners, pulse: Pulse) -> set[RunnerId]:
    """Those that are dead for certain; each is asked about once. Raises BrokerUnavailable as `is_dead` does."""
    return {runner_id for runner_id in set(runner_ids) if await is_dead(runner_id, runners, pulse)}


async def has_let_lease_lapse(runner_id: RunnerId, runners: Runners, pulse: Pulse, lease_ttl_seconds: float) -> bool:
    """Whether `runner_id`, whose lease has run out, has had the time to renew it and has not shown up.

    Raises BrokerUnavailable when Redis does not answer.
    """
    return not await runners.is_beating(runner_id) and pulse.is_steady(time.monotonic(), lease_ttl_seconds)


def new_runner_id() -> RunnerId:
    """`<host name>.<machine>.<pid>.<random>`; the machine is this boot and process namespace."""
    return RunnerId(f"{socket.gethostname()}.{_machine()}.{os.getpid()}.{uuid.uuid4().hex[:8]}")


def is_gone_from_here(runner_id: RunnerId) -> bool:
    """Whether the runner was a process of this machine that no longer exists. A reused pid counts as existing."""
    *_, machine, pid, _ = ["", "", *runner_id.split(".")]
    if machine != _machine():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is another user's
    return False


def _machine() -> str:
    """Differs between hosts, boots and containers, whatever their host names: pids mean something within it only."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    if boot.exists():
        parts += [boot.read_text().strip(), os.readlink(namespace)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
