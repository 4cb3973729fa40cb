"""What was measured, as one aligned table: our figures against limit and goal, and below them the peers'."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from benchmarks.harness import WORKLOADS, Figure, Workload, load, median, values

HEAD = ("what", "who", "figure", "lowest–highest", "to limit", "to ours", "must / aim", "reached")
NUMERIC = frozenset(("figure", "lowest–highest", "to limit", "to ours", "must / aim"))


def lines(workloads: Mapping[str, Any]) -> list[str]:
    """The table in Markdown, its columns aligned."""
    rows = [row for name in WORKLOADS if name in workloads for row in _rows(load(name), workloads[name])]
    return aligned(HEAD, rows, NUMERIC)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Container[str]) -> list[str]:
    """A table in Markdown; the columns of these heads to the right."""
    right = [name in numeric for name in head]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = ["-" * (width + 1) + (":" if is_right else "-") for is_right, width in zip(right, widths, strict=True)]
    return [_line(head, widths, right), "|" + "|".join(rule) + "|", *(_line(row, widths, right) for row in rows)]


def details(workloads: Mapping[str, Any]) -> list[str]:
    """What workloads tell beside their figures."""
    found = [(load(name).details, measured) for name, measured in workloads.items()]
    return [line for tell, measured in found if tell is not None for line in ("", *tell(measured))]


def notes(workloads: Mapping[str, Any]) -> list[str]:
    """Who was left out, and what went wrong."""
    found = []
    for name, measured in workloads.items():
        peers = load(name).peers
        for peer in measured["absent"]:
            mend = f" ({peers[peer].mend})" if peer in peers else ""
            found.append(f"{name.upper()}: {peer} left out, it is not installed{mend}")
        failed = {one["contestant"]: one["error"] for one in measured["measurements"] if "error" in one}
        found += [f"{name.upper()}: {who} gave no figure: {error}" for who, error in failed.items()]
        found += [f"{name.upper()}: {line}" for line in _unfinished(measured)]
    return found


def _unfinished(measured: Mapping[str, Any]) -> list[str]:
    """Who did not start all that was due: its figures are of those that it did start."""
    whole = {}
    for one in measured["measurements"]:
        numbers = one.get("numbers", {})
        if numbers.get("started", 0) < 0.99 * numbers.get("expected", 0):
            whole[one["contestant"]] = f"started only {numbers['started']:g} of {numbers['expected']:g} in time"
    return [f"{who} {text}" for who, text in whole.items()]


def _line(row: Sequence[str], widths: list[int], right: list[bool]) -> str:
    cells = [
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(row, widths, right, strict=True)
    ]
    return "| " + " | ".join(cells) + " |"


def _rows(workload: Workload, measured: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for figure in workload.figures:
        limit = median(measured, "limit", figure.limit or figure.name)
        ours = median(measured, next(iter(workload.own)), figure.name)
        what = f"{workload.name.upper()} {figure.text}"
        for who in (*workload.own, "limit", *workload.also, *workload.peers):
            name = figure.limit or figure.name if who == "limit" else figure.name
            value = median(measured, who, name)
            own = who in workload.own
            if value is None and (not own or any(median(measured, one, name) is not None for one in workload.own)):
                continue  # of ours too, where the figure is that of another of them
            ratio = value / limit if limit and value is not None else None
            rows.append(
                (
                    what,
                    who,
                    "not there yet" if value is None else shown(value, figure.unit),
                    _spread(values(measured, who, name)),
                    "" if ratio is None or who == "limit" else f"{number(ratio)} ×",
                    f"{number(value / ours)} ×" if who in workload.peers and ours and value is not None else "",
                    _goals(figure) if own else "",
                    _reached(figure, value, ratio) if own and value is not None else "",
                )
            )
            what = ""
    return rows


def number(value: float) -> str:
    """With three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def shown(value: float, unit: str) -> str:
    return f"{number(value)} {unit}"


def _spread(found: list[float]) -> str:
    return f"{number(min(found))}–{number(max(found))}" if len(found) > 1 else ""


def _goals(figure: Figure) -> str:
    goals = [number(goal) for goal in (figure.must, figure.aim) if goal is not None]
    return f"{' / '.join(goals)} {figure.unit if figure.absolute else '×'}" if goals else ""


def _reached(figure: Figure, value: float, ratio: float | None) -> str:
    measured = value if figure.absolute else ratio
    if measured is None:
        return ""
    for word, goal in (("aim", figure.aim), ("must", figure.must)):
        if goal is not None and (measured >= goal if figure.more else measured <= goal):
            return word
    return "no"
