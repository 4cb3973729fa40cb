"""Late, overdue, stuck: how a job keeps its times, judged by its own history; and its condition in one word.

Level 1, pure, plain values: the quickest commands read the store without the engine, and judge by the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

__all__ = ["LATE", "Condition", "Curfew", "Usual", "allowed", "condition", "may_be_stuck", "overdue", "stuck"]

Condition = Literal["ok", "failing", "running", "disabled", "paused", "overdue", "stuck", "never_ran", "orphan"]

LATE: Final = timedelta(seconds=30)
"""What is due or ready for longer than this, and has not begun, is overdue."""
LEAST_RUNS: Final = 20
"""With fewer runs than this nothing is usual yet."""
STUCK_TIMES: Final = 10
LEAST_STUCK: Final = timedelta(minutes=10)


class Usual(NamedTuple):
    """How long the successful attempts of a job take."""

    runs: int
    median: timedelta
    p95: timedelta

    @classmethod
    def of(cls, took_seconds: Sequence[float]) -> Usual:
        """Of the seconds that at least one attempt took."""
        ordered = sorted(took_seconds)
        last = len(ordered) - 1
        return cls(len(ordered), timedelta(seconds=ordered[last // 2]), timedelta(seconds=ordered[round(last * 0.95)]))


def allowed(usual: Usual | None, expect: timedelta | None) -> timedelta | None:
    """How long an attempt may run before it counts as stuck: what the job says, else by its history; None: not known."""
    if expect is not None:
        return expect
    if usual is None or usual.runs < LEAST_RUNS:
        return None
    return max(STUCK_TIMES * usual.p95, LEAST_STUCK)


def may_be_stuck(began_at: datetime | None, now: datetime) -> bool:
    """Whether an attempt runs for so long that its job's history, if there is one, might call it stuck."""
    return began_at is not None and now - began_at > LEAST_STUCK


def stuck(
    began_at: datetime | None, now: datetime, usual: Usual | None, expect: timedelta | None
) -> dict[str, Any] | None:
    """The facts about an attempt that runs for longer than it may; None: it does not."""
    limit = allowed(usual, expect)
    if began_at is None or limit is None or now - began_at <= limit:
        return None
    facts = {"running_seconds": _seconds(now - began_at), "allowed_seconds": _seconds(limit)}
    return facts | ({"usual_seconds": _seconds(usual.median)} if usual is not None else {})


def overdue(at: datetime | None, now: datetime) -> dict[str, Any] | None:
    """The facts about what is due, or ready, since `at` and has not begun; None: it is not overdue."""
    return None if at is None or now - at <= LATE else {"late_seconds": _seconds(now - at)}


def condition(
    *,
    state: str | None,
    enabled: bool,
    paused: bool,
    orphan: bool = False,
    stuck: bool = False,
    overdue: bool = False,
    running: bool = False,
    begun: bool = False,
    failures: int = 0,
    succeeded: bool = False,
) -> Condition:
    """How a job stands, from the state of its newest run (None: it never ran) and what is known of it.

    `running`: whether any of its runs is in hand. `begun`: whether the newest has had an attempt; one that waits for the
    next is at it. Where the newest only waits, it stands as those before have left it: with so many `failures` since it
    `succeeded`, if it ever did.
    """
    waits = state == "waiting" and not begun
    judged: tuple[tuple[bool, Condition], ...] = (
        (orphan, "orphan"),
        (not enabled, "disabled"),
        (paused, "paused"),
        (stuck, "stuck"),
        (overdue, "overdue"),
        (running or state == "running" or (state == "waiting" and begun), "running"),
        (state is None or (waits and not failures and not succeeded), "never_ran"),
        (failures > 0 if waits else state in ("failed", "interrupted"), "failing"),
    )
    return next((word for holds, word in judged if holds), "ok")


class Curfew(NamedTuple):
    """The known end of a worker: what usually takes as long as the time left, or longer, is not begun there any more."""

    ends_at: datetime
    takes: Mapping[str, timedelta]
    """How long each job usually takes; of one that is missing nothing is known, and it may begin."""

    def forbids(self, job: str, now: datetime) -> bool:
        takes = self.takes.get(job)
        return takes is not None and now >= self.ends_at - takes

    def next_at(self, now: datetime) -> datetime | None:
        """When the next job falls under it; None: none does any more."""
        return min((at for takes in self.takes.values() if (at := self.ends_at - takes) > now), default=None)


def _seconds(span: timedelta) -> float:
    return round(span.total_seconds(), 3)
