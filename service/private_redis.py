"""A Redis of one's own, for a node that runs several processes and was given none.

It listens on a unix socket that only the server's user can open, keeps nothing on disk (nothing in Redis is worth
keeping), and ends with the node.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from service.child_process import default_signals, die_with_parent


class RedisServerMissing(Exception):
    """There is no `redis-server` to start."""

    def __str__(self) -> str:
        return (
            "several processes need Redis: set REDIS_URL to one, or install redis-server "
            "(Debian: apt-get install redis-server) so that a private one can be started"
        )


def require_redis_server() -> None:
    """Raises RedisServerMissing when there is no `redis-server` on PATH."""
    if shutil.which("redis-server") is None:
        raise RedisServerMissing


def socket_in(directory: Path) -> Path:
    """Where the private server of the node with this directory listens.

    Raises:
        RedisServerMissing: no `redis-server` on PATH.
    """
    require_redis_server()
    return directory / "redis.socket"


def url_of(socket_path: Path) -> str:
    return f"unix://{socket_path}"


def become_redis_server(socket_path: str) -> None:
    """Turn this process into the server; does not return."""
    default_signals()
    die_with_parent()
    os.execvp(
        "redis-server",
        [
            "redis-server",
            *("--port", "0"),
            *("--unixsocket", socket_path, "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no"),
            *("--daemonize", "no", "--loglevel", "warning"),
            *("--dir", str(Path(socket_path).parent)),
            # A web worker that reads slowly must not be cut off by Redis before its own bounds apply.
            *("--client-output-buffer-limit", "pubsub 256mb 64mb 60"),
        ],
    )
