"""Serving below a prefix: with a `web_url` of `https://host/rt/abc`, paths work with and without `/rt/abc`.

A proxy in front may strip the prefix or leave it, so both arrive.
"""

from __future__ import annotations

from service.blueprints.http.context import web_of
from service.blueprints.http.derived import Derived
from service.blueprints.http.guarded_request import GuardedRequest
from service.settings import Settings


def request_class(settings: Settings) -> type[GuardedRequest]:
    """The class of requests whose `path` is the path below the prefix."""
    if settings.deferred_init:
        return _late_request()
    prefix = settings.root_path
    if not prefix:
        return GuardedRequest

    class PrefixedRequest(GuardedRequest):
        @property
        def path(self) -> str:
            """The path as routes know it."""
            return _below(prefix, super().path)

    return PrefixedRequest


def _late_request() -> type[GuardedRequest]:
    """For an app that learns its prefix later."""
    prefix = Derived(lambda settings: settings.root_path)

    class LateRequest(GuardedRequest):
        @property
        def path(self) -> str:
            """The path as routes know it."""
            return _below(prefix.of(web_of(self).settings), super().path)

    return LateRequest


def _below(prefix: str, path: str) -> str:
    if path == prefix:
        return "/"
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
