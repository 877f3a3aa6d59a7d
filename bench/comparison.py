"""One round of one side: a single process with 300 conversations on disk, one of them of 1,500 events."""

from __future__ import annotations

from bench import reading, writing
from bench.delivery import SOCKETS_AT_THE_PEER, deliveries
from bench.sides import Figures
from bench.stored import Template, serving_long

CONVERSATIONS = 300
EVENTS = 1_500

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
    "/alive, CPU ms": 10,
}
"""How many times less than the published server it should be: the aim, whatever is measured."""


def measure(side: str, template: Template) -> Figures:
    """All figures, in an order that leaves little behind for the next."""
    with serving_long(side, template, EVENTS, others=CONVERSATIONS - 1) as (subject, one):
        return {
            **reading.log(subject, one, EVENTS),
            **reading.conversations(subject),
            **reading.alive(subject),
            **writing.creating(subject),
            **writing.posting(subject),
            **writing.stepping(subject),
            **writing.shell(subject),
            **deliveries(subject, SOCKETS_AT_THE_PEER),
        }
