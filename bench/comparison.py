"""Both sides as a single process with 300 conversations on disk, one of them of 1,500 events, asked in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench import reading, writing
from bench.delivery import SOCKETS_AT_THE_PEER, deliveries
from bench.sides import OURS, PEER, Figures, Subject, medians, serving
from bench.stored import Template, add_commands, serving_long
from tests.integration.contract.conversations import Conversation

CONVERSATIONS = 300
EVENTS = 1_500
COMMANDS = 1_000
_AFTER_OTHERS = f" after {COMMANDS:,} others"

WANTED: Figures = {
    f"delivery at {SOCKETS_AT_THE_PEER} sockets, CPU µs": 8,
    f"delivery at {SOCKETS_AT_THE_PEER} sockets with its POST, CPU µs": 4,
    "page of 100 events, CPU ms": 10,
    "search by text, CPU ms": 5,
    "replay, CPU ms": 8,
    "list 20 conversations, CPU ms": 6,
    "POST message, CPU ms": 2,
    "create conversation, CPU ms": 1.5,
    "agent step, CPU ms": 1.3,
    f"/alive while {writing.AGENTS} agents run, p99 ms": 20,
    "execute_bash_command, CPU ms": 3,
    f"execute_bash_command{_AFTER_OTHERS}, CPU ms": 3,
    "/alive, CPU ms": 10,
}
"""How many times less than the published server it should be: the aim, whatever is measured."""

STEPS: tuple[Callable[[tuple[Subject, Conversation]], Figures], ...] = (
    lambda served: reading.log(*served, EVENTS),
    lambda served: reading.conversations(served[0]),
    lambda served: reading.alive(served[0]),
    lambda served: writing.creating(served[0]),
    lambda served: writing.posting(served[0]),
    lambda served: writing.stepping(served[0]),
    lambda served: writing.shell(served[0]),
    lambda served: deliveries(served[0], SOCKETS_AT_THE_PEER),
)
WRITING: tuple[Callable[[Subject], Figures], ...] = (
    writing.creating,
    writing.posting,
    lambda subject: deliveries(subject, SOCKETS_AT_THE_PEER),
)
MEMORY = Path("/dev/shm")
"""A file system in memory, on every Linux."""


def everything(templates: dict[str, Template], rounds: int) -> dict[str, Figures]:
    """All figures of either side."""
    with ExitStack() as stack:
        servers = {
            side: stack.enter_context(serving_long(side, template, EVENTS, others=CONVERSATIONS - 1))
            for side, template in templates.items()
        }
        found = _in_turn(servers, STEPS, rounds)
        for side, (subject, _) in servers.items():
            add_commands(side, subject.server.bash_events_path, COMMANDS)
        later = _in_turn(servers, [lambda served: writing.shell(served[0], _AFTER_OTHERS)], rounds)
        return {side: found[side] | later[side] for side in servers}


def in_memory(rounds: int) -> dict[str, Figures]:
    """What clients write, with the data of either side in memory: without what a disk makes of it."""
    with tempfile.TemporaryDirectory(dir=MEMORY, ignore_cleanup_errors=True) as name, ExitStack() as stack:
        servers = {side: stack.enter_context(serving(side, below=Path(name))) for side in (OURS, PEER)}
        return _in_turn(servers, WRITING, rounds)


def _in_turn[S](servers: Mapping[str, S], steps: Iterable[Callable[[S], Figures]], rounds: int) -> dict[str, Figures]:
    """Medians of the rounds.

    All servers are up all the time, and each is asked for a figure right after the other: what the machine does to one
    in a slow minute, it does to all.
    """
    found: dict[str, list[Figures]] = {side: [{} for _ in range(rounds)] for side in servers}
    for turn in range(rounds):
        for step in steps:
            for side, server in servers.items():
                found[side][turn] |= step(server)
    return {side: medians(each) for side, each in found.items()}
