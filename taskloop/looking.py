"""Looking at the records: how each job stands, how the whole stands, and the facts from which `why` is explained.

Level 5. Functions of a `Ledger` and its open store; imported when somebody looks, for a running scheduler need not.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskloop import durations, inquiry
from taskloop.chain import identified
from taskloop.clock import later
from taskloop.durations import rfc3339
from taskloop.errors import BadDuration, BadValue, NoSuchJob, NoSuchRun, nearest
from taskloop.jobs import Job
from taskloop.moments import Question, subject
from taskloop.policy import Policy
from taskloop.processes import is_dead, unheard_seconds
from taskloop.punctuality import LEAST_RUNS, Curfew, Usual, may_be_stuck, stuck
from taskloop.records import JobRecord, Standing, Status, standing
from taskloop.runs import Run, RunId, State
from taskloop.schedules import Schedule, next_due
from taskloop.steps import Step
from taskloop.store import Store
from taskloop.store_data import Attempt, Brief, DayCount, Definition, Incident, Newest, Query, Span, Window, Worker
from taskloop.switches import InForce, Switches
from taskloop.why import Explanation, explain

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = [
    "curfew",
    "days",
    "identities",
    "in_hand",
    "incidents",
    "is_closed",
    "is_lost",
    "jobs",
    "lost_by",
    "needs",
    "off",
    "outline",
    "plan",
    "records",
    "run_in_full",
    "spans",
    "stands",
    "status",
    "status_without_store",
    "strips",
    "today",
    "upcoming",
    "usual",
    "waiting",
    "waits_for",
    "why",
    "workers",
]

TOGETHER: Final = 50
"""Coming fires, or jobs, that are reckoned between two breaths of the loop."""
RECENT: Final = timedelta(minutes=10)
"""An incident that ended longer ago needs nobody's attention any more."""
BLOCKED_MS: Final = 1000
"""A loop that stood still for less is on record, but needs nobody's attention."""
MOST_ACTIVE: Final = 100
"""Runs in hand that a status names."""
TRIES: Final = 3
"""How often what goes on meanwhile is read, until it fits together; where very much goes on it never does."""
AROUND: Final = timedelta(seconds=30)
"""A time back from now is meant no more exactly than this, in both directions."""
SKEWED_SECONDS: Final = 2.0
"""Clocks of two machines that are further apart need somebody: each fires by its own."""


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


async def run_in_full(ledger: Ledger, run_id: int) -> tuple[Run, Sequence[Attempt], Sequence[Step]]:
    """A run with the attempts and steps of that very state and attempt: read again where it went on. Raises `NoSuchRun`."""
    run = await ledger.run(run_id)
    for _ in range(TRIES):
        before, attempts, steps = run, await ledger.attempts(run_id), await ledger.steps(run_id)
        run = await ledger.run(run_id)
        if (run.state, run.attempt) == (before.state, before.attempt):
            break
    return run, attempts, steps


async def plan(ledger: Ledger, job: str) -> Sequence[Mapping[str, Any]]:
    """The steps of a flow, see `JobRecord.steps`, given its name or an earlier one; none: it has none, or is gone."""
    try:
        _, definition = await _subject(ledger, await ledger._opened(), job, None)
    except NoSuchJob:
        return ()
    found: Sequence[Mapping[str, Any]] = definition.facts.get("steps", ())
    return found


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


async def _ahead(ledger: Ledger, store: Store) -> timedelta:
    """How far the clock of the store's server is ahead of ours; a file has none, and a clock set by hand is not compared."""
    before = ledger._clock.now()
    theirs = None if ledger._clock.steps_by_hand else await store.clock()
    return timedelta(0) if theirs is None else theirs - (before + (ledger._clock.now() - before) / 2)


def _living(workers: Sequence[Worker], ledger: Ledger, now: datetime, ahead: timedelta) -> list[Worker]:
    return [one for one in workers if _lives(one, ledger, now, ahead)]


def _lives(worker: Worker, ledger: Ledger, now: datetime, ahead: timedelta) -> bool:
    """Whether a worker is there: its process, as far as that can be seen from here, and a beat within the lease."""
    own = getattr(ledger, "worker", None)
    if own is not None and own.id == worker.id:
        return True
    if is_dead(worker):
        return False
    return unheard_seconds(worker, ledger._clock.monotonic(), now, ahead) <= ledger.options.lease.total_seconds()


async def _orphans(look: _Look, store: Store, ledger: Ledger) -> set[str]:
    """Jobs that no program has any more: no live worker knows them, and at least one is there to tell."""
    away = {name for name in look.names if name not in ledger}
    if not away:
        return set()
    living = _living(await store.workers(living=True), ledger, look.now, await _ahead(ledger, store))
    if not living or any(one.jobs is None for one in living):
        return set()
    return away.difference(*(one.jobs or () for one in living))


async def _in_progress(
    ledger: Ledger, store: Store, defined: Mapping[str, Mapping[str, Any]], look: _Look
) -> tuple[set[str], dict[str, Run], dict[str, Run]]:
    """The jobs that run; by job a run that is stuck; and of those that are ready and have not begun the one that waits
    longest.
    """
    now, only = look.now, look.only
    waiting: dict[str, Run] = {}
    for run in await store.late(now):
        waiting.setdefault(run.job, run)
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


def _says(definition: Definition, option: str) -> Any:
    return definition.facts["policy"].get(option)


# -- the whole


async def workers(ledger: Ledger, store: Store) -> list[Worker]:
    """The workers that are there."""
    found = [_with_own_health(one, ledger) for one in await store.workers(living=True)]
    return _living(found, ledger, ledger._clock.now(), await _ahead(ledger, store))


async def status(ledger: Ledger, store: Store) -> Status:
    """How the whole stands, as the store knows it and, where the ledger is a worker, as it knows itself."""
    look = await _begun(ledger, store, None)
    now, standings = look.now, await _stands(ledger, store, look, await store.newest(look.names))
    workers = [_with_own_health(one, ledger) for one in await store.workers(living=True)]
    ahead = await _ahead(ledger, store)
    live = _living(workers, ledger, now, ahead)
    counts, active = await _in_hand(store)
    recent = await incidents(ledger, store, now - RECENT)
    attention = [*_about_us(ledger, workers), *_about_workers(workers, live), *_about_our_clock(live, ahead)]
    attention += _about_incidents(recent)
    attention += _about_jobs(standings, bool(live), now)
    tripped = [one for one in look.switches if one.kind == "tripped" and one.holds(now)]
    attention += [_item("tripped", one.reason, job=one.job, since=one.since) for one in tripped]
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
    journal = getattr(ledger, "_journal", None)
    own = [] if journal is None else journal.unwritten()  # first: what is written meanwhile is found there
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
        attention=[_item("store", str(error), since=since), *_unwell({**health, "store": None}, "this worker")],
        loop_lag_ms=health.get("lag_ms"),
        store=str(getattr(ledger._store, "url", "")),
        answered=False,
    )


def _with_own_health(worker: Worker, ledger: Ledger) -> Worker:
    own = getattr(ledger, "worker", None)
    if own is None or own.id != worker.id:
        return worker
    # How far its clock is from the server's is known only to the thread that beats, and what it takes to its store.
    known = {name: worker.health[name] for name in ("skew_ms", "takes") if name in worker.health}
    return replace(worker, health={**ledger._vitals(), **known})


def _item(
    condition: str,
    text: str | None,
    *,
    job: str | None = None,
    since: datetime | None = None,
    failures: int = 0,
    **more: Any,
) -> dict[str, Any]:
    return {
        "condition": condition,
        "job": job,
        "text": text,
        "since": None if since is None else rfc3339(since),
        "failures": failures,
        **more,
    }


def _about_workers(workers: Sequence[Worker], live: Sequence[Worker]) -> list[dict[str, Any]]:
    """A store that is away, an engine that stands still, a loop that is held: of these first. Then who is silent."""
    items = [item | {"worker": one.id} for one in live for item in _unwell(one.health, f"{one.host} pid {one.pid}")]
    order = ("store", "stalled", "loop_blocked", "clock")
    items.sort(key=lambda item: order.index(item["condition"]))
    silent = [one for one in workers if one not in live]
    return items + [
        _item(
            "silent",
            f"{one.host} pid {one.pid} has not beaten since {rfc3339(one.beat_at)}",
            since=one.beat_at,
            worker=one.id,
        )
        for one in silent[:5]
    ]


def _about_us(ledger: Ledger, workers: Sequence[Worker]) -> list[dict[str, Any]]:
    """What is wrong with this worker where the store has it among the dead: others write there, and it cannot, as after a
    newer program has brought the schema up to date.
    """
    own = getattr(ledger, "worker", None)
    if own is None or not getattr(ledger, "is_running", False) or any(one.id == own.id for one in workers):
        return []
    return [item | {"worker": own.id} for item in _unwell(ledger._vitals(), f"{own.host} pid {own.pid}")]


def _unwell(health: Mapping[str, Any], who: str) -> list[dict[str, Any]]:
    items = []
    if health.get("store"):
        items.append(_item("store", f"{who}: {health['store']}"))
    if health.get("stalled"):
        items.append(_item("stalled", f"{who}: {health['stalled']}"))
    if health.get("blocked"):
        items.append(_block(health["blocked"], f"{who}: its loop stands still"))
    skew = health.get("skew_ms", 0.0) / 1000
    if abs(skew) > SKEWED_SECONDS:
        items.append(_item("clock", f"{who}: its clock is {_apart(skew)}"))
    return items


def _apart(ahead_seconds: float) -> str:
    """How a clock is that of the store's server is so far ahead of."""
    return f"{abs(ahead_seconds):.1f} s {'behind' if ahead_seconds > 0 else 'ahead of'} that of the store's server"


def _about_our_clock(live: Sequence[Worker], ahead: timedelta) -> list[dict[str, Any]]:
    """That the clock of this machine is off, by which all of this is read; unless a worker of it has said so."""
    host = os.uname().nodename
    if abs(ahead.total_seconds()) <= SKEWED_SECONDS or any(one.host == host and _is_off(one) for one in live):
        return []
    return [_item("clock", f"{host}, where this is asked: its clock is {_apart(ahead.total_seconds())}")]


def _is_off(worker: Worker) -> bool:
    return abs(float(worker.health.get("skew_ms", 0.0))) > 1000 * SKEWED_SECONDS


def _block(data: Mapping[str, Any], text: str, since: datetime | None = None) -> dict[str, Any]:
    who = f"job '{data['job']}', run {data['run']}" if "job" in data else data.get("task", "a callback")
    return _item(
        "loop_blocked", f"{text} for {data['ms']} ms, by {who}, at {data['where']}", job=data.get("job"), since=since
    )


def _about_incidents(recent: Sequence[Incident]) -> list[dict[str, Any]]:
    """What disturbed a worker in the last minutes, the worst of each kind."""
    blocks = [one for one in recent if one.kind == "loop_blocked" and one.data.get("ms", 0) >= BLOCKED_MS]
    worst = max(blocks, key=lambda one: one.data["ms"], default=None)
    items = [] if worst is None else [_block(worst.data, "the loop stood still", worst.since)]
    steps = [one for one in recent if one.kind == "clock" and abs(one.data.get("step_seconds", 0)) > 30]
    if steps:
        seconds = steps[0].data["step_seconds"]
        items.append(_item("clock", f"the clock went {'back' if seconds < 0 else 'forward'} by {abs(seconds):g} s",
                           since=steps[0].since))  # fmt: skip
    return items


def _about_jobs(standings: Sequence[Standing], running: bool, now: datetime) -> list[dict[str, Any]]:
    """The jobs that fail, then those that are stuck, then overdue, then without a program."""
    found: dict[str, list[dict[str, Any]]] = {word: [] for word in ("failing", "stuck", "overdue", "orphan")}
    for one in standings:
        if (word := needs(one)) is not None:
            text = _text(word, one, running, now)
            item = _item(word, text, job=one.name, since=_since(word, one, now), failures=one.failures)
            found[word].append(item)
    return [item for items in found.values() for item in items]


def needs(one: Standing) -> str | None:
    """As what a job needs a person; None: it needs nobody.

    A pause holds back what is to come: it mends nothing that has failed, and what hangs still hangs.
    """
    if one.condition == "orphan":
        return "orphan" if _is_missed(one) else None
    if one.condition == "paused" and one.troubled is not None:
        return "stuck"
    # A job has not succeeded since it failed: that it is at it again makes it no better.
    if one.condition in ("failing", "running", "paused") and one.failures > 0 and _is_failing(one):
        return "failing"
    return one.condition if one.condition in ("failing", "stuck", "overdue") else None


def _is_failing(one: Standing) -> bool:
    """Whether nothing came after its failures that makes them good: no success, and nobody who called a run off."""
    return one.newest is not None and one.newest.state not in (State.SUCCEEDED, State.CANCELLED, State.SKIPPED)


def _is_missed(one: Standing) -> bool:
    """Whether it matters that no program has a job any more: it is on, and it was at work or will come due."""
    return one.enabled and (one.next_due is not None or one.newest is not None)


def _since(word: str, one: Standing, now: datetime) -> datetime | None:
    """Since when a job needs a person so; None: it is not known."""
    if word == "stuck":
        return None if one.troubled is None else one.troubled.attempt_started_at
    if word == "overdue" and one.troubled is not None:
        return one.troubled.ready_at
    if word == "overdue":
        return one.next_due if one.next_due is not None and one.next_due < now else None
    return one.newest.failing_since if word == "failing" and one.newest is not None else None


def _text(word: str, one: Standing, running: bool, now: datetime) -> str | None:
    """What is wrong with a job, in a sentence."""
    run, nobody = one.troubled, "" if running else "; no worker runs"
    if word == "failing":
        return None if one.newest is None else one.newest.failure
    if word == "orphan":
        gone = "no live worker has this job any more; if it was renamed, give the new one aliases=(...)"
        return f"{gone}; if it is gone for good, `taskloop disable {one.name}`"
    if word == "stuck" and run is not None and run.attempt_started_at is not None:
        since = (now - run.attempt_started_at).total_seconds()
        took = timedelta(seconds=int(since) or round(since, 3))  # `expect` may be shorter than a second
        return f"run {run.id} has been running for {durations.words(took)}"
    if run is not None:
        return f"run {run.id} waits since {rfc3339(run.ready_at)}{nobody}"
    return f"due since {rfc3339(one.next_due)}{nobody}" if one.next_due is not None else nobody


async def curfew(ledger: Ledger, store: Store, ends_at: datetime) -> Curfew:
    """What may not begin any more before `ends_at`, by what jobs say of themselves, or by their history."""
    took = await store.usual([job.name for job in ledger])
    usual = {name: Usual.of(seconds).median for name, seconds in took.items()}
    expected = {job.name: job.policy.expect for job in ledger if job.policy.expect is not None}
    return Curfew(ends_at, {**usual, **expected})


# -- what comes


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
        if len(fires) % TOGETHER == 0:
            await asyncio.sleep(0)  # the loop may have other things to do
    return fires


async def _policies(ledger: Ledger, store: Store, jobs: set[str]) -> dict[str, Policy]:
    """What is said of each job that says when it fires: by its declaration, or as its worker told the store."""
    found = {name: ledger[name].policy if name in ledger else Policy() for name in jobs}
    if any(name not in ledger for name in jobs):
        for one in await store.definitions():
            if one.name in jobs and one.name not in ledger and _says(one, "spread"):
                found[one.name] = Policy(spread=durations.parse(_says(one, "spread")))
    return found


# -- why


async def why(ledger: Ledger, store: Store, job: str | Job[..., Any] | None, at: Any, run: int | None) -> Explanation:
    """Gather the facts and explain them."""
    names, definition = await _subject(ledger, store, job, run)
    usual, switches = await store.usual(names[:1]), await store.switches()
    now = ledger._clock.now()  # as late as can be: what is on record by then is not of the future
    spread, group = _says(definition, "spread"), _says(definition, "group")
    question = Question(
        job=names[0],
        names=frozenset(names),
        window=None if at is None or run is not None else window(at, now),
        run=run,
        now=now,
        policy=definition.facts["policy"],
        trigger_text=definition.facts["trigger_text"],
        is_periodic=definition.facts["trigger"] is not None,
        usual=Usual.of(usual[names[0]]) if names[0] in usual else None,
        spread=durations.parse(spread) if spread else timedelta(0),
        vitals=ledger._vitals(),
        places=ledger.options.groups.get(group, 1) if names[0] in ledger and group else None,
        switch=switches.thrown(names, now),
    )
    facts = await store.evidence(
        names, now, partial(subject, question), window=_read(question), run=RunId(run) if run is not None else None
    )
    if run is not None and not facts.rows:  # pruned since we looked
        raise NoSuchRun(run)
    facts = facts._replace(workers=[_with_own_health(one, ledger) for one in facts.workers])
    there = _living(facts.workers, ledger, now, await _ahead(ledger, store))
    living = frozenset(one.id for one in there if one.stopped_at is None)
    return explain(replace(question, living=living), facts)


def _read(question: Question) -> Window | None:
    """The window in which records are read: a spread moves what the timetable names to later."""
    return question.window and question.window._replace(until=later(question.window.until, question.spread))


def window(at: Any, now: datetime) -> Window:
    """What is meant by an instant, as exactly as it is written: a minute, a second, or half a unit around `2h` ago.

    Around `30s` ago it is half a minute: nobody counts seconds backwards. What is to come is not in the past, however
    near. Errors: `BadInstant`.
    """
    instant = durations.since(at, now)
    unit = _unit(at)
    if unit is None:
        exact = instant.second or instant.microsecond
        return Window(instant, instant, later(instant, timedelta(seconds=1) if exact else timedelta(minutes=1)))
    half = max(unit / 2, AROUND)
    until = instant + half
    return Window(instant, instant - half, until if instant > now else min(until, now + timedelta(microseconds=1)))


def _unit(at: Any) -> timedelta | None:
    """The unit in which a length of time is given, for that exactly it is meant; None: `at` is an instant."""
    if isinstance(at, timedelta):
        fits = (one for one in (timedelta(hours=1), timedelta(minutes=1)) if at and not at % one)
        return next(fits, timedelta(seconds=1))
    if not isinstance(at, str):
        return None if isinstance(at, datetime) else timedelta(seconds=1)
    try:
        length = durations.parse(at.strip().removeprefix("+"))
    except BadDuration:
        return None
    written = re.search(r"([a-zµμ]+)\s*$", at.strip(), re.IGNORECASE)
    if written is None:
        return timedelta(seconds=1)
    return durations.parse(f"1{written[1].lower()}") if not at.strip().startswith("P") else _unit(length)


async def _subject(
    ledger: Ledger, store: Store, job: str | Job[..., Any] | None, run: int | None
) -> tuple[list[str], Definition]:
    """The name and the aliases of the job that is meant, and what it declares; an alias means the job that has it."""
    if run is not None:
        found = await store.run(inquiry.run_id(run))
        if found is None:
            raise NoSuchRun(run)
        job = found.job
    if job is None:
        raise BadValue("why() needs a job or a run; write why('report'), or why(run=12)")
    names = ledger._names(job)
    name = names[0]
    if name in ledger:
        return names, ledger.definition(ledger[name])
    known = {one.name: one for one in (*await store.definitions(), *map(ledger.definition, ledger))}
    heir = next((one for one in known.values() if name in one.facts.get("aliases", ())), None)
    definition = heir or known.get(name)
    if definition is None:
        raise NoSuchJob(name, nearest(name, known))
    return [definition.name, *definition.facts.get("aliases", ())], definition


async def days(ledger: Ledger, job: str, count: int) -> Sequence[DayCount]:
    """How the runs of a job ended on the last `count` days of UTC, today among them."""
    today = ledger._clock.now().date()
    store = await ledger._opened()
    return await store.days(ledger._names(job), today - timedelta(days=count - 1), today)


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
        elif name in remembered and not _says(remembered[name], "enabled"):
            found[name] = None
        if number % TOGETHER == 0:
            await asyncio.sleep(0)
    return found


async def usual(ledger: Ledger, jobs: Collection[str]) -> Mapping[str, Usual]:
    """How long the last successful attempts of jobs took, of those that have some."""
    took = await (await ledger._opened()).usual(sorted(jobs)) if jobs else {}
    return {job: Usual.of(seconds) for job, seconds in took.items() if seconds}


def in_hand(ledger: Ledger) -> Collection[RunId] | None:
    """The runs that are made here, none that another worker has taken over, of which no end is told; None: no engine runs."""
    slots = getattr(ledger, "_slots", None)
    return None if slots is None else slots.attempts


def is_lost(ledger: Ledger) -> bool:
    """Whether a scheduler that was started here has told that its store was lost, and not yet that it is back."""
    watch = getattr(ledger, "_store_watch", None)
    return watch is not None and watch.lost_at is not None


def is_closed(ledger: Ledger) -> bool:
    """Whether nobody has opened the store here yet, or it was closed again: then the next question opens it."""
    return not ledger._store_is_open


async def today(ledger: Ledger, jobs: Sequence[str]) -> Mapping[State, int]:
    """How many runs of these jobs ended so, since midnight UTC; skips too."""
    day = ledger._clock.now().date()
    counts = Counter[State]()
    for one in await (await ledger._opened()).days(jobs, day, day):
        counts[one.state] += one.runs
    return counts


async def waiting(ledger: Ledger, most: int) -> list[Run]:
    """Runs that wait, first what has been ready longest; of those whose time is to come, or that are held, some of the newest."""
    store = await ledger._opened()
    newest = await store.find(Query(states=[State.WAITING], limit=TOGETHER))
    found = {one.id: one for one in (*await store.late(ledger._clock.now()), *newest)}
    return sorted(found.values(), key=lambda one: one.ready_at)[:most]


async def waits_for(ledger: Ledger, run: Run) -> str:
    """What keeps a waiting run from going on, for people; empty: it does not wait, or no longer since it was read."""
    if run.state is not State.WAITING:
        return ""
    try:
        found = await ledger.why(run=run.id)
    except NoSuchJob:
        return "no worker has told the store of its job yet"
    except NoSuchRun:
        return ""
    return (found.text.partition(": ")[2] or found.text) if found.verdict == "waiting" else ""


async def identities(ledger: Ledger, ids: Collection[str | None]) -> Mapping[str, str]:
    """Who these workers are, and where, for people; of those that are on record still."""
    found = await (await ledger._opened()).workers() if any(ids) else ()
    return {one.id: identified(one) for one in found if one.id in ids}


async def lost_by(ledger: Ledger, run: Run) -> str:
    """Who had a run that is on record as running but is gone, for people; empty: it runs, or has ended since it was read."""
    if run.state is not State.RUNNING or any(one.id == run.worker for one in await ledger.workers()):
        return ""
    try:
        found = await ledger.why(run=run.id)
    except (NoSuchJob, NoSuchRun):
        return ""
    return found.text.partition("on record as running, but ")[2] if found.code == "process_down" else ""
