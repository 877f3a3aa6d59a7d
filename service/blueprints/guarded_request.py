"""The request class of the web role."""

from __future__ import annotations

from sanic import Request

from service.blueprints.auth import require_key


class GuardedRequest(Request):
    """Asks for the key before it takes a body in: without one, nobody makes the server hold a hundred megabytes.

    Sanic runs the request middlewares, which ask again, only after the body has arrived. Requests without a body
    never come here.
    """

    async def receive_body(self) -> None:
        require_key(self)
        await super().receive_body()  # type: ignore[no-untyped-call]
