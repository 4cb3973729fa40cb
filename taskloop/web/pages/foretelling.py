"""What a switch will do, before it is thrown: the fires that it drops, and those that it holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from taskloop.policy import Policy
from taskloop.schedules import Schedule, next_due

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

__all__ = ["Count", "count_due", "fires_of_a_day", "held"]

MOST: Final = 1000
"""Fires that are counted."""
MOST_SCHEDULES: Final = 200
LONGEST_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Count:
    """A number of fires; `complete` False: there are more."""

    number: int
    complete: bool = True

    def __str__(self) -> str:
        return f"{'' if self.complete else 'more than '}{self.number} {'fire' if self.number == 1 else 'fires'}"


async def fires_of_a_day(scheduler: TaskScheduler, job: str) -> Count:
    """The fires of a job in the 24 hours to come."""
    found = await scheduler.upcoming("+24h", MOST + 1, job=job)
    return Count(min(MOST, len(found)), len(found) <= MOST)


async def held(scheduler: TaskScheduler, now: datetime, job: str | None = None) -> Count:
    """The fires that came due in a pause and wait for its end; of one job, or of all."""
    due = await scheduler.upcoming(now, MOST_SCHEDULES, job=job)
    told = [(at, one, scheduler[one.job].policy if one.job in scheduler else Policy()) for at, one in due]
    return await asyncio.to_thread(count_due, told, now)


def count_due(due: Sequence[tuple[datetime, Schedule, Policy]], now: datetime) -> Count:
    """How often schedules came due until now. `due`: each with its first such instant, and the policy of its job."""
    number, enough = 0, time.monotonic() + LONGEST_SECONDS
    for first, schedule, policy in due:
        at: datetime | None = first
        while at is not None and at <= now:
            number += 1
            if number > MOST or time.monotonic() > enough:
                return Count(min(number, MOST), complete=False)
            at = next_due(schedule, policy, at)
    return Count(number, len(due) < MOST_SCHEDULES)
