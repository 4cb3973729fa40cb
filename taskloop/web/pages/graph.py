"""The steps of a flow as a picture: layers from left to right, each step behind what it needs. Pure; the template draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from taskloop.runs import FINAL, State
from taskloop.signs import SIGNS, span_text
from taskloop.steps import Step, standing

__all__ = ["Graph", "Node", "graph"]

WIDTH, HEIGHT = 176.0, 46.0
"""Of one step."""
ASIDE, BELOW = 52.0, 14.0
"""Room between two layers, and between two steps of one."""
MOST: Final = 60
"""Steps; of more there is only the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One step, with its place."""

    name: str
    x: float
    y: float
    kind: str
    """Its state; of a flow that is only declared `declared`, or `optional`."""
    words: str
    """What stands below its name."""
    since: datetime | None = None
    """It runs, since then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The whole picture."""

    nodes: Sequence[Node]
    edges: Sequence[tuple[float, float, float, float]]
    """From the right side of a step to the left of one that needs it."""
    width: float
    height: float
    words: str
    """The same as a sentence, for who does not see it."""


def graph(
    facts: Sequence[Mapping[str, Any]], steps: Sequence[Step] | None = None, run: State = State.RUNNING
) -> Graph | None:
    """The picture of a flow of these `facts`, see `JobRecord.steps`; with `steps` that of one run, in the state `run`.

    None where there is nothing to draw, too much, or the run is of another version of the flow. What a step began
    itself, whose place is behind those of the flow, stands in the table alone.
    """
    needs = {one["name"]: list(one["needs"]) for one in facts}
    stand = None if steps is None else {one.name: one for one in steps if one.name in needs or one.place < len(needs)}
    if not needs or len(needs) > MOST or (stand and not stand.keys() <= needs.keys()):
        return None
    try:
        places = _places(needs)
    except CycleError:  # it was stored by a program with other rules
        return None
    optional = {one["name"] for one in facts if one.get("optional")}
    nodes = [_node(name, *places[name], optional=name in optional, stand=stand, run=run) for name in needs]
    edges = [
        (places[before][0] + WIDTH, places[before][1] + HEIGHT / 2, places[name][0], places[name][1] + HEIGHT / 2)
        for name in needs
        for before in needs[name]
    ]
    told = [
        f"{one.name}{', after ' + ' and '.join(needs[one.name]) if needs[one.name] else ''}: {one.words}"
        for one in nodes
    ]
    return Graph(
        nodes=nodes, edges=edges, width=max(one.x for one in nodes) + WIDTH, height=max(one.y for one in nodes) + HEIGHT,
        words="; ".join(told),
    )  # fmt: skip


def _places(needs: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, float]]:
    """Where each step stands: a layer right of all that it needs, level with them as far as there is room."""
    depth: dict[str, int] = {}
    for name in TopologicalSorter(needs).static_order():
        depth[name] = 1 + max((depth[one] for one in needs[name]), default=-1)
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in needs:
        layers[depth[name]].append(name)
    tallest = max(len(layer) for layer in layers)
    rows: dict[str, float] = {}

    def level(name: str) -> float:
        return sum(rows[one] for one in needs[name]) / max(1, len(needs[name]))

    for layer in layers:
        first = (tallest - len(layer)) / 2
        rows.update({name: first + number for number, name in enumerate(sorted(layer, key=level))})
    return {name: (depth[name] * (WIDTH + ASIDE), rows[name] * (HEIGHT + BELOW)) for name in needs}


def _node(name: str, x: float, y: float, *, optional: bool, stand: Mapping[str, Step] | None, run: State) -> Node:
    if stand is None:
        return Node(
            name=name, x=x, y=y, kind="optional" if optional else "declared", words="optional" if optional else ""
        )
    if name not in stand and run in FINAL:
        return Node(name=name, x=x, y=y, kind="skipped", words=f"{SIGNS['skipped'][0]} not begun")
    step = stand.get(name) or Step(name=name)
    state = standing(step, run)
    words = f"{SIGNS[state][0]} {state}"
    since = None
    if step.kept:
        words += ", kept"
    elif state == State.RUNNING:
        since = step.started_at
    elif step.started_at is not None and step.ended_at is not None:
        words += f" {span_text(max(0.0, (step.ended_at - step.started_at).total_seconds()))}"
    if step.attempt > 1:
        words += f", try {step.attempt}"
    return Node(name=name, x=x, y=y, kind=state, words=words, since=since)
