"""A real Redis, of the tests' own."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.child_process import ChildProcess
from tests.server_process import free_port

START_SECONDS = 20.0


class RedisProcess:
    """One `redis-server` on a port of 127.0.0.1; nothing is kept over a restart."""

    def __init__(self, directory: Path) -> None:
        """Choose a port; nothing runs before `start`."""
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        address = ["--bind", "127.0.0.1", "--port", str(self.port)]
        command = ["redis-server", *address, "--save", "", "--appendonly", "no", "--dir", str(directory)]
        self.process = ChildProcess("redis", command, directory, {"PATH": os.environ["PATH"]})
        self.dump_path = directory / "dump.rdb"
        """What SAVE writes, and a start reads; nobody else does."""
        self.client = Redis(port=self.port, decode_responses=True)
        """For looking into it from a test."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            ServerFailedError: it exited or did not answer in time.
        """
        self.process.start()
        self.process.wait_until(self._answers, "Redis answers", START_SECONDS)

    def close(self) -> None:
        """End it."""
        self.client.close()
        self.process.close()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisConnectionError:
            return False
