"""A gibibyte through a web server of a deployment: nobody holds it in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster_process import Cluster
from tests.session_processes import processes_of, resident_bytes

MIB = 1 << 20
SIZE_MIB = 1024


class Growth:
    """Of a web server's processes, beyond what they had."""

    def __init__(self, cluster: Cluster) -> None:
        self._pids = [process.pid for process in processes_of(cluster.web_servers[0].pid)]
        self._before = self._now
        self.most_bytes = 0

    @property
    def _now(self) -> int:
        return sum(map(resident_bytes, self._pids))

    def look(self) -> None:
        self.most_bytes = max(self.most_bytes, self._now - self._before)


@pytest.mark.heavy
def test_gibibyte_stays_out_of_memory(cluster: Cluster, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    block = os.urandom(16 * MIB)
    with source.open("wb") as file:
        for _ in range(SIZE_MIB // 16):
            file.write(block)
    with cluster.past_the_balancer(0) as http, ThreadPoolExecutor(1) as pool:
        http.post("/api/file/upload", params={"path": str(tmp_path / "warm")}, files={"file": ("x", block)})
        growth = Growth(cluster)
        with source.open("rb") as file:
            uploaded = pool.submit(
                http.post, "/api/file/upload", params={"path": str(target)}, files={"file": ("x", file)}, timeout=120
            )
            while not uploaded.done():
                growth.look()
        assert uploaded.result().json()["file_size"] == SIZE_MIB * MIB
        with http.stream("GET", "/api/file/download", params={"path": str(target)}) as answer:
            assert same(answer.iter_raw(MIB), block, growth)
    print(f"{SIZE_MIB} MiB up and down: the web server grew by {growth.most_bytes / MIB:.1f} MiB", file=sys.stderr)  # noqa: T201  for the record
    assert growth.most_bytes < 32 * MIB


def same(chunks: Iterator[bytes], block: bytes, growth: Growth) -> bool:
    """Whether all that is received is the block again and again, as often as it was sent."""
    received = 0
    for chunk in chunks:
        growth.look()
        start = received % len(block)
        if (block + block)[start : start + len(chunk)] != chunk:
            return False
        received += len(chunk)
    return received == SIZE_MIB * MIB
