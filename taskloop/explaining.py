"""Why a job did or did not run, what a waiting run waits for, who had one that is lost: asked of a ledger and its store.

Level 5. `why` gathers the facts, and `taskloop.why` explains them. Start there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from taskloop import durations, inquiry, looking
from taskloop.clock import later
from taskloop.errors import BadDuration, BadValue, NoSuchJob, NoSuchRun, nearest
from taskloop.jobs import Job
from taskloop.moments import Question, subject
from taskloop.punctuality import Usual
from taskloop.runs import Run, RunId, State
from taskloop.store import Store
from taskloop.store_data import Definition, Window
from taskloop.why import Explanation, explain

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = ["lost_by", "plan", "waits_for", "why", "window"]

AROUND: Final = timedelta(seconds=30)
"""A time back from now is meant no more exactly than this, in both directions."""


async def why(ledger: Ledger, store: Store, job: str | Job[..., Any] | None, at: Any, run: int | None) -> Explanation:
    """Gather the facts and explain them."""
    names, definition = await _subject(ledger, store, job, run)
    usual, switches = await store.usual(names[:1]), await store.switches()
    now = ledger._clock.now()  # as late as can be: what is on record by then is not of the future
    spread, group = looking.says(definition, "spread"), looking.says(definition, "group")
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
        pauses=[one for one in switches if one.kind == "paused" and one.job in (None, *names) and one.holds(now)],
    )
    facts = await store.evidence(
        names, now, partial(subject, question), window=_read(question), run=RunId(run) if run is not None else None
    )
    if run is not None and not facts.rows:  # pruned since we looked
        raise NoSuchRun(run)
    facts = facts._replace(workers=[looking.with_own_health(one, ledger) for one in facts.workers])
    there = await looking.living(ledger, store, facts.workers, now)
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
    if name in ledger and not await _is_taken_over(ledger[name], store):
        return names, ledger.definition(ledger[name])
    known = {one.name: one for one in (*await store.definitions(), *map(ledger.definition, ledger))}
    heir = next((one for one in known.values() if name in one.facts.get("aliases", ())), None)
    definition = heir or known.get(name)
    if definition is None and run is not None:  # asked for by a program that has not started: no worker told of its job
        definition = ledger.definition(Job(_undeclared, None, name=name))
    if definition is None:
        raise NoSuchJob(name, nearest(name, known))
    return [definition.name, *definition.facts.get("aliases", ())], definition


async def _is_taken_over(job: Job[..., Any], store: Store) -> bool:
    """Whether a later version has all of a job under another name: here it has no schedule, whatever it declares."""
    there = job.trigger is None or await store.schedules(job=job.name, limit=1)
    return not there and job.name in await store.aliases()


def _undeclared() -> None:
    """In the place of the function of a job of which nothing is known but a run."""


async def plan(ledger: Ledger, job: str) -> Sequence[Mapping[str, Any]]:
    """The steps of a flow, see `JobRecord.steps`, given its name or an earlier one; none: it has none, or is gone."""
    try:
        _, definition = await _subject(ledger, await ledger._opened(), job, None)
    except NoSuchJob:
        return ()
    found: Sequence[Mapping[str, Any]] = definition.facts.get("steps", ())
    return found


async def waits_for(ledger: Ledger, run: Run) -> str:
    """What keeps a waiting run from going on, for people; empty: it does not wait, or no longer since it was read."""
    if run.state is not State.WAITING:
        return ""
    try:
        found = await ledger.why(run=run.id)
    except NoSuchRun:
        return ""
    return (found.text.partition(": ")[2] or found.text) if found.verdict == "waiting" else ""


async def lost_by(ledger: Ledger, run: Run) -> str:
    """Who had a run that is on record as running but is gone, for people; empty: it runs, or has ended since it was read."""
    if run.state is not State.RUNNING or any(one.id == run.worker for one in await ledger.workers()):
        return ""
    try:
        found = await ledger.why(run=run.id)
    except NoSuchRun:
        return ""
    return found.text.partition("on record as running, but ")[2] if found.code == "process_down" else ""
