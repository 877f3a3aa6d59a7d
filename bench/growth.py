"""How cost grows: with conversations on disk, events in one, sockets on one, commands in the past, for either side."""

from __future__ import annotations

from collections.abc import Callable

from bench import reading, writing
from bench.clock import cost
from bench.delivery import SOCKETS_AT_THE_PEER, deliveries
from bench.sides import OURS, PEER, Figures, Subject, serving
from bench.starting import timed_start
from bench.stored import Template, add_commands, serving_long

CONVERSATIONS = (10, 100, 1_000, 10_000)
EVENTS = (100, 1_000, 10_000, 30_000)
SOCKETS = (1, 10, 40, 200, 1_000)
COMMANDS = (0, 1_000, 10_000)

Curve = dict[int, Figures]


def conversations(templates: dict[str, Template]) -> dict[str, Curve]:
    """Lists, creates and the start, by how many conversations there are."""
    return _curves(CONVERSATIONS, templates, _with_conversations)


def events(templates: dict[str, Template]) -> dict[str, Curve]:
    """Reads, messages and moves in one conversation, by its length."""
    return _curves(EVENTS, templates, _with_events)


def sockets() -> dict[str, Curve]:
    """Deliveries, by how many watch; the published server takes 49 at most."""
    found: dict[str, Curve] = {OURS: {}, PEER: {}}
    for side, curve in found.items():
        with serving(side) as subject:
            for count in SOCKETS:
                if side == OURS or count <= SOCKETS_AT_THE_PEER:
                    figures = deliveries(subject, count, max(40, min(400, 4_000 // count)))
                    curve[count] = {name.replace(f" at {count} sockets", ""): each for name, each in figures.items()}
    return found


def commands() -> dict[str, Curve]:
    """Shell commands, by how many were run before."""
    found: dict[str, Curve] = {OURS: {}, PEER: {}}
    for count in COMMANDS:
        for side, curve in found.items():
            with serving(side) as subject:
                add_commands(side, subject.server.bash_events_path, count)
                curve[count] = writing.shell(subject) | reading.commands(subject)
    return found


def _curves(
    sizes: tuple[int, ...], templates: dict[str, Template], measure: Callable[[str, Template, int], Figures]
) -> dict[str, Curve]:
    return {side: {size: measure(side, template, size) for size in sizes} for side, template in templates.items()}


def _with_conversations(side: str, template: Template, count: int) -> Figures:
    with timed_start(side, lambda path: template.copies(path, count)) as (subject, seconds):
        return {
            "start to ready, s": seconds,
            **reading.conversations(subject),
            **cost(subject.server, "create conversation", 10, subject.create),
        }


def _with_events(side: str, template: Template, length: int) -> Figures:
    with serving_long(side, template, length) as (subject, one):
        figures = reading.log(subject, one, length, repeats=100)
        middle = _event_in_the_middle(subject, one.path)
        return {
            **figures,
            **cost(subject.server, "POST message", 20, lambda: one.send("one more"), warm_up=2),
            **reading.newest_after_each_message(subject, one, 20),
            **cost(subject.server, "navigate", 5, lambda: _post(subject, f"{one.path}/navigate", event_id=middle)),
            **cost(subject.server, "fork", 1, lambda: _post(subject, f"{one.path}/fork"), warm_up=0),
        }


def _event_in_the_middle(subject: Subject, path: str) -> str:
    items = subject.http.get(f"{path}/events/search", params=reading.NEWEST).raise_for_status().json()["items"]
    return str(items[50]["id"])


def _post(subject: Subject, path: str, **content: str) -> None:
    subject.http.post(path, json=content).raise_for_status()
