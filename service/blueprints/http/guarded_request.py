"""The request classes of the web role."""

from __future__ import annotations

from urllib.parse import unquote

from sanic import Request

from service.blueprints.http.arguments import invalid_value
from service.blueprints.http.auth import require_key
from service.blueprints.http.context import web_of
from service.blueprints.http.request_body import parts_of_body
from service.settings import Settings


class GuardedRequest(Request):
    """Asks for the key before it takes a body in: without one, nobody makes the server hold a hundred megabytes.

    Sanic runs the request middlewares, which ask again, only after the body has arrived. Requests without a body
    never come here.
    """

    @property  # type: ignore[misc]  # Sanic's may be assigned to
    def match_info(self) -> dict[str, str]:
        """The parameters in the path, percent-decoded, once: handlers take them as they are.

        A route has been chosen by then, so an encoded slash is part of a parameter and leads to no other route.

        Raises:
            InvalidRequest: one of them is not UTF-8.
        """
        return {name: _decoded(name, value) for name, value in self._match_info.items()}

    async def receive_body(self) -> None:
        require_key(self)
        self.body = b"".join([data async for data in parts_of_body(self)])


class PrefixedRequest(GuardedRequest):
    """With a `web_url` of `https://host/rt/abc`, paths work with and without `/rt/abc`: a proxy in front may strip the
    prefix or leave it.
    """

    @property
    def path(self) -> str:
        """The path as routes know it."""
        return path_below(web_of(self).settings.root_path, super().path)


def request_class(settings: Settings) -> type[GuardedRequest]:
    """A deferred start may bring a prefix later."""
    return PrefixedRequest if settings.root_path or settings.deferred_init else GuardedRequest


def path_below(prefix: str, path: str) -> str:
    """The path without the prefix, where it has it."""
    if path == prefix:
        return "/"
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


def _decoded(name: str, value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise invalid_value("string_unicode", ["path", name], "Input should be valid UTF-8", value) from None
