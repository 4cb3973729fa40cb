"""A picture of each figure: ours, the limit and the peers as bars, with lines at what must be and what should be reached.

Growth is one picture of lines: the figure beside ever more jobs and ever more history, divided by the smallest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Workload, load, median
from benchmarks.table import shown

OWN, LIMIT, PEER = "#2563a8", "#9aa3ad", "#d08a3c"
GOALS = {"must": ("#b3261e", "--"), "aim": ("#2e7d32", ":")}


def draw(workloads: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write an SVG for each figure that was measured, and one for growth; gives the files."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "taskloop"  # the same numbers give the same file
    mpl.rcParams["svg.fonttype"] = "none"  # words stay words: a fifth of the size, and they can be searched
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, measured in workloads.items():
        workload = load(name)
        if workload.growth:
            drawn += _growth(workload, measured, folder / f"{name}_growth.svg")
            continue
        for figure in workload.figures:
            bars = _bars(workload, figure, measured)
            if bars:
                goals = _goals(figure, median(measured, "limit", figure.limit or figure.name))
                drawn.append(_draw(workload, figure, bars, goals, folder / f"{name}_{figure.name}.svg"))
    return drawn


def captions(drawn: Sequence[Path], page: Path) -> list[str]:
    """Lines that show the pictures on a page in Markdown."""
    found = []
    for file in drawn:
        name, _, figure = file.stem.partition("_")
        texts = {one.name: one.text for one in load(name).figures}
        text = f"{name.upper()} {texts.get(figure, load(name).title)}"
        found += [f"![{text}]({file.resolve().relative_to(page.resolve().parent).as_posix()})", ""]
    return found[:-1]


def _bars(workload: Workload, figure: Figure, measured: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    found = []
    for who in (*workload.own, "limit", *workload.also, *workload.peers):
        name = figure.limit or figure.name if who == "limit" else figure.name
        value = median(measured, who, name)
        if value is not None:
            color = OWN if who in workload.own else PEER if who in workload.peers else LIMIT
            found.append((who, value, color))
    return found


def _goals(figure: Figure, limit: float | None) -> dict[str, float]:
    """Where the goals lie on the figure's own scale."""
    found = {}
    for name in GOALS:
        goal = getattr(figure, name)
        if goal is not None and (figure.absolute or limit is not None):
            found[name] = goal if figure.absolute else goal * (limit or 0)
    return found


def _draw(
    workload: Workload, figure: Figure, bars: list[tuple[str, float, str]], goals: Mapping[str, float], file: Path
) -> Path:
    import matplotlib.pyplot as plt

    picture, axes = plt.subplots(figsize=(7.5, 1.2 + 0.36 * len(bars)), layout="constrained")
    widths = [value for _, value, _ in bars]
    places = range(len(bars), 0, -1)
    drawn = axes.barh(places, widths, color=[color for _, _, color in bars], height=0.68)
    axes.bar_label(drawn, labels=[shown(value, figure.unit) for value in widths], padding=4)
    axes.set_yticks(places, [who for who, _, _ in bars])
    for name, value in goals.items():
        color, style = GOALS[name]
        axes.axvline(value, color=color, linestyle=style, linewidth=1.2, label=f"{name}: {shown(value, figure.unit)}")
    scale = [*widths, *goals.values()]
    if max(scale) > 30 * min(scale) > 0:
        axes.set_xscale("log")
    axes.margins(x=0.18)
    better = "more is better" if figure.more else "less is better"
    _titled(picture, f"{workload.name.upper()}  {figure.text} ({better})", legend=bool(goals))
    return _saved(picture, axes, file)


def _growth(workload: Workload, measured: Mapping[str, Any], file: Path) -> list[Path]:
    """A panel for each thing that grows; each line is a figure, its first point 1."""
    import matplotlib.pyplot as plt

    known = {one["contestant"] for one in measured["measurements"] if "numbers" in one}
    panels = {what: [one for one in who if one in known] for what, who in workload.growth.items()}
    if not any(len(who) > 1 for who in panels.values()):
        return []
    picture, many = plt.subplots(1, len(panels), figsize=(7.5, 2.9), layout="constrained", sharey=True, squeeze=False)
    for axes, (what, who) in zip(many[0], panels.items(), strict=True):
        for figure in workload.figures:
            found = [median(measured, one, figure.name) for one in who]
            first = found[0]
            if first and None not in found:
                ratios = [first / one if figure.more else one / first for one in found if one]
                axes.plot(range(len(ratios)), ratios, marker="o", label=figure.text)
        must = max(one.must for one in workload.figures if one.must is not None)
        axes.axhline(must, color=GOALS["must"][0], linestyle=GOALS["must"][1], linewidth=1.2, label=f"must: {must:g} ×")
        axes.set_xticks(range(len(who)), ["smallest" if one == "limit" else one for one in who])
        axes.set_xlabel(what)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    many[0][0].set_ylabel("cost, smallest = 1")
    handles, labels = many[0][0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    _titled(picture, f"{workload.name.upper()}  {workload.title} (flat is better)", legend=False)
    return [_saved(picture, many[0][0], file)]


def _titled(picture: Any, title: str, *, legend: bool) -> None:
    picture.suptitle(title, x=0.01, horizontalalignment="left", fontsize=10)
    if legend:
        picture.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=8)


def _saved(picture: Any, axes: Any, file: Path) -> Path:
    import matplotlib.pyplot as plt

    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(file, metadata={"Date": None})
    plt.close(picture)
    return file
