"""What was switched by hand: intervals in which a job was on, off or held, and what they mean for it.

Level 3, pure. A switch is stored as an interval, never overwritten, so that the past can be explained too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

__all__ = ["Missed", "Switch", "SwitchKind", "Switches"]

SwitchKind = Literal["enabled", "disabled", "paused"]
Missed = Literal["skip", "latest", "all"]


@dataclass(frozen=True, slots=True)
class Switch:
    """An interval in which a job (None: every job) was switched by hand or held."""

    kind: SwitchKind
    job: str | None
    since: datetime
    actor: str | None = None
    reason: str | None = None
    until: datetime | None = None
    """Ends it without anybody's doing; None: lasts until somebody ends it."""
    ended_at: datetime | None = None
    ended_by: str | None = None
    missed: Missed | None = None
    """How the end of a pause settles the held fires; None: by each job's own policy."""

    def holds(self, now: datetime) -> bool:
        """Whether it is in force at `now`."""
        return self.ended_at is None and (self.until is None or now < self.until)


class Switches(tuple[Switch, ...]):
    """The switches of a store as last read: the open ones, and of the ended pauses the newest of each job."""

    __slots__ = ()

    def thrown(self, jobs: Sequence[str], now: datetime) -> Switch | None:
        """The switch that says whether a job, known by any of these names, is on; None: its declaration does."""
        found = [one for one in self if one.kind != "paused" and one.job in jobs and one.holds(now)]
        return found[-1] if found else None

    def pause(self, job: str | None, now: datetime) -> Switch | None:
        """The pause that holds a job, its own or that of all; None: none does."""
        for one in self:
            if one.kind == "paused" and one.job in (None, job) and one.holds(now):
                return one
        return None

    def next_end(self, now: datetime) -> datetime | None:
        """When the first of those in force ends by itself; None: none does."""
        return min((one.until for one in self if one.until is not None and one.holds(now)), default=None)

    def settling(self, job: str, due_at: datetime, since: datetime) -> tuple[datetime, Missed | None]:
        """Since when somebody was there to fire `job` at `due_at`, and how a fire that a pause held is settled.

        `since`: the start of the watch. An instant within a pause that is over was not watched until it was over.
        """
        over: tuple[datetime, Missed | None] | None = None
        for one in self:
            end = one.ended_at or one.until
            held = one.kind == "paused" and one.job in (None, job) and end is not None and one.since <= due_at < end
            if held and end is not None and (over is None or end > over[0]):
                over = (end, one.missed)
        return (max(since, over[0]), over[1]) if over is not None else (since, None)
