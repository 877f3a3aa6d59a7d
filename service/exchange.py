"""Publish and subscribe within one process, across its threads."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

Listener = Callable[[str, bytes], bool]
"""Takes a channel and a message, at once and on the publisher's thread; False when it can take nothing any more."""


class Exchange:
    """Who listens to which channel. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: defaultdict[str, list[Listener]] = defaultdict(list)

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        """Hand each message to the listeners of its channel, in order; returns how many took each.

        Listeners are called under a lock, so that all of them see one order: they must only note what they get.
        """
        with self._lock:
            return [
                sum([listener(channel, data) for listener in self._listeners.get(channel, ())])
                for channel, data in messages
            ]

    def subscribe(self, channel: str, listener: Listener) -> None:
        """Hand over what is published from now on."""
        with self._lock:
            if listener not in self._listeners[channel]:
                self._listeners[channel].append(listener)

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """No effect for one that does not listen."""
        with self._lock:
            listeners = self._listeners[channel]
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                del self._listeners[channel]

    def count(self, channel: str) -> int:
        """How many listen to it."""
        with self._lock:
            return len(self._listeners.get(channel, ()))
