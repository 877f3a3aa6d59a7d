"""What Linux tells of the processes of one session: who they are, what they listen on, who has which connection."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_ESTABLISHED = "01"
_LISTEN = "0A"
"""States of a connection in `/proc/net/tcp` (Linux, include/net/tcp_states.h)."""


class Process(NamedTuple):
    """One living process."""

    pid: int
    parent_pid: int
    session_id: int
    name: str
    """What it calls itself: `fanout-web-0`, `fanout-runners` (the parent of) `fanout-runner-0`."""
    command: str

    @property
    def native_modules(self) -> set[str]:
        """File names of the shared libraries it has loaded."""
        with suppress(FileNotFoundError, ProcessLookupError):
            maps = (_PROC / str(self.pid) / "maps").read_text()
            return {line.rsplit("/", 1)[-1] for line in maps.splitlines() if ".so" in line}
        return set()


def resident_bytes(pid: int) -> int:
    """Of its memory, how much is in the machine's."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Socket(NamedTuple):
    """One TCP socket on this machine's end."""

    local_port: int
    state: str
    inode: str


def processes_of(session_id: int) -> list[Process]:
    """The living processes of a session; the dead that nobody has collected are left out."""
    return [process for process in _all_processes() if process.session_id == session_id]


def listeners(port: int) -> int:
    """How many sockets listen on a port."""
    return sum(each.local_port == port and each.state == _LISTEN for each in _tcp_sockets())


def connections(port: int, processes: list[Process]) -> Counter[int]:
    """How many connections to a port each process has accepted, by process id."""
    inodes = {each.inode for each in _tcp_sockets() if each.local_port == port and each.state == _ESTABLISHED}
    return Counter({process.pid: len(inodes & _inodes(process.pid)) for process in processes})


def _all_processes() -> Iterator[Process]:
    for directory in _PROC.glob("[0-9]*"):
        # It may end between any two of these lines.
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name, in parentheses, may hold anything (proc(5)).
            head, _, rest = (directory / "stat").read_text().rpartition(")")
            fields = rest.split()
            state, parent_pid, _, session_id = fields[:4]
            if state in "ZX":
                continue
            yield Process(
                pid=int(directory.name),
                parent_pid=int(parent_pid),
                session_id=int(session_id),
                name=head.partition("(")[2],
                command=(directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"),
            )


def _tcp_sockets() -> list[Socket]:
    lines = (_PROC / "net" / "tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return [Socket(local_port=int(row[1].rpartition(":")[2], 16), state=row[3], inode=row[9]) for row in rows]


def _inodes(pid: int) -> set[str]:
    """The inodes of the sockets a process has open."""
    found: set[str] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            with suppress(FileNotFoundError):
                kind, _, inode = os.readlink(descriptor).partition(":")
                if kind == "socket":
                    found.add(inode.strip("[]"))
    return found
