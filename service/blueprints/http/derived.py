"""Values computed from the settings and kept until the settings change."""

from __future__ import annotations

from collections.abc import Callable

from service.settings import Settings


class Derived[Value]:
    """`build(settings)`, computed once per Settings object.

    Settings are frozen, but a deferred start puts another object in their place while requests come in.
    """

    def __init__(self, build: Callable[[Settings], Value]) -> None:
        self._build = build
        self._current: tuple[Settings, Value] | None = None

    def of(self, settings: Settings) -> Value:
        if self._current is None or self._current[0] is not settings:
            self._current = (settings, self._build(settings))
        return self._current[1]
