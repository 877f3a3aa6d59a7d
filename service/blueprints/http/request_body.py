"""Taking in the body of a request as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from sanic import Request
from sanic.exceptions import RequestTimeout
from sanic.http import Http

STALL_SECONDS = 600.0
"""A client that sends, or takes, nothing more of a body in this time is gone, or as good as (guess)."""


async def parts_of_body(request: Request) -> AsyncIterator[bytes]:
    """What has not been read yet.

    Raises:
        RequestTimeout: nothing more came for STALL_SECONDS.
        PayloadTooLarge: it is longer than the limit that the request's stream has.
        BadRequest: its chunked encoding is broken.
    """
    stream = cast(Http, request.stream)
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                data = await stream.read()
        except TimeoutError:
            stream.keep_alive = False  # what may come yet is no request
            raise RequestTimeout("The rest of the body did not come") from None
        if data is None:
            return
        yield data
