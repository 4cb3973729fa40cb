"""The strip of a job's last runs: a bar each, the newest at the right, as high as it took on the job's own scale. Pure.

What failed has a foot below the line: colour alone tells nobody anything. A page of many jobs draws all bars of a state
as one shape, for a link a bar would make it ten times as long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from taskloop.runs import Run, State
from taskloop.store_data import Brief

__all__ = ["Bar", "Strip", "brief", "strip", "took"]

STEP: Final = 6
WIDTH: Final = 5
LINE: Final = 20
FOOT: Final = 4
LEAST: Final = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One run."""

    run: Brief
    path: str


@dataclass(frozen=True, slots=True)
class Strip:
    """The bars of runs, and in words what they say."""

    width: int
    words: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        return LINE + FOOT

    @property
    def shapes(self) -> dict[str, str]:
        """For each state there is, the path of all its bars."""
        found: dict[str, str] = {}
        for one in self.bars:
            found[one.run.state.value] = found.get(one.run.state.value, "") + one.path
        return found


def strip(runs: Sequence[Brief]) -> Strip:
    """Of runs, the newest first."""
    each = [one.took_seconds or 0.0 for one in runs]
    top = max([0.001, *each])
    bars = [
        Bar(one, _path((len(runs) - 1 - place) * STEP, max(LEAST, round(LINE * each[place] / top)), one.state))
        for place, one in enumerate(runs)
    ]
    counts = Counter(one.state.value for one in runs)
    words = ", ".join(f"{counts[state.value]} {state.value}" for state in State if counts[state.value])
    which = "run" if len(runs) == 1 else f"{len(runs)} runs"
    return Strip(STEP * len(runs), f"The last {which}: {words}", bars)


def _path(x: int, height: int, state: State) -> str:
    foot = FOOT if state in (State.FAILED, State.INTERRUPTED) else 0
    return f"M{x} {LINE - height}h{WIDTH}v{height + foot}h-{WIDTH}z"


def took(run: Run) -> float | None:
    """Seconds from a run's first start to its end, all attempts and the waits between; None: it has not ended, or never began."""
    if run.ended_at is None or run.started_at is None:
        return None
    return max(0.0, (run.ended_at - run.started_at).total_seconds())


def brief(run: Run) -> Brief:
    """As much of a run as its bar shows."""
    return Brief(run.id, run.state, took(run))
