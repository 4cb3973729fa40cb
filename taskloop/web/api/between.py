"""What was and what comes between two instants: gathered for the timeline, and for who asks for it as JSON.

Runs from the store, fires to come, and what is foretold of them. What is drawn of it is the page's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from taskloop import durations, looking, outlook
from taskloop.runs import State
from taskloop.schedules import Schedule
from taskloop.simulation import Overlap, Simulation, Trouble
from taskloop.store_data import Span
from taskloop.web.api.asking import NARROWED, refuse_unknown
from taskloop.web.api.jobs import wanted
from taskloop.web.problems import Problem

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["NONE_OFF", "Seen", "is_off", "seen"]

MOST_RUNS, MOST_FIRES = 2_500, 2_000
EACH: Final = 100
"""Where there are more runs, of each job also so many older ones."""
OUTLINED: Final = 5_000
"""Where there are more fires, so many, none of a schedule sooner after the one before than `APART` of the whole."""
APART: Final = 1 / 500
LONGEST: Final = timedelta(days=90)
NONE_OFF: Final[Mapping[str, datetime | None]] = {}


class Seen(NamedTuple):
    """What there is between two instants, and what is foretold of it."""

    start: datetime
    end: datetime
    now: datetime
    runs: Sequence[Span]
    fires: Sequence[tuple[datetime, str]]
    troubles: Mapping[tuple[str, datetime], Trouble]
    """By job and instant the fires that will not simply run."""
    overlaps: Sequence[Overlap]
    full: bool
    """Whether there was more than is shown."""
    outlined: bool = False
    """Whether fires are left out that would lie on others."""
    off: Mapping[str, datetime | None] = NONE_OFF
    """Jobs that are switched off, and until when."""


async def seen(asked: Asked) -> Seen:
    """What the query asks for. Raises `Problem`."""
    scheduler, now = asked.scheduler, asked.now
    start, end = _window(asked.query["from"] or "6h", asked.query["to"] or "6h", now)
    jobs = await _jobs(asked)
    # What comes is read first: a fire meanwhile is in both then, told once; the other way round it would be in none.
    fires = await outlook.outline(scheduler, MOST_FIRES, until=end, apart=timedelta(0), jobs=jobs) if end > now else []
    if full := len(fires) == MOST_FIRES:  # none is left out that would be a mark of its own
        fires = await outlook.outline(scheduler, OUTLINED, until=end, apart=(end - start) * APART, jobs=jobs)
    ahead = await asked.site.foresight.ahead(end - now) if end > now else None
    off = await looking.off(scheduler, {schedule.job for _, schedule in fires})
    runs = await looking.spans(scheduler, start, end, MOST_RUNS, EACH, jobs=jobs)
    read_at = asked.now
    return await asyncio.to_thread(
        _seen, start, end, now, read_at, runs, fires, ahead, full, off, jobs
    )  # it may be thousands


async def _jobs(asked: Asked) -> set[str] | None:
    """The jobs that the query means, the one or by a part of their name or a tag; None: all. Raises `NoSuchJob`."""
    name = asked.query["job"]
    if not any(asked.query[one.name] for one in NARROWED):
        return None
    if name:
        await refuse_unknown(asked, name)
    found = wanted(await looking.stands(asked.scheduler), asked.query)
    return {one.name for one in found if not name or one.name == name}


def _seen(
    start: datetime,
    end: datetime,
    now: datetime,
    read_at: datetime,
    runs: Sequence[Span],
    fires: Sequence[tuple[datetime, Schedule]],
    ahead: Simulation | None,
    full: bool,
    off: Mapping[str, datetime | None],
    jobs: AbstractSet[str] | None,
) -> Seen:
    coming = [(at, schedule.job) for at, schedule in fires if at >= now]
    foretold = () if ahead is None else ahead.troubles
    troubles = {(one.job, one.at): one for one in foretold if jobs is None or one.job in jobs}
    overlaps = () if ahead is None else ahead.overlaps
    if full:  # nor is one left out that is in another's way
        coming = sorted({*coming, *((at, job) for job, at in list(troubles)[:OUTLINED] if now <= at <= end)})
    been = [one for one in runs if one.state is not State.WAITING]
    fired = {(one.due_at, one.job) for one in been if now <= one.due_at <= read_at}
    return Seen(
        start, end, now, been, [one for one in coming if one not in fired], troubles,
        [one for one in overlaps if jobs is None or not jobs.isdisjoint(one.jobs)], full or len(runs) >= MOST_RUNS, full, off,
    )  # fmt: skip


def is_off(off: Mapping[str, datetime | None], job: str, at: datetime) -> bool:
    """Whether a job is switched off until after that instant."""
    return job in off and ((until := off[job]) is None or at < until)


def _window(back: str, ahead: str, now: datetime) -> tuple[datetime, datetime]:
    """From so long ago to so far ahead. Raises `Problem`."""
    try:
        start, end = now - durations.parse(back), now + durations.parse(ahead)
    except (ValueError, OverflowError) as error:
        raise Problem(422, "invalid-value", f"the window cannot be: {error}") from None
    if not timedelta(minutes=1) <= end - start <= LONGEST:
        raise Problem(422, "invalid-value", "the window cannot be: allowed are a minute to 90 days")
    return start, end
