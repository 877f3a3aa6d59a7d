"""Fanout beside the published server, in alternating rounds on one machine; then what more processes bring, and growth.

    make bench                                      # everything, about 15 minutes
    .venv/bin/python -m bench --rounds 1 --parts comparison,limits

Writes `bench/results/<part>.json`, and prints each part's figures as tables when it is done. CPU is that of a server's
whole process tree; the load generator and the scripted LLM are in this process and share the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import comparison, growth, limits, scaling, starting
from bench.delivery import deliveries
from bench.sides import OURS, PEER, Figures, medians, serving
from bench.stored import Template
from bench.tables import as_tables
from bench.writing import liveness

RESULTS = Path(__file__).parent / "results"

Templates = dict[str, Template]


def against_limits(templates: Templates, rounds: int) -> dict[str, Figures]:
    """Ours, and what the bare parts take."""
    found: dict[str, list[Figures]] = {OURS: [], "limit": []}
    for _ in range(rounds):
        found["limit"].append(limits.all_limits())
        with serving(OURS) as subject:
            found[OURS].append(deliveries(subject, limits.SOCKETS, limits.MESSAGES))
    return {name: medians(each) for name, each in found.items()}


def while_agents_run(templates: Templates, rounds: int) -> dict[str, Figures]:
    """Of a web worker of ours, and of the published server, whose agents are in the same process."""
    found: dict[str, list[Figures]] = {OURS: [], PEER: []}
    for _ in range(rounds):
        found[OURS].append(scaling.web_worker_while_agents_run())
        with serving(PEER) as subject:
            found[PEER].append(liveness(subject))
    return {side: medians(each) for side, each in found.items()}


def starts(templates: Templates, rounds: int) -> dict[str, Figures]:
    """Roles of ours, and either side as a whole."""
    found: dict[str, list[Figures]] = {"role": [], OURS: [], PEER: []}
    for _ in range(rounds):
        found["role"].append(starting.roles())
        for side, figures in starting.whole_servers().items():
            found[side].append(figures)
    return {name: medians(each) for name, each in found.items()}


PARTS: dict[str, Callable[[Templates, int], Any]] = {
    "comparison": comparison.everything,
    "in_memory": lambda templates, rounds: comparison.in_memory(rounds),
    "limits": against_limits,
    "liveness": while_agents_run,
    "starts": starts,
    "web_workers": lambda templates, rounds: scaling.web_workers(templates[OURS], rounds),
    "runners": lambda templates, rounds: scaling.runners(),
    "conversations": lambda templates, rounds: growth.conversations(templates),
    "events": lambda templates, rounds: growth.events(templates),
    "sockets": lambda templates, rounds: growth.sockets(),
    "commands": lambda templates, rounds: growth.commands(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Fanout beside the published server.")
    parser.add_argument("--rounds", type=int, default=3, help="of those figures that are medians")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of: {', '.join(PARTS)}")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fanout-bench-", ignore_cleanup_errors=True) as name:
        # What servers leave behind goes at the very end. A file system without a journal (ext4) does not take an inode
        # again that was freed within the last minutes, and looks at each of them at whoever creates a file.
        tempfile.tempdir = name
        templates = {side: Template(side, Path(name) / "templates" / side) for side in (OURS, PEER)}
        for part in wanted.parts.split(","):
            begin = time.monotonic()
            result = PARTS[part](templates, wanted.rounds)
            _say(f"{part}: {time.monotonic() - begin:.0f} s")
            _keep(part, wanted.rounds, result)
            print(as_tables(part, result))  # noqa: T201  the result


def _keep(part: str, rounds: int, result: Any) -> None:
    content = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "rounds": rounds,
        "figures": result,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{part}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _say(progress: str) -> None:
    print(progress, file=sys.stderr)  # noqa: T201  progress


if __name__ == "__main__":
    main()
