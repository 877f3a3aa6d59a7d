"""Serving below a prefix: with a `web_url` of `https://host/rt/abc`, paths work with and without `/rt/abc`.

A proxy in front may strip the prefix or leave it, so both arrive.
"""

from __future__ import annotations

from service.blueprints.guarded_request import GuardedRequest


def request_class(prefix: str) -> type[GuardedRequest]:
    """The class of requests whose `path` is the path below `prefix` (`/a/b`, or '' for none)."""
    if not prefix:
        return GuardedRequest

    class PrefixedRequest(GuardedRequest):
        @property
        def path(self) -> str:
            """The path as routes know it."""
            path = super().path
            if path == prefix:
                return "/"
            return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path

    return PrefixedRequest
