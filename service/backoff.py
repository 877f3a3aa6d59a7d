"""How long to wait before a process that keeps dying is started again."""

from __future__ import annotations

_FIRST_DELAY_SECONDS = 0.2
"""After the second death; the first is an accident."""
_LONGEST_DELAY_SECONDS = 4.0
_STEADY_SECONDS = 30.0
"""A process that lived this long starts again at once."""


class Backoff:
    """For each of some processes by itself. Pure: the caller brings the time, in seconds."""

    def __init__(self) -> None:
        self._delays: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._started: dict[str, float] = {}

    def started(self, name: str, now: float) -> None:
        """It was started, or somebody tried to."""
        self._started[name] = now
        self._due.pop(name, None)

    def wait_seconds(self, name: str, now: float) -> float:
        """For how long a dead process is not to be started yet; the first question after a death sets the time."""
        if name not in self._started:
            return 0.0
        if name not in self._due:
            lived = now - self._started[name]
            delay = 0.0 if lived >= _STEADY_SECONDS else self._delays.get(name, 0.0)
            self._delays[name] = min(2 * delay, _LONGEST_DELAY_SECONDS) or _FIRST_DELAY_SECONDS
            self._due[name] = now + delay
        return max(0.0, self._due[name] - now)
