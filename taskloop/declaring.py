"""What a worker tells its store at a start: its jobs, their schedules, and what that changes.

Level 5. `declare` carries it out and gives a `StartPlan`: which schedules are new, changed or left behind, and what
fires at once. `advice` knows the usual mistakes, one line each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from taskloop import durations
from taskloop.clock import later
from taskloop.errors import BadJob
from taskloop.jobs import Call, Job
from taskloop.policy import Policy
from taskloop.runs import Cause, Run, State
from taskloop.schedules import Schedule, bind, rebind, replanned
from taskloop.schedules import plan as planned
from taskloop.store import Store
from taskloop.store_data import Definition, Query, Worker

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = ["StartPlan", "configured", "declare", "declare_added"]

TOGETHER: Final = 1000
"""Schedules of one transaction."""
FEW: Final = 100
"""Jobs of which it is made out in one turn of the loop what they declare, or what is configured of them: 3 ms."""
MOST_ASKED: Final = 10_000
"""Runs of each cause, of those that wait or run, which a start looks at."""
NAMED: Final = 20
"""Names in a line of the log; of more there is a count."""


@dataclass
class StartPlan:
    """What a start changes, and what it fires at once."""

    added: list[str] = field(default_factory=list)
    """Schedules seen for the first time."""
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Schedules whose trigger is another one now: the old and the new one."""
    dropped: list[str] = field(default_factory=list)
    """Schedules of jobs that have no trigger any more."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Jobs that go on with the history of an alias: the old and the new name."""
    yielded: dict[str, str] = field(default_factory=dict)
    """Jobs whose fires are left to a worker that lives and has them under a later name: that name."""
    orphaned: list[str] = field(default_factory=list)
    """Schedules that code or file once declared, and whose job no live worker has."""
    due: dict[str, timedelta] = field(default_factory=dict)
    """What fires at once, and how late it is."""

    def told(self, only: Collection[str] | None = None) -> dict[str, str]:
        """The fields of its line in the log, of these jobs alone if given; empty where there is nothing to tell."""
        changes = [f"{name} ({old} -> {new})" for name, (old, new) in self.changed.items()]
        late = [
            f"{name} ({durations.format(span)} late)" if span else name
            for name, span in ((name, timedelta(seconds=int(one.total_seconds()))) for name, one in self.due.items())
            if only is None or name in only
        ]
        fields = {
            "added": [one for one in self.added if only is None or one in only],
            "changed": changes,
            "dropped": self.dropped,
            "renamed": [f"{old} -> {new}" for old, new in self.renamed.items()],
            "yielded": [f"{name} (to {there})" for name, there in self.yielded.items()],
            "orphaned": self.orphaned,
            "due_now": late,
        }
        return {name: _listed(names) for name, names in fields.items() if names}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


async def declare(
    ledger: Ledger,
    store: Store,
    jobs: Sequence[Job[..., Any]],
    now: datetime,
    *,
    others: Sequence[Worker],
    starting: bool = False,
) -> StartPlan:
    """Store what code and file declare; a schedule that is stored already keeps its cursor.

    `others`: the live workers beside this one. `starting`: a worker starts that fires, so that jobs which want a run
    at each start get one. A process that fires nothing leaves it to those who do how their jobs are fired.
    """
    if ledger.worker is not None and not ledger.worker.fires:
        jobs = [job for job in jobs if not any(_fires(one, job.name) for one in others)]
    await _define(ledger, store, jobs)
    plan = StartPlan()
    await _take_over(ledger, store, jobs, now, plan)
    later = await store.aliases()
    plan.yielded = _yielded(jobs, others, later)
    plan.renamed |= await _take_back(store, [job for job in jobs if job.name not in plan.yielded], later, now)
    policies = {job.name: job.policy for job in jobs}

    def merge(old: Schedule | None, new: Schedule) -> Schedule:
        """Called on the store's thread."""
        if old is None:
            plan.added.append(new.id)
            return bind(new, policies[new.job], now)
        if old.origin == "stored" and old.job != new.job and old.job not in ledger[new.job].aliases:
            raise BadJob(_taken(old))
        if old.trigger != new.trigger:
            plan.changed[new.id] = (str(old.trigger), str(new.trigger))
        return rebind(old, new, policies[new.job], now)

    ours = [job for job in jobs if job.name not in plan.yielded]
    stored: list[Schedule] = []
    for start in range(0, len(ours), TOGETHER):
        declared = [_declared(ledger, job, now) for job in ours[start : start + TOGETHER] if job.trigger is not None]
        stored += await store.put(declared, merge, now) if declared else ()
    if starting:
        await _follow_the_zones(ledger, store, now)
    due = {one.id: now - one.next_due for one in stored if one.next_due is not None and one.next_due <= now}
    if starting:
        plan.due = {name: late for name, late in due.items() if name in ledger and ledger._is_on(ledger[name], now)}
        running = {one.id for one in stored if one.id in due and _comes_to_a_run(one, policies[one.job], now)}
        await _begin_at_start(ledger, store, ours, now, others=others, due=running)
        plan.orphaned = await _orphans(ledger, store, others)
    return plan


async def _define(ledger: Ledger, store: Store, jobs: Sequence[Job[..., Any]]) -> None:
    """Store what jobs declare. Of a hundred thousand that would hold the loop for seconds: a few are made in one turn."""
    is_typed = any(job.parameters.names or job.kind == "flow" for job in jobs)
    definitions: list[Definition] = []
    for start in range(0, len(jobs), FEW):
        some = jobs[start : start + FEW]
        if is_typed:  # pydantic: its import and first use are long for a loop
            definitions += await asyncio.to_thread(_definitions, ledger, some)
        else:
            definitions += _definitions(ledger, some)
            await asyncio.sleep(0)
        if len(definitions) >= TOGETHER:
            await store.define(definitions)
            definitions = []
    await store.define(definitions)


def _definitions(ledger: Ledger, jobs: Sequence[Job[..., Any]]) -> list[Definition]:
    for job in jobs:
        job._expect()
    return [ledger.definition(job) for job in jobs]


async def configured(ledger: Ledger, jobs: Sequence[Job[..., Any]]) -> list[Job[..., Any]]:
    """Lay the configuration around jobs, a few in one turn of the loop; gives those that are not removed again by then."""

    def is_there(job: Job[..., Any]) -> bool:
        return job in ledger and ledger[job.name] is job

    for start in range(0, len(jobs), FEW):
        ledger._configure_jobs(filter(is_there, jobs[start : start + FEW]))
        await asyncio.sleep(0)
    return [*filter(is_there, jobs)]


async def declare_added(ledger: Ledger, declared: Sequence[Job[..., Any]]) -> None:
    """Declare what somebody has added, removed or replaced since a start took its list: nobody else would before the next
    start.
    """
    known = {job.name: job for job in declared}
    while (there := {job.name: job for job in ledger}) != known:
        added, known = [job for name, job in there.items() if known.get(name) is not job], there
        await ledger._declare_late(added)


def _taken(stored: Schedule) -> str:
    return (
        f"job '{stored.id}' has a trigger, so its schedule is '{stored.id}', and one of that id is stored for job "
        f"'{stored.job}'; `taskloop schedule remove {stored.id}` and store that by another id, or give the job another name"
    )


def _declared(ledger: Ledger, job: Job[..., Any], now: datetime) -> Schedule:
    assert job.trigger is not None
    return Schedule(
        id=job.name,
        job=job.name,
        trigger=ledger.resolved(job.trigger),
        params=job.params,
        origin=job.origin,
        seen_at=now,
    )


async def _take_over(
    ledger: Ledger, store: Store, jobs: Sequence[Job[..., Any]], now: datetime, plan: StartPlan
) -> None:
    """Give jobs what stands under their aliases, and drop the schedules of those that have no trigger any more."""
    names = {alias: job.name for job in jobs for alias in job.aliases}
    if names and ledger.options.enabled:  # else the fires stay with those who do fire, by the name they know
        renamed = await store.rename(names, now, TOGETHER)
        for run in renamed.ended:
            ledger._ended(run)
        plan.renamed = {old: names[old] for old in renamed.schedules}
        await ledger._refresh_switches(force=True)
        await ledger._know()
    bare = [job.name for job in jobs if job.trigger is None]
    if bare:
        found = await store.schedules(ids=bare, limit=len(bare))
        plan.dropped = [one.id for one in found if one.origin != "stored"]
        await store.drop(plan.dropped, now)


def _yielded(jobs: Sequence[Job[..., Any]], others: Sequence[Worker], later: Mapping[str, str]) -> dict[str, str]:
    """Jobs that a live worker of a later version has under another name already: theirs are the fires."""
    elsewhere = {name for one in others if one.fires for name in one.jobs or ()}
    return {job.name: there for job in jobs if (there := later.get(job.name)) in elsewhere and there is not None}


async def _take_back(
    store: Store, jobs: Sequence[Job[..., Any]], later: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """Go on with the schedules of jobs that a later version had under another name, and nobody has now; gives those ids,
    and ours. They are moved, not copied: if the later version is there again by now, one of us has the fires, not both.
    """
    names = {later[job.name]: job.name for job in jobs if job.trigger is not None and job.name in later}
    found = await store.schedules(ids=list(names), limit=len(names)) if names else ()
    left = {one.id: names[one.id] for one in found if one.origin != "stored"}
    if left:
        await store.relabel(left, now)
    return left


async def _follow_the_zones(ledger: Ledger, store: Store, now: datetime) -> None:
    """Ask stored schedules anew where the rules of the time zones have changed since their cursors were set."""
    rules = await asyncio.to_thread(_rules_of_the_zones)

    def decide(schedule: Schedule, _: Sequence[tuple[datetime, datetime]]) -> Schedule:
        return replanned(schedule, ledger[schedule.job].policy, now) if schedule.job in ledger else schedule

    if rules:
        await store.replan(decide, rules)


def _rules_of_the_zones() -> str:
    """Which version of the time zones' rules this system has; empty where nothing tells."""
    import zoneinfo

    for folder in zoneinfo.TZPATH:
        try:
            with open(f"{folder}/tzdata.zi", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - no pathlib here
                return file.readline(80).strip()
        except OSError:
            continue
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tzdata")
    except PackageNotFoundError:
        return ""


async def _begin_at_start(
    ledger: Ledger,
    store: Store,
    jobs: Sequence[Job[..., Any]],
    now: datetime,
    *,
    others: Sequence[Worker],
    due: Collection[str],
) -> None:
    """Ask for a run of each job that wants one at a start, unless what is due comes to one, another worker has it already,
    or an earlier run is in its place.
    """
    wanted = [
        job
        for job in jobs
        if job.policy.on_start
        and job.name not in due
        and ledger._is_on(job, now)
        and not any(_fires(one, job.name) for one in others)
    ]
    names = [job.name for job in wanted]
    found: list[Run] = []
    for cause in (Cause.ON_START, Cause.SCHEDULE, Cause.CATCH_UP) if wanted else ():
        found += await store.find(Query(names, [State.WAITING, State.RUNNING], cause=cause, limit=MOST_ASKED))
    there = {run.job for run in found if _is_one_fire(run, ledger[run.job].policy, now)}
    await store.submit([_on_start(job, now) for job in wanted if job.name not in there])


def _is_one_fire(run: Run, policy: Policy, now: datetime) -> bool:
    """Whether an active run stands for the fire of a start: that of an earlier start which still waits, as in a pause, or one
    of the job's own schedule, beside or after which there would be two of what may not overlap.
    """
    if run.expires_at is not None and run.expires_at < now:  # it is skipped next
        return False
    own = run.schedule == run.job and policy.overlap != "allow"
    return own or (run.cause is Cause.ON_START and run.state is State.WAITING)


def _comes_to_a_run(schedule: Schedule, policy: Policy, now: datetime) -> bool:
    """Whether any instant that is due at a start is run, as missed or in time; else all of them are skipped."""
    return any(one.reason is None for one in planned(schedule, policy, now=now, watched_since=now).fires)


def _fires(worker: Worker, job: str) -> bool:
    """Whether a worker has the job and fires it: one that was narrowed to other jobs leaves it alone, and one that stops
    fires nothing any more.
    """
    takes = worker.health.get("takes", "all")
    narrowed = isinstance(takes, list) and bool(takes) and job not in takes
    fires = worker.fires and not worker.health.get("stopping")
    return fires and (worker.jobs is None or job in worker.jobs) and not narrowed


def _on_start(job: Job[..., Any], now: datetime) -> Run:
    from taskloop.handles import asked

    run, max_late = asked(Call(job, job.params), now, cause=Cause.ON_START), job.policy.max_late
    return run.changed(
        schedule=job.name if job.trigger is not None else None,
        expires_at=None if max_late is None else later(now, max_late),
    )


async def _orphans(ledger: Ledger, store: Store, others: Sequence[Worker]) -> list[str]:
    """Declared schedules of jobs that nobody has any more, as after a rename without an alias."""
    if any(one.jobs is None for one in others):
        return []
    elsewhere = {name for one in others for name in one.jobs or ()}
    declared = await store.declared_schedules()
    return [one for one, job in declared if job not in ledger and job not in elsewhere]
