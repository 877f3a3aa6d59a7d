"""The two servers that are compared in one run: ours, and the published `openhands-agent-server` of the same SDK.

The published one lives in an environment of its own, `scripts/install_bench.sh` makes it; none of it is imported here.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversations
from tests.server_process import FANOUT, REPOSITORY, Server

OURS = "fanout"
PEER = "peer"
COMMANDS = {
    OURS: [*FANOUT, "serve"],
    PEER: [str(REPOSITORY / ".venv-bench/bin/python"), "-m", "openhands.agent_server"],
}

Figures = dict[str, float]
"""What was measured, by name; the name ends in the unit."""


def medians(rounds: Sequence[Figures]) -> Figures:
    """Of each figure."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


class Subject(NamedTuple):
    """A running server under measurement, with what a client of it needs."""

    server: Server
    http: httpx.Client
    llm: ScriptedLlm

    @property
    def create(self) -> Conversations:
        return Conversations(self.http, self.llm, str(self.server.directory / "project"))


@contextmanager
def serving(
    side: str,
    prepare: Callable[[Path], object] = lambda conversations_path: None,
    environment: Mapping[str, str] | None = None,
    *,
    below: Path | None = None,
) -> Iterator[Subject]:
    """One of the two in a new directory, as a single process unless `environment` says otherwise.

    The directory stays.

    Args:
        prepare: fills the folder of the conversations before the server starts.
        below: where the directory is made; the system's for temporary files if not given.
    """
    settings = {"OH_MAX_CONCURRENT_RUNS": "64", **(environment or {})}
    with ScriptedLlm() as llm:
        server = Server(Path(tempfile.mkdtemp(prefix=f"{side}-", dir=below)), settings, COMMANDS[side])
        server.conversations_path.mkdir()
        prepare(server.conversations_path)
        with server, httpx.Client(base_url=server.url, timeout=300, trust_env=False) as http:
            yield Subject(server, http, llm)


def _processes(session_id: int) -> Iterator[Path]:
    """The /proc folders of the processes of one session: a server's, for each has a session of its own."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(directory.name)) == session_id:
                yield directory
        except OSError:
            continue  # it has ended meanwhile


def cpu_seconds(session_id: int) -> float:
    """Of a session's processes and of those that they have waited for."""
    ticks = 0
    for directory in _processes(session_id):
        try:
            fields = (directory / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime: proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mib(session_id: int, name: str | None = None) -> float:
    """Sum of the proportional set sizes (what several share counts once) of a session, or of those with a name."""
    kib = 0
    for directory in _processes(session_id):
        try:
            if name is not None and (directory / "comm").read_text().strip() != name:
                continue
            lines = (directory / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024
