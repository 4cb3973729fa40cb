"""The steps of a flow in text: what needs what, and how far a run of it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskloop.cli.output import Cell, Output, json_text, since_text
from taskloop.flows import step_record
from taskloop.runs import State
from taskloop.steps import Step, StepState, standing

__all__ = ["picture", "step_rows", "step_to_go_on_at"]


def picture(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Steps in layers, each of which needs only what stands above it: `2  sound    <- fetch`."""
    width = max(len(one["name"]) for one in steps)
    layers: dict[str, int] = {}
    left = list(steps)
    while left:
        now = [one for one in left if all(name in layers for name in one["needs"])] or left
        depth = 1 + max(layers.values(), default=0)
        layers.update({one["name"]: depth for one in now})
        left = [one for one in left if one not in now]
    lines, shown = [], 0
    for one in sorted(steps, key=lambda one: layers[one["name"]]):
        number = f"{layers[one['name']]}" if layers[one["name"]] != shown else ""
        shown = layers[one["name"]]
        needs = f"  ← {', '.join(one['needs'])}" if one["needs"] else ""
        extra = [
            word
            for word, said in (
                ("optional", one["optional"]),
                (one["executor"], one["executor"] not in ("loop", "thread")),
            )
            if said
        ]
        said = f"  ({', '.join(extra)})" if extra else ""
        lines.append(f"{number:>2}  {one['name']:<{width}}{needs}{said}".rstrip())
    return lines


def step_to_go_on_at(flow: Sequence[Mapping[str, Any]], steps: Sequence[Step]) -> str | None:
    """The step of a flow, as it is declared now, at which to begin a run again so that it calls what is left.

    None: nothing is to be taken over, or nothing is left.
    """
    done = {one.name for one in steps if one.state is StepState.SUCCEEDED}
    left = [one["name"] for one in flow if one["name"] not in done and not one["optional"]]
    return left[0] if left and done.intersection(one["name"] for one in flow) else None


def step_rows(out: Output, steps: Sequence[Step], run: State) -> list[list[Cell]]:
    """One row a step of a run of that state."""
    rows: list[list[Cell]] = []
    for one in steps:
        record = step_record(one)
        told = record["error"] or ("" if one.result is None else json_text(one.result))
        took = since_text(record["started_at"], record["completed_at"])
        tries = str(one.attempt) if one.attempt > 1 else ""
        rows.append(
            [
                one.name,
                out.state(standing(one, run), "kept" if one.kept else None),
                took,
                tries,
                told.partition("\n")[0][:80],
            ]
        )
    return rows
