"""The figures as Markdown."""

from __future__ import annotations

from typing import Any

from bench.comparison import WANTED
from bench.sides import OURS, PEER


def as_tables(part: str, result: Any) -> str:
    """One table; two sides side by side with their ratio, several sizes or names as columns."""
    if part in ("comparison", "in_memory", "liveness"):
        return _compared(result)
    if part in ("conversations", "events", "sockets", "commands"):
        return "\n".join(_by_column(f"{part}, {side}", curve) for side, curve in result.items())
    return _by_column(part, result)


def _compared(result: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, ours in result[OURS].items():
        peer = result[PEER][name]
        wanted = WANTED.get(name)
        ratio = f"{peer / ours:.1f}" if ours > 0 else "–"
        rows.append([name, _number(ours), _number(peer), ratio, f"{wanted:g}" if wanted else ""])
    return _table(["figure", "Fanout", "published server", "ratio", "aim"], rows)


def _by_column(head: str, columns: dict[Any, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    rows = [
        [name, *(_number(figures[name]) if name in figures else "" for figures in columns.values())] for name in names
    ]
    return _table([head, *map(str, columns)], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
