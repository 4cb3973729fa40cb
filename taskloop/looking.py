"""Looking at the records: how each job stands, how the whole stands, what was and who is at work.

Level 5. Functions of a `Ledger` and its open store; imported when somebody looks, for a running scheduler need not. What
needs a person of all that is decided by `conditions`; why something is so, `explaining` finds out; what is to come, `outlook`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskloop import conditions, durations
from taskloop.chain import identified
from taskloop.processes import is_dead, lease_seconds, unheard_seconds
from taskloop.punctuality import LEAST_RUNS, Curfew, Usual, may_be_stuck, stuck
from taskloop.records import JobRecord, Standing, Status, standing
from taskloop.runs import Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.steps import Step
from taskloop.store import Store
from taskloop.store_data import Attempt, Brief, DayCount, Definition, Incident, Newest, Query, Span, Worker
from taskloop.switches import InForce, Switch, Switches

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = [
    "curfew",
    "days",
    "heir",
    "held",
    "identities",
    "in_hand",
    "incidents",
    "is_closed",
    "is_lost",
    "jobs",
    "living",
    "now",
    "off",
    "records",
    "run_in_full",
    "says",
    "schedule",
    "spans",
    "stands",
    "status",
    "status_without_store",
    "strips",
    "today",
    "usual",
    "waiting",
    "with_own_health",
    "workers",
]

TOGETHER: Final = 50
"""Coming fires, or jobs, that are reckoned between two breaths of the loop."""
RECENT: Final = timedelta(minutes=10)
"""An incident that ended longer ago needs nobody's attention any more."""
MOST_ACTIVE: Final = 100
"""Runs in hand that a status names."""
TRIES: Final = 3
"""How often what goes on meanwhile is read, until it fits together; where very much goes on it never does."""


def now(ledger: Ledger) -> datetime:
    """What the clock of a ledger shows: in a test its virtual time."""
    return ledger._clock.now()


# -- jobs


async def jobs(ledger: Ledger, store: Store, only: Collection[str] | None = None) -> list[JobRecord]:
    """Every job that is declared here or that a worker of the store declared, by name; `only`: of these alone."""
    look = await _begun(ledger, store, only)
    last = await store.standing(look.names)
    newest = {
        name: Newest(run.id, run.state, success, failures, None, None, run.attempt > 0)
        for name, (run, success, failures) in last.items()
    }
    found = await _stands(ledger, store, look, newest)
    records: list[JobRecord] = []
    for place in range(0, len(found), TOGETHER):
        here = found[place : place + TOGETHER]
        records += [one.record(last[one.name][0] if one.name in last else None) for one in here]
        await asyncio.sleep(0)
    return records


async def stands(ledger: Ledger) -> list[Standing]:
    """How each of all jobs stands, by name; their newest runs are not read, which is the most of the work for `jobs`."""
    store = await ledger._opened()
    look = await _begun(ledger, store, None)
    return await _stands(ledger, store, look, await store.newest(look.names))


async def records(ledger: Ledger, names: Collection[str]) -> list[JobRecord]:
    """As `jobs`, of these alone."""
    return await jobs(ledger, await ledger._opened(), names)


async def heir(ledger: Ledger, name: str) -> str | None:
    """The job that had this name before; None: none of those that are known has."""
    here = ledger._names(name)[0]
    return here if here != name else (await (await ledger._opened()).aliases()).get(name)


async def off(ledger: Ledger, jobs: Collection[str]) -> Mapping[str, datetime | None]:
    """Those of these jobs that are switched off, whose fires are skipped, and until when; None: until somebody acts."""
    store, now = await ledger._opened(), ledger._clock.now()
    await ledger._refresh_switches(force=True)
    away = {name for name in jobs if name not in ledger}
    remembered = {one.name: one for one in await store.definitions() if one.name in away} if away else {}
    in_force = InForce(ledger._switches, now)
    found: dict[str, datetime | None] = {}
    for number, name in enumerate(jobs, 1):
        if (switch := in_force.thrown(ledger._names(name))) is not None:
            found |= {} if switch.kind == "enabled" else {name: switch.until}
        elif name in ledger:
            found |= {} if ledger[name].policy.enabled else {name: None}
        elif name in remembered and not says(remembered[name], "enabled"):
            found[name] = None
        if number % TOGETHER == 0:
            await asyncio.sleep(0)
    return found


async def own_pause(ledger: Ledger, job: str) -> Switch | None:
    """The pause of a job itself, beside whatever else holds it; None: it has none."""
    await ledger._refresh_switches(force=True)
    return ledger._switches.own_pause(ledger._names(job), ledger._clock.now())


async def held(ledger: Ledger, jobs: Collection[str]) -> set[str]:
    """Those of these jobs that a pause holds, their own or that of all; also one that is off, whose condition says only that."""
    await ledger._refresh_switches(force=True)
    now = ledger._clock.now()
    return {name for name in jobs if ledger._switches.pause(name, now) is not None}


class _Look(NamedTuple):
    """What a look at jobs begins with."""

    now: datetime
    names: list[str]
    remembered: Mapping[str, Definition]
    """What other programs declared."""
    only: Collection[str] | None
    switches: Switches
    """By these alone it is told what is held or off: those that the ledger has may be others by the end of the look."""


async def _begun(ledger: Ledger, store: Store, only: Collection[str] | None) -> _Look:
    now = ledger._clock.now()
    switches, here = await store.switches(), [job.name for job in ledger]
    if only is not None and all(name in ledger for name in only):
        return _Look(now, sorted(only), {}, only, switches)
    remembered = {one.name: one for one in await store.definitions(without=here)}
    names = sorted({*remembered, *here})
    return _Look(now, names if only is None else [name for name in names if name in only], remembered, only, switches)


async def _stands(ledger: Ledger, store: Store, look: _Look, newest: Mapping[str, Newest]) -> list[Standing]:
    """How the jobs of a look stand: a few at a time, so that the loop may do other things between."""
    due, in_force = await store.next_dues(look.names), InForce(look.switches, look.now)
    orphans = await _orphans(look, store, ledger)
    defined = {}
    for number, name in enumerate(look.names, 1):
        if name in ledger:
            defined[name] = ledger.definition(ledger[name]).facts
        elif name in look.remembered:  # else it was removed while the loop had other things to do
            defined[name] = look.remembered[name].facts
        if number % TOGETHER == 0:
            await asyncio.sleep(0)
    running, held, waiting = await _in_progress(ledger, store, defined, look)
    found = []
    for number, (name, facts) in enumerate(defined.items(), 1):
        found.append(
            standing(
                name,
                facts,
                next_due=due.get(name),
                newest=newest.get(name),
                in_force=in_force,
                orphan=name in orphans,
                running=name in running,
                stuck=held.get(name),
                waiting=waiting.get(name),
            )
        )
        if number % TOGETHER == 0:
            await asyncio.sleep(0)
    return found


async def _orphans(look: _Look, store: Store, ledger: Ledger) -> set[str]:
    """Jobs that no program has any more: no live worker knows them, and at least one is there to tell."""
    away = {name for name in look.names if name not in ledger}
    if not away:
        return set()
    there = await living(ledger, store, await store.workers(living=True), look.now)
    if not there or any(one.jobs is None for one in there):
        return set()
    return away.difference(*(one.jobs or () for one in there))


async def _in_progress(
    ledger: Ledger, store: Store, defined: Mapping[str, Mapping[str, Any]], look: _Look
) -> tuple[set[str], dict[str, Run], dict[str, Run]]:
    """The jobs that run; by job a run that is stuck; and of those that are ready and have not begun the one that waits
    longest.
    """
    now, only = look.now, look.only
    waiting = {run.job: run for run in await store.late(now, each=1)}
    running = await store.find(Query(None if only is None else [*only], [State.RUNNING], limit=1000))
    expected = {run.id: defined[run.job]["policy"].get("expect") for run in running if run.job in defined}
    await _learn_usual(ledger, store, [run for run in running if not expected.get(run.id)], now)
    if only is None:  # those that have ended are forgotten
        ledger._usual = {run.id: ledger._usual[run.id] for run in running if run.id in ledger._usual}
    found: dict[str, Run] = {}
    for run in running:
        expect = expected.get(run.id)
        if stuck(run.attempt_started_at, now, ledger._usual.get(run.id), durations.parse(expect) if expect else None):
            found[run.job] = run
    return {run.job for run in running}, found, waiting


async def _learn_usual(ledger: Ledger, store: Store, running: Sequence[Run], now: datetime) -> None:
    """See what is usual for the jobs of those that run for so long that they may be stuck.

    Once for each run, not at every look: two hundred rows of its job's history are read for it.
    """
    asked = [run for run in running if run.id not in ledger._usual and may_be_stuck(run.attempt_started_at, now)]
    took = await store.usual(sorted({run.job for run in asked})) if asked else {}
    usual = {job: Usual.of(seconds) for job, seconds in took.items() if len(seconds) >= LEAST_RUNS}
    ledger._usual |= {run.id: usual[run.job] for run in asked if run.job in usual}


def says(definition: Definition, option: str) -> Any:
    return definition.facts["policy"].get(option)


# -- the whole


async def status(ledger: Ledger, store: Store) -> Status:
    """How the whole stands, as the store knows it and, where the ledger is a worker, as it knows itself."""
    look = await _begun(ledger, store, None)
    now, standings = look.now, await _stands(ledger, store, look, await store.newest(look.names))
    workers = [with_own_health(one, ledger) for one in await store.workers(living=True)]
    ahead = await _ahead(ledger, store)
    live = _living(workers, ledger, now, ahead)
    counts, active = await _in_hand(store)
    attention = [
        *_of_this_worker(ledger, workers),
        *conditions.of_workers(workers, live),
        *conditions.of_this_clock(os.uname().nodename, live, ahead),
        *conditions.of_incidents(await incidents(ledger, store, now - RECENT)),
        *conditions.of_jobs(standings, any(not one.only_submits for one in live), now),
        *conditions.of_breakers(look.switches, now),
    ]
    lags = [float(one.health["lag_ms"]) for one in live if "lag_ms" in one.health]
    return Status(
        running=bool(live),
        enabled=ledger.options.enabled,
        workers=live,
        paused=look.switches.pause(None, now),
        jobs=len(standings),
        waiting=counts.get(State.WAITING, 0),
        in_hand=counts.get(State.RUNNING, 0),
        active=active,
        attention=attention,
        loop_lag_ms=max(lags, default=None),
        store=store.url,
        standings=standings,
    )


def _of_this_worker(ledger: Ledger, workers: Sequence[Worker]) -> list[dict[str, Any]]:
    if ledger.worker is None or not ledger.is_running:
        return []
    return conditions.of_this_worker(ledger.worker, ledger._vitals(), workers)


async def _in_hand(store: Store) -> tuple[Mapping[State, int], Sequence[Run]]:
    """How many runs wait and how many run, at one moment; and those that run, read again where they are not as many."""
    for _ in range(TRIES):
        counts, active = await store.counts(), await store.find(Query(states=[State.RUNNING], limit=MOST_ACTIVE))
        if len(active) == min(MOST_ACTIVE, counts.get(State.RUNNING, 0)):
            break
    return counts, active


async def incidents(ledger: Ledger, store: Store, since: datetime) -> list[Incident]:
    """What disturbed any worker since then, the newest first; of this one also what is not written yet: who has just heard
    of it asks at once.
    """
    # First: what is written meanwhile is found there.
    own = [] if ledger._journal is None else ledger._journal.unwritten()
    found = [*await store.incidents(since, ledger._clock.now())]
    known = {(one.worker, one.kind, one.since) for one in found}
    found += [one for one in own if one.until >= since and (one.worker, one.kind, one.since) not in known]
    return sorted(found, key=lambda one: one.since, reverse=True)


def status_without_store(ledger: Ledger, error: Exception, active: Sequence[Run], *, since: datetime | None) -> Status:
    """How a worker stands whose store is away: from memory alone, and the store's trouble first."""
    health = ledger._vitals()
    return Status(
        running=True,
        enabled=ledger.options.enabled,
        workers=(),
        paused=None,
        jobs=len(ledger),
        waiting=0,
        in_hand=len(active),
        active=list(active),
        attention=conditions.of_store(error, health, since),
        loop_lag_ms=health.get("lag_ms"),
        store=str(getattr(ledger._store, "url", "")),
        answered=False,
    )


# -- runs


async def schedule(ledger: Ledger, id: str) -> Schedule | None:
    """The schedule of this id; None: there is none."""
    found = await ledger.schedules(prefix=id, limit=1)  # by id: one of exactly this id is the first
    return found[0] if found and found[0].id == id else None


async def run_in_full(ledger: Ledger, run_id: int) -> tuple[Run, Sequence[Attempt], Sequence[Step]]:
    """A run with the attempts and steps of that very state and attempt: read again where it went on. Raises `NoSuchRun`."""
    run = await ledger.run(run_id)
    for _ in range(TRIES):
        before, attempts, steps = run, await ledger.attempts(run_id), await ledger.steps(run_id)
        run = await ledger.run(run_id)
        if (run.state, run.attempt) == (before.state, before.attempt):
            break
    return run, attempts, steps


async def strips(ledger: Ledger, names: Sequence[str], limit: int) -> dict[str, Sequence[Brief]]:
    """The newest runs of each of these jobs, in brief, skips not counted."""
    found = await (await ledger._opened()).recent([ledger._names(name) for name in names], limit)
    return dict(zip(names, found, strict=True))


async def spans(
    ledger: Ledger, since: datetime, until: datetime, limit: int, each: int = 0, *, jobs: Collection[str] | None = None
) -> list[Span]:
    """What was put on record between two instants, skips too, the newest `limit` of it; and what runs, 100 of it at most.

    `each`: where that is not all, also so many older ones of each job, of TOGETHER jobs at most: what runs often takes no
    room from what runs rarely. `jobs`: of these alone.
    """
    store, mine = await ledger._opened(), None if jobs is None else sorted(jobs)
    found = [*await store.spans(Query(mine, [*State], since=since, until=until, limit=limit))]
    if each and len(found) == limit:
        further = sorted(job.name for job in ledger) if mine is None else mine
        names, oldest = [*dict.fromkeys((*(one.job for one in found), *further))][:TOGETHER], found[-1].id
        for place in range(0, len(names), 10):  # few at a time: others read by the same connection
            these = names[place : place + 10]
            query = Query(jobs=these, states=[*State], since=since, until=until, before=oldest, limit=each)
            found += await store.spans(query, each=True)
    known = {one.id for one in found}  # a long one may have been due before
    running = await store.spans(Query(mine, [State.RUNNING], limit=100))
    return found + [one for one in running if one.id not in known]


async def waiting(ledger: Ledger, most: int) -> list[Run]:
    """Runs that wait, first what has been ready longest; of those whose time is to come, or that are held, some of the newest."""
    store = await ledger._opened()
    newest = await store.find(Query(states=[State.WAITING], limit=TOGETHER))
    found = {one.id: one for one in (*await store.late(ledger._clock.now(), each=most, most=most), *newest)}
    return sorted(found.values(), key=lambda one: one.ready_at)[:most]


async def days(ledger: Ledger, job: str, count: int) -> Sequence[DayCount]:
    """How the runs of a job ended on the last `count` days of UTC, today among them."""
    today = ledger._clock.now().date()
    store = await ledger._opened()
    return await store.days(ledger._names(job), today - timedelta(days=count - 1), today)


async def today(ledger: Ledger, jobs: Sequence[str]) -> Mapping[State, int]:
    """How many runs of these jobs ended so, since midnight UTC; skips too."""
    day = ledger._clock.now().date()
    counts = Counter[State]()
    for one in await (await ledger._opened()).days(jobs, day, day):
        counts[one.state] += one.runs
    return counts


async def usual(ledger: Ledger, jobs: Collection[str]) -> Mapping[str, Usual]:
    """How long the last successful attempts of jobs took, of those that have some."""
    took = await (await ledger._opened()).usual(sorted(jobs)) if jobs else {}
    return {job: Usual.of(seconds) for job, seconds in took.items() if seconds}


async def curfew(ledger: Ledger, store: Store, ends_at: datetime) -> Curfew:
    """What may not begin any more before `ends_at`, by what jobs say of themselves, or by their history."""
    took = await store.usual([job.name for job in ledger])
    usual = {name: Usual.of(seconds).median for name, seconds in took.items()}
    expected = {job.name: job.policy.expect for job in ledger if job.policy.expect is not None}
    return Curfew(ends_at, {**usual, **expected})


# -- who is there


async def workers(ledger: Ledger, store: Store) -> list[Worker]:
    """The workers that are there."""
    found = [with_own_health(one, ledger) for one in await store.workers(living=True)]
    return await living(ledger, store, found, ledger._clock.now())


async def living(ledger: Ledger, store: Store, found: Sequence[Worker], now: datetime) -> list[Worker]:
    """Those of these workers that are there."""
    return _living(found, ledger, now, await _ahead(ledger, store))


def _living(workers: Sequence[Worker], ledger: Ledger, now: datetime, ahead: timedelta) -> list[Worker]:
    return [one for one in workers if _lives(one, ledger, now, ahead)]


def _lives(worker: Worker, ledger: Ledger, now: datetime, ahead: timedelta) -> bool:
    """Whether a worker is there: its process, as far as that can be seen from here, and a beat within the lease."""
    if ledger.worker is not None and ledger.worker.id == worker.id:
        return True
    if is_dead(worker):
        return False
    unheard = unheard_seconds(worker, ledger._clock.monotonic(), now, ahead)
    return unheard <= lease_seconds(worker, ledger.options.lease)


async def _ahead(ledger: Ledger, store: Store) -> timedelta:
    """How far the clock of the store's server is ahead of ours; a file has none, and a clock set by hand is not compared."""
    before = ledger._clock.now()
    theirs = None if ledger._clock.steps_by_hand else await store.clock()
    return timedelta(0) if theirs is None else theirs - (before + (ledger._clock.now() - before) / 2)


def with_own_health(worker: Worker, ledger: Ledger) -> Worker:
    """A worker as it is on record; the one that this ledger is, as it is now."""
    if ledger.worker is None or ledger.worker.id != worker.id:
        return worker
    # Two things stand in its record alone: how far its clock is from the server's, which the thread that beats measures,
    # and which runs it takes, which a narrowed store adds.
    known = {name: worker.health[name] for name in ("skew_ms", "takes") if name in worker.health}
    return replace(worker, health={**ledger._vitals(), **known})


async def identities(ledger: Ledger, ids: Collection[str | None]) -> Mapping[str, str]:
    """Who these workers are, and where, for people; of those that are on record still."""
    found = await (await ledger._opened()).workers() if any(ids) else ()
    return {one.id: identified(one) for one in found if one.id in ids}


def in_hand(ledger: Ledger) -> Collection[RunId] | None:
    """The runs that are made here, none that another worker has taken over, of which no end is told; None: no engine runs."""
    return None if ledger._slots is None else ledger._slots.attempts


def is_lost(ledger: Ledger) -> bool:
    """Whether a scheduler that was started here has told that its store was lost, and not yet that it is back."""
    return ledger._store_watch is not None and ledger._store_watch.lost_at is not None


def is_closed(ledger: Ledger) -> bool:
    """Whether nobody has opened the store here yet, or it was closed again: then the next question opens it."""
    return not ledger._store_is_open
