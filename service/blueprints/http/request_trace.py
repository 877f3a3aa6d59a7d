"""A span for each request that is answered, below the one that its `traceparent` header names."""

from __future__ import annotations

from typing import Any

from sanic import Request, Sanic
from sanic.response import BaseHTTPResponse

from service.blueprints.http.handshake import is_socket
from service.blueprints.http.openapi import path_of
from service.tracing import begin


def install(app: Sanic[Any, Any]) -> None:
    """Sockets have none: they may last for days."""
    app.register_middleware(_begin, "request", priority=1)
    app.register_middleware(_end, "response")


def _begin(request: Request) -> None:
    if request.route is None or is_socket(request.route.handler):
        return
    name = f"{request.method} {path_of(request.route)}"
    request.ctx.span = begin(name, "SERVER", request.headers.get("traceparent"))


def _end(request: Request, response: BaseHTTPResponse) -> None:
    begun = getattr(request.ctx, "span", None)
    if begun is not None:
        begun.span.set_attribute("http.response.status_code", response.status)
        begun.end()
