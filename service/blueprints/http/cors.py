"""Which web pages of other origins may call, and what their browsers are told.

Our own rather than sanic-ext's, which answers 404 to a preflight on an unknown path, replaces `Vary`, and does not
echo the requested headers (sanic-ext 25.12).
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from sanic import HTTPResponse, Request
from sanic.response.types import BaseHTTPResponse

from service.blueprints.http.context import web_of
from service.settings import Settings

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY")
_MAX_AGE_SECONDS = 600

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1"})
_COOKIE_PATH = re.compile(r"/api/auth/workspace-session|/api/conversations/[^/]+/workspace(?:/.*)?", re.DOTALL)
"""Routes that authenticate by cookie for pages on any host; the cookie itself is what guards them."""


def allowed_origin(settings: Settings, origin: str, path: str) -> str | None:
    """The value of `Access-Control-Allow-Origin`; None when the origin is refused.

    An allowed origin is echoed, since `*` is void for requests with credentials. Only `null`, the origin of
    sandboxed pages, gets the bare `*`, and only where the operator asked for it.
    """
    if origin == "null":
        return "*" if "*" in settings.allow_cors_origins else None
    if _is_trusted(settings, origin) or (_is_web(origin) and _COOKIE_PATH.fullmatch(path)):
        return origin
    return None


def stamp(request: Request, response: BaseHTTPResponse) -> None:
    """Response middleware: add the headers, to errors and streams as well."""
    headers = response.headers
    vary = headers.get("vary")
    if vary is None:
        headers["vary"] = "Origin"
    elif "Origin" not in vary:
        headers["vary"] = f"{vary}, Origin"
    origin = request.headers.getone("origin", None)
    if origin is None:
        return
    headers["access-control-allow-credentials"] = "true"
    allowed = allowed_origin(web_of(request).settings, origin, request.path)
    if allowed is not None:
        headers["access-control-allow-origin"] = allowed


def preflight(request: Request) -> HTTPResponse | None:
    """The answer to a browser's question before the real request; None when this is no such question.

    Any path is answered, even one that does not exist: the browser then sees the 404 itself.
    """
    asked_method = request.headers.getone("access-control-request-method", None)
    origin = request.headers.getone("origin", None)
    if request.method != "OPTIONS" or origin is None or asked_method is None:
        return None
    allowed = allowed_origin(web_of(request).settings, origin, request.path)
    refused = [] if allowed is not None else ["origin"]
    if asked_method not in METHODS:
        refused.append("method")
    response = HTTPResponse(
        f"Disallowed CORS {', '.join(refused)}" if refused else "OK",
        status=400 if refused else 200,
        content_type="text/plain; charset=utf-8",
    )
    response.headers.update(_preflight_headers(request))
    return response


def _is_trusted(settings: Settings, origin: str) -> bool:
    if origin in settings.allow_cors_origins or "*" in settings.allow_cors_origins:
        return True
    pattern = settings.allow_cors_origin_regex
    if pattern is not None and re.fullmatch(pattern, origin):
        return True
    host = _host(origin)
    return host is not None and (host in _LOOPBACK or host == settings.docker_host_addr)


def _preflight_headers(request: Request) -> dict[str, str]:
    headers = {
        "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        "access-control-allow-methods": ", ".join(METHODS),
        "access-control-max-age": str(_MAX_AGE_SECONDS),
    }
    asked_headers = request.headers.getone("access-control-request-headers", None)
    if asked_headers is not None:
        headers["access-control-allow-headers"] = asked_headers
    return headers


def _is_web(origin: str) -> bool:
    return _ORIGIN.fullmatch(origin) is not None and origin.lower().startswith(("http://", "https://"))


def _host(origin: str) -> str | None:
    """The host an origin names, in lower case; None for anything that is not `scheme://host[:port]`."""
    if _ORIGIN.fullmatch(origin) is None:
        return None
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None
