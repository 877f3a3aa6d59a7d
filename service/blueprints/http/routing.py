"""Asking Sanic's router about a path, whatever the method."""

from __future__ import annotations

from sanic import Request
from sanic.exceptions import MethodNotAllowed, NotFound

_METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT", "HEAD")


def handler_at(request: Request, path: str) -> object | None:
    """What some method finds on exactly `path`; None when nothing is there.

    Every method is tried: for the wrong one the router also says "not allowed" about a path that differs in its last
    slash (sanic-routing 23.12 strips it and asks again).
    """
    return next(iter(_handlers_at(request, path).values()), None)


def methods_at(request: Request, path: str) -> list[str]:
    """The methods that find something on `path`; the router itself forgets them where a path has several handlers."""
    return list(_handlers_at(request, path))


def _handlers_at(request: Request, path: str) -> dict[str, object]:
    host = request.headers.getone("host", None)
    handlers: dict[str, object] = {}
    for method in _METHODS:
        try:
            _, handlers[method], _ = request.app.router.get(path, method, host)
        except (NotFound, MethodNotAllowed):
            continue
    return handlers
