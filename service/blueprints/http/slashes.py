"""A path written with one slash too many or too few leads to the form that exists."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from service.blueprints.http.routing import handler_at


def redirect(request: Request) -> HTTPResponse | None:
    """307 to the other form of a path that matched no route, when that form has one, for whatever method.

    307 keeps method and body. The query string is kept as it was written.
    """
    path = request.path
    other = path[:-1] if path.endswith("/") else f"{path}/"
    if not other or handler_at(request, other) is None:
        return None
    return HTTPResponse(status=307, headers={"location": _location(request)}, content_type="text/plain; charset=utf-8")


def _location(request: Request) -> str:
    """The absolute address of the other form, below whatever prefix the client used."""
    raw, mark, query = request.raw_url.decode("ascii").partition("?")
    other = raw[:-1] if raw.endswith("/") else f"{raw}/"
    origin = f"{request.scheme}://{request.host}" if request.host and raw.startswith("/") else ""
    return f"{origin}{other}{mark}{query}"
