"""TCP ports of this host."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress

_LOOK_AGAIN_SECONDS = 0.1


def require_free(port: int) -> None:
    """Raises OSError when something listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise OSError(error.errno, f"{os.strerror(error.errno)}: port {port}") from None


async def wait_listening(port: int) -> None:
    """Return once something accepts connections on it."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
