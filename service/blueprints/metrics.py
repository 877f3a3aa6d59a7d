"""/metrics, and the counting of requests."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from prometheus_client import Counter
from prometheus_client.metrics import Histogram
from sanic import Blueprint, HTTPResponse, Request, Sanic
from sanic.response import BaseHTTPResponse
from sanic_routing.route import Route

from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented, path_of
from service.errors import Unauthorized
from service.metrics import CONTENT_TYPE, exposition, may_scrape, metrics

_NO_ROUTE = "none"

blueprint = Blueprint("metrics")


@blueprint.get("/metrics")
@documented(
    summary="What this node counts, for Prometheus",
    response={"type": "string"},
    media_type="text/plain",
    errors=(401,),
)
async def scrape(request: Request) -> HTTPResponse:
    """All processes of the node together. Open unless `metrics_key` is set, which is then the bearer token.

    Raises:
        Unauthorized: another token, or none.
    """
    if not may_scrape(request.headers.getone("authorization", ""), web_of(request).settings.metrics_token):
        raise Unauthorized
    return HTTPResponse(await asyncio.to_thread(exposition), content_type=CONTENT_TYPE)


class RequestCount:
    """A response middleware that counts, with every child at hand: labels are looked up once."""

    def __init__(self) -> None:
        self._answered: dict[tuple[str, str, int], Counter] = {}
        self._seconds: dict[str, Histogram] = {}

    def start(self, request: Request) -> None:
        request.ctx.asked_at = time.perf_counter()

    def end(self, request: Request, response: BaseHTTPResponse) -> None:
        # A method that no route takes may be any text, which must not make a series of its own.
        path, method = (_NO_ROUTE, "any") if request.route is None else (request.route.path, request.method)
        key = (path, method, response.status // 100)
        answered = self._answered.get(key)
        if answered is None:
            answered = self._answered[key] = metrics().http_requests.labels(method, _name(request.route), f"{key[2]}xx")
        answered.inc()
        asked_at: float | None = getattr(request.ctx, "asked_at", None)
        if asked_at is None:  # refused before its body was taken
            return
        seconds = self._seconds.get(path)
        if seconds is None:
            seconds = self._seconds[path] = metrics().http_request_seconds.labels(_name(request.route))
        seconds.observe(time.perf_counter() - asked_at)


def install(app: Sanic[Any, Any]) -> RequestCount:
    """Add the route, and count every answer; `start` is to be called as each request is looked at first."""
    count = RequestCount()
    app.register_middleware(count.end, "response")
    app.blueprint(blueprint)
    return count


def _name(route: Route | None) -> str:
    return _NO_ROUTE if route is None else path_of(route)
