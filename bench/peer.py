"""The published server, `openhands-agent-server`, and ours side by side, to compare within one run.

Wants a virtual environment with the peer in the same version as our SDK; `FANOUT_BENCH_PEER` names its Python:

    python3 -m venv /tmp/peer
    /tmp/peer/bin/pip install openhands-agent-server==1.58.0 openhands-sdk==1.58.0 openhands-tools==1.58.0
    FANOUT_BENCH_PEER=/tmp/peer/bin/python make bench
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.server_process import COMMAND, Server

PEER = "peer"
OURS = "fanout"


def commands() -> dict[str, Sequence[str]]:
    """How each server is started, without its address. Raises SystemExit when nobody said where the peer is."""
    python = os.environ.get("FANOUT_BENCH_PEER")
    if python is None:
        raise SystemExit("FANOUT_BENCH_PEER must name the Python of an environment with openhands-agent-server")
    return {OURS: COMMAND, PEER: [python, "-m", "openhands.agent_server"]}


@contextmanager
def serving(name: str, prepare: Callable[[Path], None] = lambda directory: None) -> Iterator[Server]:
    """One of the two, as a single process, in a new directory that `prepare` may fill."""
    directory = Path(tempfile.mkdtemp(prefix=f"fanout-bench-{name}-"))
    prepare(directory)
    with Server(directory, command=commands()[name]) as server:
        yield server


def cpu_seconds(server: Server) -> float:
    """Of the server's processes and of those they have waited for."""
    ticks = 0
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(directory.name)) == server.pid:
                fields = (directory / "stat").read_text().rsplit(")", 1)[1].split()
                ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime: proc(5)
        except OSError:
            continue  # it has ended meanwhile
    return ticks / os.sysconf("SC_CLK_TCK")
