"""A picture of each figure: ours, the limit and the peers as bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Workload, load, median
from benchmarks.table import shown

OWN, LIMIT, PEER = "#2563a8", "#9aa3ad", "#d08a3c"


def draw(workloads: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write an SVG for each figure that was measured; gives the files."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "taskloop"  # the same numbers give the same file
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, measured in workloads.items():
        workload = load(name)
        for figure in workload.figures:
            bars = _bars(workload, figure, measured)
            if bars:
                drawn.append(_draw(workload, figure, bars, folder / f"{name}_{figure.name}.svg"))
    return drawn


def _bars(workload: Workload, figure: Figure, measured: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    found = []
    for who in (*workload.own, "limit", *workload.also, *workload.peers):
        name = figure.limit or figure.name if who == "limit" else figure.name
        value = median(measured, who, name)
        if value is not None:
            color = OWN if who in workload.own else PEER if who in workload.peers else LIMIT
            found.append((who, value, color))
    return found


def _draw(workload: Workload, figure: Figure, bars: list[tuple[str, float, str]], file: Path) -> Path:
    import matplotlib.pyplot as plt

    picture, axes = plt.subplots(figsize=(7.5, 1.1 + 0.38 * len(bars)), layout="constrained")
    widths = [value for _, value, _ in bars]
    places = range(len(bars), 0, -1)
    drawn = axes.barh(places, widths, color=[color for _, _, color in bars], height=0.68)
    axes.bar_label(drawn, labels=[shown(value, figure.unit) for value in widths], padding=4)
    axes.set_yticks(places, [who for who, _, _ in bars])
    if max(widths) > 30 * min(widths) > 0:
        axes.set_xscale("log")
    axes.margins(x=0.18)
    better = "more is better" if figure.more else "less is better"
    title = f"{workload.name.upper()}  {figure.text} ({better})"
    picture.suptitle(title, x=0.01, horizontalalignment="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(file, metadata={"Date": None})
    plt.close(picture)
    return file
