"""Both sides as a single process with 300 conversations on disk, one of them of 1,500 events, asked in turn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from bench import reading, writing
from bench.delivery import SOCKETS_AT_THE_PEER, deliveries
from bench.sides import Figures, Subject
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

Rounds = dict[str, list[Figures]]
"""The figures of each round, by side."""
Step = Callable[[Subject, Conversation], Figures]

STEPS: tuple[Step, ...] = (
    lambda subject, one: reading.log(subject, one, EVENTS),
    lambda subject, one: reading.conversations(subject),
    lambda subject, one: reading.alive(subject),
    lambda subject, one: writing.creating(subject),
    lambda subject, one: writing.posting(subject),
    lambda subject, one: writing.stepping(subject),
    lambda subject, one: writing.shell(subject),
    lambda subject, one: deliveries(subject, SOCKETS_AT_THE_PEER),
)


def measure(templates: dict[str, Template], rounds: int, say: Callable[[str], None]) -> Rounds:
    """All figures of either side.

    Both servers are up all the time, and each is asked for a figure right after the other: what the machine does to
    one in a slow minute, it does to both.
    """
    found: Rounds = {side: [{} for _ in range(rounds)] for side in templates}
    with ExitStack() as stack:
        servers = {
            side: stack.enter_context(serving_long(side, template, EVENTS, others=CONVERSATIONS - 1))
            for side, template in templates.items()
        }
        for turn in range(rounds):
            for step in STEPS:
                for side, (subject, one) in servers.items():
                    found[side][turn] |= step(subject, one)
            say(f"round {turn + 1} of {rounds}")
        for side, (subject, _) in servers.items():
            add_commands(side, subject.server.bash_events_path, COMMANDS)
        for turn in range(rounds):
            for side, (subject, _) in servers.items():
                found[side][turn] |= writing.shell(subject, _AFTER_OTHERS)
    return found
