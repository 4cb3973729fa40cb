"""What the charts of a job show: how long its runs took, and how the days went. Pure; a script draws, a table says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from taskloop.runs import Run, State
from taskloop.store_data import DayCount

__all__ = ["Day", "days", "durations_data", "points", "success_data"]


@dataclass(slots=True)
class Day:
    """How the runs of one day of UTC ended."""

    day: date
    counts: Counter[State] = field(default_factory=Counter)
    took_seconds: float = 0.0
    """Of those that succeeded, together."""

    @property
    def succeeded(self) -> int:
        return self.counts[State.SUCCEEDED]

    @property
    def failed(self) -> int:
        return self.counts[State.FAILED] + self.counts[State.INTERRUPTED]

    @property
    def success(self) -> float | None:
        """The share that succeeded, of those that succeeded or failed; None: none did."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None

    @property
    def mean_seconds(self) -> float | None:
        return self.took_seconds / self.succeeded if self.succeeded else None


def days(counts: Iterable[DayCount], last: date, number: int) -> list[Day]:
    """Each of the `number` days up to `last`, also those without a run; the oldest first."""
    found = {one: Day(one) for one in (last - timedelta(days=back) for back in reversed(range(number)))}
    for one in counts:
        if one.day in found:
            found[one.day].counts[one.state] += one.runs
            if one.state is State.SUCCEEDED:
                found[one.day].took_seconds += one.took_seconds
    return list(found.values())


def points(runs: Sequence[Run]) -> list[tuple[float, float, Run]]:
    """When each run ended that had begun, and the seconds from its first start to there; the oldest end first."""
    found = [
        (one.ended_at.timestamp(), max(0.0, (one.ended_at - one.started_at).total_seconds()), one)
        for one in runs
        if one.ended_at is not None and one.started_at is not None
    ]
    return sorted(found, key=lambda one: one[:2])


def durations_data(runs: Sequence[Run], spread: Mapping[str, float | None]) -> dict[str, Any]:
    """For the script: instants, the seconds of runs that succeeded and of those that did not, run ids; the percentiles."""
    found = points(runs)
    return {
        "at": [round(at, 3) for at, _, _ in found],
        "well": [round(took, 3) if run.state is State.SUCCEEDED else None for _, took, run in found],
        "ill": [round(took, 3) if run.state is not State.SUCCEEDED else None for _, took, run in found],
        "run": [run.id for _, _, run in found],
        "p50": spread["p50"],
        "p95": spread["p95"],
    }


def success_data(found: Sequence[Day]) -> dict[str, Any]:
    """For the script: the days as seconds since 1970, how many runs succeeded on each, and how many failed."""
    return {
        "at": [(one.day - date(1970, 1, 1)).days * 86400 for one in found],
        "well": [one.succeeded for one in found],
        "ill": [one.failed for one in found],
    }
