"""What there is on a path that was asked for in another form, or by another method."""

from __future__ import annotations

from sanic import HTTPResponse, Request
from sanic.exceptions import MethodNotAllowed, NotFound

_METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT", "HEAD")


def handlers_at(request: Request, path: str) -> dict[str, object]:
    """What each method finds on exactly `path`, by method.

    Every method is tried: for the wrong one the router also says "not allowed" about a path that differs in its last
    slash (sanic-routing 23.12 strips it and asks again), and where a path has several handlers it forgets the methods.
    """
    host = request.headers.getone("host", None)
    handlers: dict[str, object] = {}
    for method in _METHODS:
        try:
            _, handlers[method], _ = request.app.router.get(path, method, host)
        except (NotFound, MethodNotAllowed):
            continue
    return handlers


def to_other_slash(request: Request) -> HTTPResponse | None:
    """307 from a path that matched no route to its form with one slash more or less, if that has one by some method.

    307 keeps method and body. The query string is kept as it was written.
    """
    path = request.path
    other = path[:-1] if path.endswith("/") else f"{path}/"
    if not other or not handlers_at(request, other):
        return None
    return HTTPResponse(status=307, headers={"location": _location(request)}, content_type="text/plain; charset=utf-8")


def _location(request: Request) -> str:
    """The absolute address of the other form, below whatever prefix the client used."""
    raw, mark, query = request.raw_url.decode("ascii").partition("?")
    other = raw[:-1] if raw.endswith("/") else f"{raw}/"
    origin = f"{request.scheme}://{request.host}" if request.host and raw.startswith("/") else ""
    return f"{origin}{other}{mark}{query}"
