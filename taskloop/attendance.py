"""Since when somebody has been there to fire a job, and what is known of the time before: of missed fires, why.

Level 4, pure: made of what workers said of themselves. A worker watches over the jobs it has; one of another program on
the same store was there too, but not for ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from taskloop.durations import rfc3339
from taskloop.store_data import Worker

__all__ = ["Attendance"]


class Attendance:
    """Who fires on a store, as one worker has seen it from its start on."""

    def __init__(self, now: datetime, *, gone: Sequence[Worker] = (), others: Sequence[Worker] = ()) -> None:
        """`now`: the start; `gone`: those that had ended by then; `others`: those that lived beside it."""
        self._since = now
        self._gone = [one for one in gone if one.fires]
        self._company = [one for one in others if one.fires]
        self._slept: Mapping[str, Any] = {}

    def since(self, names: Collection[str]) -> datetime:
        """Since when somebody has been there for a job of these names without a break; what was due before was missed."""
        return min([self._since, *(one.started_at for one in self._company if _has(one, names))])

    def outage(self, names: Collection[str]) -> Mapping[str, Any]:
        """What is known of the time before that: `down_since` and `down_seconds`, or nothing."""
        if self._slept:
            return self._slept
        last = max((one.stopped_at or one.beat_at for one in self._gone if _has(one, names)), default=None)
        return {} if last is None or last >= self._since else _down(last, (self._since - last).total_seconds())

    def slept(self, until: datetime, since: datetime, seconds: float) -> None:
        """This worker was not there for so long, nor was anybody: what another has decided meanwhile is due no more."""
        self._since, self._company = until, []
        self._slept = _down(since, seconds)

    def set_back(self, now: datetime) -> None:
        """The wall clock was set back to `now`: this worker was there all the time."""
        self._since = min(self._since, now)


def _has(worker: Worker, names: Collection[str]) -> bool:
    return worker.jobs is None or not worker.jobs.isdisjoint(names)


def _down(since: datetime, seconds: float) -> dict[str, Any]:
    return {"down_since": rfc3339(since), "down_seconds": round(seconds, 1)}
