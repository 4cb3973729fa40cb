"""The outlook: the coming fires, and what would happen: a simulation of what a ledger and its store know, beside the loop.

Level 5. Reads the store and changes nothing in it. Start at `upcoming` and `simulated`; `setting` alone is for who simulates
himself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Any, Final

from taskloop import durations, looking
from taskloop.clock import later
from taskloop.policy import Policy
from taskloop.punctuality import LEAST_RUNS, Usual
from taskloop.runs import Run, State
from taskloop.schedules import Schedule, bind, next_due, rebind
from taskloop.simulation import MOST_WORK, Setting, Simulation, held_fires, simulate
from taskloop.store_data import Query
from taskloop.switches import Switches

if TYPE_CHECKING:
    from taskloop.jobs import Job
    from taskloop.ledger import Ledger
    from taskloop.store import Store
    from taskloop.store_data import Definition

__all__ = ["Facts", "gather", "held", "outline", "setting", "simulated", "upcoming"]

MOST_SCHEDULES: Final = 20_000
"""Schedules that are looked at; of more those that fire next."""
FEWER_SCHEDULES: Final = 2_000
"""As many for pages."""
AT_ONCE: Final = 1_000
_NOW: Final = timedelta(minutes=1)
"""A start no further off is meant to be now."""
SLICE_SECONDS: Final = 0.002
REST_SECONDS: Final = 0.0005
_OPTIONS: Final = (
    "overlap", "missed", "missed_limit", "max_late", "group", "max_running", "first", "enabled", "spread", "priority",
    "expect",
)  # fmt: skip


# -- coming fires


async def outline(
    ledger: Ledger,
    limit: int,
    *,
    until: datetime | None = None,
    apart: timedelta | None = None,
    jobs: Collection[str] | None = None,
) -> list[tuple[datetime, Schedule]]:
    """The coming fires, earliest first, of one schedule none sooner than `apart` after the one before.

    So what fires often takes no room from what fires rarely. None: of each schedule the next one alone. `jobs`: of these
    alone.
    """
    return await upcoming(ledger, await ledger._opened(), until, limit, jobs, apart)


async def upcoming(
    ledger: Ledger,
    store: Store,
    until: Any,
    limit: int,
    jobs: Collection[str] | None,
    apart: timedelta | None = timedelta(0),
) -> list[tuple[datetime, Schedule]]:
    """The coming fires, earliest first: each schedule is asked for its next one only when that one's turn has come.

    `jobs`: of these alone. `apart`: see `outline`.
    """
    now = ledger._clock.now()
    end = durations.instant(until, now) if until is not None else None
    await ledger._refresh_switches(force=True)
    schedules = await store.coming(limit, jobs=None if jobs is None else [*jobs])
    policies = await _policies(ledger, store, {one.job for one in schedules})
    ahead = [(one.next_due, one.id, one) for one in schedules if one.next_due is not None]
    heapify(ahead)
    fires: list[tuple[datetime, Schedule]] = []
    while ahead and len(fires) < limit and (end is None or ahead[0][0] <= end):
        at, name, schedule = ahead[0]
        fires.append((at, schedule))
        following = None if apart is None else next_due(schedule, policies[schedule.job], max(later(at, apart), now))
        heappop(ahead) if following is None else heapreplace(ahead, (following, name, schedule))
        if len(fires) % looking.TOGETHER == 0:
            await asyncio.sleep(0)  # the loop may have other things to do
    return fires


async def _policies(ledger: Ledger, store: Store, jobs: set[str]) -> dict[str, Policy]:
    """What is said of each job that says when it fires: by its declaration, or as its worker told the store."""
    found = {name: ledger[name].policy if name in ledger else Policy() for name in jobs}
    if any(name not in ledger for name in jobs):
        for one in await store.definitions():
            if one.name in jobs and one.name not in ledger and looking.says(one, "spread"):
                found[one.name] = Policy(spread=durations.parse(looking.says(one, "spread")))
    return found


# -- what would happen


@dataclass(frozen=True, slots=True)
class Facts:
    """What the store knows, and which jobs there are here."""

    jobs: Sequence[Job[..., Any]] = ()
    schedules: Sequence[Schedule] = ()
    definitions: Sequence[Definition] = ()
    switches: Switches = field(default_factory=Switches)
    took: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By job the seconds that its newest successful attempts took."""
    running: Mapping[str, datetime] = field(default_factory=dict)
    """By schedule since when the attempt of a run is made."""
    partial: bool = False
    """Not all schedules are there."""


async def simulated(
    ledger: Ledger, store: Store, span: Any, start: Any = None, *, job: str | None = None, most: int | None = None
) -> Simulation:
    """What would happen in so long a time from `start` on, None: from now; reckoned in a thread that rests often.

    `job`: its schedules alone; `most`: fewer fires and schedules are looked at. Raises `BadDuration`, `BadInstant`,
    `ValueError` for a span that is too long.
    """
    now = ledger._clock.now()
    begin = now if start is None else durations.instant(start, now)
    length = durations.parse_interval(span)
    facts = await gather(ledger, store, MOST_SCHEDULES if most is None else FEWER_SCHEDULES, job=job)

    def work() -> Simulation:
        given = setting(ledger, facts, now=now, start=begin, end=later(begin, length))
        return simulate(given, most_work=MOST_WORK if most is None else most, breathe=rests())

    return await asyncio.to_thread(work)


def rests() -> Callable[[], None]:
    """A breath that lets other threads have the interpreter whenever this one had it for a while.

    A thread that only reckons gives it up every 5 ms, and each turn of the host's loop would have to wait as long.
    """
    began = time.monotonic()

    def breathe() -> None:
        nonlocal began
        if time.monotonic() - began > SLICE_SECONDS:
            time.sleep(REST_SECONDS)
            began = time.monotonic()

    return breathe


async def gather(ledger: Ledger, store: Store, most: int = MOST_SCHEDULES, *, job: str | None = None) -> Facts:
    """Read what the store knows of all schedules and their jobs, or of one job; of more than `most` those that fire next."""
    schedules: list[Schedule] = []
    partial = False
    while page := await store.schedules(job=job, after=schedules[-1].id if schedules else None, limit=AT_ONCE):
        schedules += page
        if partial := len(schedules) > most:
            schedules = list(await store.coming(most, jobs=None if job is None else [job]))
            break
        if len(page) < AT_ONCE:
            break
    jobs = [one for one in ledger if job in (None, one.name)]
    names = sorted({one.job for one in schedules} | {one.name for one in jobs if one.trigger is not None})
    took: dict[str, Sequence[float]] = {}
    for first in range(0, len(names), AT_ONCE):
        took |= await store.usual(names[first : first + AT_ONCE])
    running = _running(await store.find(Query(states=[State.RUNNING], limit=AT_ONCE)), schedules)
    # Read only where there are jobs that no code here knows.
    known = {one.name for one in jobs}
    definitions = await store.definitions() if any(name not in known for name in names) else ()
    return Facts(jobs, schedules, definitions, await store.switches(), took, running, partial)


def _running(active: Sequence[Run], schedules: Sequence[Schedule]) -> dict[str, datetime]:
    """By schedule since when the attempt of a run is made; `schedules`: as they were read before the runs.

    A run of a fire that was still to come then began since: foretold is that fire, which its own run must not hinder.
    """
    coming = {one.id: one.next_due for one in schedules}
    found: dict[str, datetime] = {}
    for one in active:
        if one.schedule is not None and one.attempt_started_at is not None:
            ahead = coming.get(one.schedule)
            if ahead is None or one.due_at < ahead:
                found[one.schedule] = one.attempt_started_at
    return found


def setting(
    ledger: Ledger,
    facts: Facts,
    *,
    now: datetime,
    start: datetime,
    end: datetime,
    takes: Mapping[str, timedelta] | None = None,
) -> Setting:
    """What a simulation goes by: the jobs as `ledger` has them, those that it does not know as the store does.

    `takes`: how long a run of a job takes, in the place of its history.
    """
    policies = {one.name: _policy(one) for one in facts.definitions}
    policies |= {job.name: job.policy for job in facts.jobs}
    names = {one.name: [one.name, *one.facts.get("aliases", ())] for one in facts.definitions}
    names |= {job.name: [job.name, *job.aliases] for job in facts.jobs}
    stored = facts.schedules
    if start < now - _NOW:
        stored = [_from_the_past(one, policies.get(one.job, Policy()), start) for one in stored]
    schedules = _declared(ledger, facts.jobs, stored, now, start)
    usual = {job: Usual.of(seconds) for job, seconds in facts.took.items() if seconds}
    expected = {job: policy.expect for job, policy in policies.items() if policy.expect is not None}
    told = {job: one.p95 for job, one in usual.items() if one.runs >= LEAST_RUNS or job not in expected}
    jobs = {one.job for one in schedules}
    known = {**expected, **told, **(takes or {})}
    return Setting(
        start=start, end=end, schedules=schedules, policies={job: policies.get(job, Policy()) for job in jobs},
        takes={job: took for job, took in known.items() if job in jobs}, switches=facts.switches, names=names,
        groups=ledger.options.groups, max_running=ledger.options.max_running,
        running=facts.running if abs(start - now) <= _NOW else {}, partial=facts.partial,
    )  # fmt: skip


def _declared(
    ledger: Ledger, jobs: Sequence[Job[..., Any]], stored: Sequence[Schedule], now: datetime, start: datetime
) -> list[Schedule]:
    """The schedules as they stand, and those of these jobs as a start would have them.

    One that was never seen is bound as if that start were at `start`: so what is asked twice is answered alike.
    """
    found = {one.id: one for one in stored}
    for job in jobs:
        if job.trigger is None:
            if job.name in found and found[job.name].origin != "stored":
                del found[job.name]
            continue
        new = Schedule(
            id=job.name, job=job.name, trigger=ledger.resolved(job.trigger), params=job.params, origin=job.origin,
            seen_at=now,
        )  # fmt: skip
        old = found.get(job.name)
        found[job.name] = bind(new, job.policy, start) if old is None else rebind(old, new, job.policy, now)
    return list(found.values())


def _from_the_past(schedule: Schedule, policy: Policy, start: datetime) -> Schedule:
    """With the cursor as it may have stood then: every fire since is asked for again."""
    return replace(schedule, next_due=next_due(schedule, policy, start - timedelta(microseconds=1)))


def _policy(definition: Definition) -> Policy:
    """What a definition says of how a job's fires are treated."""
    said = definition.facts["policy"]
    try:
        return Policy.of(definition.name, {name: said[name] for name in _OPTIONS if said.get(name) is not None})
    except ValueError:  # of a later version, which knows other words
        return Policy()


async def held(ledger: Ledger, store: Store, job: str | None = None) -> int:
    """How many fires a pause holds now, of one job or of all; of those schedules that fire first, if there are very many."""
    schedules = await store.coming(FEWER_SCHEDULES, jobs=None if job is None else [job])
    switches = await store.switches()
    now, here = ledger._clock.now(), {one.name: one.policy for one in ledger}
    definitions = await store.definitions() if any(one.job not in here for one in schedules) else ()

    def count() -> int:
        policies = {one.name: _policy(one) for one in definitions} | here
        paused = [one for one in schedules if switches.pause(one.job, now) is not None]
        return held_fires(paused, policies, now)

    return await asyncio.to_thread(count)
