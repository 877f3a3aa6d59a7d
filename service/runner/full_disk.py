"""Writing what must not be lost to a disk that takes nothing for now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from service.store.disk import is_refusal

_log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0
"""Before the disk is asked again: at first, and at most, each pause being twice the one before."""


async def once_stored[Result](
    write: Callable[[], Awaitable[Result]],
    refused: str,
    *,
    is_passing: Callable[[OSError], bool] = is_refusal,
    **told: object,
) -> Result:
    """What `write` returns, which is awaited again and again while the disk refuses it.

    Args:
        refused: what is logged each time, together with `told`.
        is_passing: tells an error after which it is worth the wait; any other is raised.
    """
    pause_seconds = _AGAIN_SECONDS
    while True:
        try:
            return await write()
        except OSError as error:
            if not is_passing(error):
                raise
            _log.warning(refused, error=str(error), **told)
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
