"""How cost grows, drawn from `bench/results`: one PNG a part in `docs/plots`. Runs where matplotlib is:

.venv-bench/bin/python -m bench.plots
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

ROOT = Path(__file__).resolve().parent.parent
PLOTS = ROOT / "docs" / "plots"

GROWTH = {
    "conversations": (
        "conversations on disk",
        ["list 20 conversations, CPU ms", "create conversation, CPU ms", "start to ready, s"],
    ),
    "events": (
        "events in the conversation",
        [
            "page of 100 events, CPU ms",
            "search by text, CPU ms",
            "replay, CPU ms",
            "POST message, CPU ms",
            "newest 100 after a message, p50 ms",
            "navigate, CPU ms",
            "fork, CPU ms",
        ],
    ),
    "sockets": ("sockets on one conversation", ["delivery, CPU µs", "delivery with its POST, CPU µs"]),
    "commands": ("shell commands before", ["execute_bash_command, CPU ms", "newest 20 bash events, CPU ms"]),
}
SCALING = {"web_workers": "web workers", "runners": "runners"}
COLORS = {"fanout": "tab:blue", "peer": "tab:orange"}
LABELS = {"fanout": "Fanout", "peer": "published server"}


def figures_of(part: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "bench" / "results" / f"{part}.json").read_text())
    return dict(content["figures"])


def draw_growth(part: str, axis: str, names: list[str]) -> None:
    """Both sides over the size; cost on a logarithmic scale, since the sides are far apart."""
    curves = figures_of(part)
    _, axes = pyplot.subplots(1, len(names), figsize=(3.6 * len(names), 3.2), squeeze=False)
    for plot, name in zip(axes[0], names, strict=True):
        for side, curve in curves.items():
            sizes = [max(int(size), 1) for size in curve]  # the scale has no 0
            values = [max(figures[name], 0.01) for figures in curve.values()]
            plot.plot(sizes, values, marker="o", color=COLORS[side], label=LABELS[side])
        plot.set(title=name, xlabel=axis, xscale="log", yscale="log")
        plot.title.set_fontsize(9)
        plot.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    _save(part)


def draw_scaling(part: str, axis: str) -> None:
    """Ours, with what would be linear from the first."""
    curve = figures_of(part)
    names = [name for name in curve["1"] if "per second" in name]
    _, axes = pyplot.subplots(1, len(names), figsize=(3.6 * len(names), 3.2), squeeze=False)
    counts = [int(count) for count in curve]
    for plot, name in zip(axes[0], names, strict=True):
        values = [figures[name] for figures in curve.values()]
        plot.plot(counts, values, marker="o", color=COLORS["fanout"], label="measured")
        plot.plot(counts, [values[0] * count for count in counts], "--", color="grey", label="linear")
        plot.set(title=name, xlabel=axis, ylim=(0, None), xticks=counts)
        plot.title.set_fontsize(9)
        plot.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    _save(part)


def _save(part: str) -> None:
    PLOTS.mkdir(exist_ok=True)
    pyplot.tight_layout()
    pyplot.savefig(PLOTS / f"{part}.png", dpi=110)
    pyplot.close()


def main() -> None:
    for part, (axis, names) in GROWTH.items():
        draw_growth(part, axis, names)
    for part, axis in SCALING.items():
        draw_scaling(part, axis)


if __name__ == "__main__":
    main()
