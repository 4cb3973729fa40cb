"""The verbs that read and write runs: submit, cancel, wait, look up. None needs a started scheduler.

Level 5. `Housed` has jobs and a store, `Switching` adds the switches, `Scheduling` the stored schedules, `Ledger` the runs and all
that is asked about them; `TaskScheduler` is a `Ledger` with an engine, which hears of each change by the few methods under
"what an engine adds". A command line needs no more than a `Ledger`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskloop import audit, durations, inquiry
from taskloop.audience import LOOK_SECONDS, Waiters
from taskloop.clock import Clock
from taskloop.context import running
from taskloop.durations import Instant
from taskloop.errors import (
    BadJob,
    BadValue,
    Conflict,
    KeyConflict,
    NoSuchRun,
    NoSuchStep,
    NotRunning,
    TaskloopError,
    nearest,
)
from taskloop.events import Event
from taskloop.executors import ended_with
from taskloop.handles import RunHandle, asked
from taskloop.jobs import Call, Duration, Job, Jobs, by_name, collections_of, name_of
from taskloop.masking import clean_step, scrubber
from taskloop.options import Options
from taskloop.parameters import check_words
from taskloop.policy import Policy
from taskloop.runs import Cancelled, Cause, Run, RunId, only_repeat_key
from taskloop.schedules import Schedule
from taskloop.scheduling import Scheduling
from taskloop.steps import RunLines, Step
from taskloop.store_data import Attempt, Definition, Incident, Query, Terms, Worker
from taskloop.switches import InForce, Switches
from taskloop.tasks import gradually

if TYPE_CHECKING:
    from taskloop.declaring import StartPlan
    from taskloop.journal import Journal, StoreWatch
    from taskloop.keyring import Keyring
    from taskloop.punctuality import Usual
    from taskloop.records import JobRecord, Status
    from taskloop.simulation import Simulation
    from taskloop.slots import Slots
    from taskloop.why import Explanation

__all__ = ["Ledger"]

RECORD_SECONDS: Final = 2.0
"""How long a cancel waits until it is on record who asked for it."""
Listener = TypeVar("Listener", bound=Callable[[Event], Any])
T = TypeVar("T")


class Ledger(Scheduling):
    """Jobs, and the records of a store."""

    # What an engine has, and a ledger alone has not: who looks asks for them.
    worker: Worker | None = None
    """This process as the store knows it; None: not started."""
    _slots: Slots | None = None
    _journal: Journal | None = None
    _store_watch: StoreWatch | None = None

    def __init__(
        self,
        store: Any = None,
        *,
        jobs: Iterable[Jobs] = (),
        config: str | Path | None = None,
        options: Options | None = None,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(store, config=config, options=options, name=name, clock=clock)
        self._removed: set[str] = set()
        self._collections: list[Jobs] = collections_of(jobs)
        self._defined: dict[str, tuple[Any, Definition]] = {}
        """What jobs declare, as it was made last, and of what."""
        self._usual: dict[RunId, Usual] = {}
        """What is usual for runs that have been running for long, see `looking`."""
        self._free_terms: dict[str, tuple[Policy, Terms]] = {}
        """What a store must know of each job while it is not held, and the policy that says so."""
        self._told_switches: Switches | None = None
        """The switches of which the store's connection was told: it hands out nothing that they hold."""
        self._terms_end: datetime | None = None
        """When what the store knows of the jobs changes by itself: the first switch in force runs out."""
        self.start_plan: StartPlan | None = None
        """What the last start changed and fired at once; None: there was none here."""
        self._waiters = Waiters()
        for collection in self._collections:
            self._collect(collection)

    @property
    def keyring(self) -> Keyring:
        """The verbs on tokens, which open the admin surface."""
        from taskloop.keyring import Keyring

        return Keyring(self._opened, self._clock)

    @property
    def is_running(self) -> bool:
        """Whether an engine goes on here; of a ledger alone never."""
        return False

    def _is_own_job(self) -> bool:
        """Whether a job of this very scheduler is calling, which cannot wait for its own end."""
        context = running.get()
        return context is not None and context.scheduler is self

    # -- jobs

    def _add(self, job: Job[..., Any]) -> None:
        super()._add(job)
        job.attach(self)
        self._removed.discard(job.name)
        if self.is_running or (self._was_read and self._is_configured):
            try:
                self._refuse_aliases([job])
                self._configure_jobs([job])
            except BadJob:  # or it contradicts what the configuration says of it
                super().remove_job(job.name)
                raise
        self._redeclared(job)

    def _collect(self, collection: Jobs) -> None:
        """Take over what `collection` holds; asked again at start, for modules that declare later."""
        for job in collection:
            if self._jobs.get(job.name) is not job and job.name not in self._removed:
                self._add(job)

    def remove_job(self, name: str) -> None:
        super().remove_job(name := self[name].name)
        self._defined.pop(name, None)
        self._free_terms.pop(name, None)
        self._removed |= {name for one in self._collections if name in one}  # the next start would take it over again
        self._redeclared()

    # -- asking for runs

    async def submit(
        self,
        job: str | Job[..., Any],
        params: Mapping[str, Any] | None = None,
        *,
        at: Instant | None = None,
        key: str | None = None,
        actor: str | None = None,
        reason: str | None = None,
        cause: Cause = Cause.MANUAL,
        connection: Any = None,
    ) -> RunHandle[Any]:
        """Ask for one run; committed when this returns, and never skipped or merged afterwards.

        `connection`: of the application to the same database (asyncpg; aiosqlite; an AsyncConnection of SQLAlchemy on one
        of them), written within its transaction: the run is there when that is committed, and never if it is rolled back.
        No event `submitted` is sent then.

        `at`: not before this instant. `key`: one run per job and key while it is kept and has not failed; asked again
        with equal parameters gives that run, with `existed`. Refused before a record exists: `NoSuchJob`,
        `BadParameters`, `Conflict` (switched off), `KeyConflict`.
        """
        if not self._is_configured:
            await self._configure()
        one = await self._own(job)
        call: Call[Any] = Call(one, one.parameters.check(by_name(one.name, params)))
        run = asked(call, self._clock.now(), at, cause=inquiry.cause(cause), key=key, actor=actor, reason=reason)
        return (await self._ask([(one, run)], connection))[0]

    async def submit_many(
        self,
        calls: Iterable[Call[T]],
        *,
        actor: str | None = None,
        reason: str | None = None,
        cause: Cause = Cause.MANUAL,
    ) -> list[RunHandle[T]]:
        """Ask for a run of each call, all in one transaction. Raises `BadJob` for what is no call."""
        wanted, cause = inquiry.calls(calls), inquiry.cause(cause)
        make = partial(asked, now=self._clock.now(), cause=cause, actor=actor, reason=reason)
        runs = await gradually(make, wanted)
        return await self._ask([(self._job(call.job), run) for call, run in zip(wanted, runs, strict=True)])

    async def _submit_call(self, call: Call[T], at: Instant | None, key: str | None, actor: str | None) -> RunHandle[T]:
        return (await self._ask([(self._job(call.job), asked(call, self._clock.now(), at, key=key, actor=actor))]))[0]

    async def _ask(
        self, wanted: Sequence[tuple[Job[..., Any], Run]], connection: Any = None, *, only_on: bool = False
    ) -> list[RunHandle[Any]]:
        """Write runs that are asked for, all or none; those this process has a slot for are started.

        A job that is off refuses all of them; `only_on`: it is left out.
        """
        store, now = await self._opened(), self._clock.now()
        await self._refresh_switches()
        if only_on:
            wanted = [(job, run) for job, run in wanted if self._is_on(job, now)]
        for one in dict.fromkeys(job for job, _ in wanted):
            self._refuse_switched_off(one, now)
        runs = [run for _, run in wanted]
        try:
            if connection is not None:
                driven = await _of_the_driver(connection)
                written = await store.submit_within(driven, runs, audit.asking(runs, now))
            else:
                runs = self._admit(runs)
                written = await store.submit(runs, partial(self._submitted, runs), audit.asking(runs, now))
        except KeyConflict as conflict:  # which goes by what is stored; nobody stores a default
            found = await store.run(RunId(conflict.run)) if len(runs) == 1 else None
            if found is None or not inquiry.is_same_call(wanted[0][0], found, runs[0]):
                raise
            written = [replace(found, existed=True)]
        return [RunHandle(run, self, job) for run, (job, _) in zip(written, wanted, strict=True)]

    def _refuse_switched_off(self, job: Job[..., Any], now: datetime) -> None:
        if self._is_on(job, now):
            return
        switch = self._switches.thrown(self._names(job), now)
        who = f" since {switch.since:%d %b %Y}" if switch else " by its declaration"
        who += f" by {switch.actor}" if switch and switch.actor else ""
        who += f': "{switch.reason}"' if switch and switch.reason else ""
        raise Conflict(f"job '{job.name}' is off{who}; `taskloop enable {job.name}` or scheduler.enable({job.name!r})")

    async def rerun(
        self,
        run_id: int,
        params: Mapping[str, Any] | None = None,
        *,
        from_step: str | None = None,
        key: str | None = None,
        once: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> RunHandle[Any]:
        """Ask for a new run like an earlier one, which it names in `rerun_of`: `params` laid over that one's own, and these
        over what is declared by now.

        `from_step`: this step, what needs it, and what had not succeeded are called again, the other results are taken
        over; None: all is done anew. `key`: as for `submit`. `once`: only if the run was not run again yet by anybody,
        however that ended; else gives the first that repeats it, with `existed`; it has the key `again-` with the id.
        Raises `NoSuchRun`, `NoSuchStep`, `BadParameters`, `Conflict`, `BadValue` for `once` and a key.
        """
        if once and key is not None:
            raise BadValue(f"run {run_id} is to be run again once, and with the key {key!r}; give one of both")
        old = await self.run(run_id)
        key = only_repeat_key(old.id) if once else key
        job = await self._own(old.job)
        call: Call[Any] = Call(job, job.parameters.check(by_name(job.name, params), over=old.params))
        run = asked(call, self._clock.now(), cause=Cause.RERUN, key=key, actor=actor, reason=reason)
        if from_step is not None:
            taken = {one.name: one.place for one in await (await self._opened()).steps(old.id)}
            names = dict.fromkeys(getattr(job, "steps", taken))
            if from_step not in names:
                raise NoSuchStep(str(from_step), job.name, nearest(str(from_step), names), names)
            run = run.changed(data={**run.data, "from_step": from_step, "from_place": taken.get(from_step)})
        return (await self._ask([(job, run.changed(rerun_of=old.id))]))[0]

    async def run_all(
        self, *, actor: str | None = None, reason: str | None = None, cause: Cause = Cause.MANUAL
    ) -> list[Run]:
        """Run every enabled job that needs no parameters, wait for all and give their final records."""
        return [await one.wait() for one in await self.submit_all(actor=actor, reason=reason, cause=cause)]

    async def submit_all(
        self, *, actor: str | None = None, reason: str | None = None, cause: Cause = Cause.MANUAL
    ) -> list[RunHandle[Any]]:
        """Ask for a run of every enabled job that needs no parameters, all in one transaction."""
        await self._refresh_switches(force=True)
        now, told, cause = self._clock.now(), {"actor": actor, "reason": reason}, inquiry.cause(cause)
        ready = [job for job in self if not job.parameters.required]
        return await self._ask([(one, asked(one.bind(), now, cause=cause, **told)) for one in ready], only_on=True)

    # -- runs

    async def run(self, run_id: int) -> Run:
        """The record of a run. Raises `NoSuchRun`."""
        found = await (await self._opened()).run(inquiry.run_id(run_id))
        if found is None:
            raise NoSuchRun(run_id)
        return found

    async def attempts(self, run_id: int) -> list[Attempt]:
        """The calls inside a run, oldest first. Raises `NoSuchRun`."""
        return list(await (await self._opened()).attempts(await self.run(run_id)))

    async def reruns(self, run_id: int) -> list[Run]:
        """The runs that repeat a run, the oldest first, at most 100; each names it in `rerun_of`. Raises `NoSuchRun`."""
        return list(await (await self._opened()).reruns((await self.run(run_id)).id))

    async def steps(self, run_id: int) -> list[Step]:
        """The steps of a run that have begun, or never will, in their order; of most jobs none. Raises `NoSuchRun`."""
        run = await self.run(run_id)
        scrub = scrubber(run.params)
        steps = [one for one in await (await self._opened()).steps(run.id) if not one.is_unbegun]
        return [one if scrub is None else clean_step(one, scrub) for one in steps]

    async def log(self, run_id: int, *, after: int = 0, limit: int = 100) -> RunLines:
        """Lines of a run's own log, the oldest first, at most `limit`: those that follow the place `after`.

        `.part` of what it gives is that place for what follows; nothing new leaves it as it was. Raises `NoSuchRun`.
        """
        store, run = await self._opened(), await self.run(run_id)
        return RunLines(*await store.lines(run.id, inquiry.limit(after, "after"), inquiry.limit(limit)))

    async def runs(
        self,
        job: str | Job[..., Any] | None = None,
        *,
        state: str | Sequence[str] | None = None,
        cause: str | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[Run]:
        """Runs, newest first, at most `limit`. `before`: only ids below, for the next page.

        `since` and `until`, of the instant they were put on record, take an instant or the time back from now (`"24h"`).
        Skips are left out unless `state` names them.
        """
        now = self._clock.now()
        names = None if job is None else self._names(job)
        query = Query(
            jobs=names,
            states=inquiry.states(state),
            cause=inquiry.cause(cause),
            since=durations.since(since, now) if since is not None else None,
            until=durations.since(until, now) if until is not None else None,
            before=inquiry.before(before),
            limit=inquiry.limit(limit),
        )
        return list(await (await self._opened()).find(query))

    async def wait(self, run_id: int, timeout: Duration | None = None) -> Run:
        """Wait until a run is final and give its record; a run that waits for another lends out its slot meanwhile.

        Raises `NoSuchRun`, `Conflict` in the run itself, `TimeoutError` after `timeout` (None: never; 0: it looks once),
        `NotRunning` where a stop has ended a store in memory first.
        """
        span = None if timeout is None else durations.parse(timeout)
        if span is not None and not span:
            if (run := await self.run(run_id)).final:
                return run
            raise TimeoutError(f"run {run_id} is {run.state}")
        context = running.get()
        self._lend(context, run_id)
        try:
            with ended_with(context):
                if span is None:
                    return await self._final(inquiry.run_id(run_id))
                async with asyncio.timeout(span.total_seconds()) as limit:
                    return await self._final(inquiry.run_id(run_id))
        except TimeoutError:
            if span is None or not limit.expired():  # of a virtual time that stands still
                raise
            waited = f"run {run_id} has not ended within {durations.format(span)}, and goes on"
            raise TimeoutError(
                f"{waited}; `taskloop why {run_id}` says since when it runs, or what it waits for"
            ) from None
        finally:
            self._take_back(context)

    async def _final(self, run_id: RunId) -> Run:
        heard = self._waiters.add(run_id)
        try:
            patience = self._patience(run_id)
            run = await self._hear(heard, patience) if patience != 0 else None
            while run is None or not run.final:
                if heard.done():  # before the look, so that nothing is said between the two
                    self._waiters.discard(run_id, heard)
                    heard = self._waiters.add(run_id)
                run = await self.run(run_id)
                if not run.final:
                    run = await self._hear(heard, self._look_seconds())
            return run
        finally:
            self._waiters.discard(run_id, heard)

    async def _hear(self, heard: asyncio.Future[Run | None], seconds: float | None) -> Run | None:
        if seconds is not None:
            self._waiters.look_later(heard)
        return await heard

    async def close(self, within: float = 10.0) -> None:
        """Let go of the store, in about `within` seconds; the next verb opens it again, one in memory empty."""
        await super().close(within)
        if self._store is not None and self._store.private:
            self._waiters.end(
                NotRunning("the scheduler stopped before that run had ended, and its store in memory is gone")
            )

    async def cancel(self, run_id: int, *, reason: str | None = None, actor: str | None = None) -> Run:
        """Ask for the end of a run: a waiting one ends now, a running one as soon as its worker hears of it.

        A final run stays as it is. Gives the record as it stands now; `wait` for the end. Raises `NoSuchRun`.
        """
        check_words(reason=reason, actor=actor)
        ending, now = Cancelled(reason, actor), self._clock.now()
        entry = audit.entry("cancel", now, actor, reason)
        if (asked := self._ask_to_end(inquiry.run_id(run_id), ending)) is not None:
            if entry is not None:
                await self._record_cancel(audit.cancelled(entry, asked))
            return asked
        store = await self._opened()

        async def carried_out() -> Run:
            done = await store.cancel(inquiry.run_id(run_id), actor=actor, reason=reason, now=now, entry=entry)
            if done is None:
                raise NoSuchRun(run_id)
            if done.ended:
                self._ended(done.run)
            # Claimed here meanwhile: nobody else would bring us the wish.
            if self._ask_to_end(done.run.id, ending) is None and done.wished and self._slots is not None:
                self._slots.leave_a_wish()
            self._stirred()
            return done.run

        return await self._through(carried_out())

    async def _record_cancel(self, entry: audit.Entry) -> None:
        """Write who asked a run in hand to end; it does so though the store be away, and its own record names that one."""
        with suppress(TaskloopError, TimeoutError):
            async with asyncio.timeout(RECORD_SECONDS):
                await (await self._opened()).record([entry])

    def _ask_to_end(self, run_id: RunId, ending: Cancelled) -> Run | None:
        """Ask a run that this process has in hand to end; None: there is none."""
        return None

    # -- what is to come

    async def upcoming(
        self, until: Instant | None = None, limit: int = 100, *, job: str | Job[..., Any] | None = None
    ) -> list[tuple[datetime, Schedule]]:
        """The coming fires, of one job or of all, earliest first, at most `limit`; `until` None: no end but the limit.

        Of what is overdue the instant since when comes first, then what is due from now on. Raises `NoSuchJob`.
        """
        from taskloop import outlook

        meant = await self._meant(job)
        jobs = None if meant is None else self._names(meant)[:1]
        return await outlook.upcoming(self, await self._opened(), until, inquiry.limit(limit), jobs)

    async def simulate(
        self,
        span: Duration,
        *,
        start: Instant | None = None,
        job: str | Job[..., Any] | None = None,
        most: int | None = None,
    ) -> Simulation:
        """What would happen in the next `span`, 366 days at most, or from `start` on; nothing is done.

        `job`: its schedules alone; `most`: so many fires one by one, see `taskloop.simulation`. Raises `NoSuchJob`.
        """
        from taskloop import outlook

        return await outlook.simulated(self, await self._opened(), span, start, job=await self._meant(job), most=most)

    async def held(self, job: str | Job[..., Any] | None = None) -> int:
        """How many fires a pause holds now, of one job, None: of all. Raises `NoSuchJob`."""
        from taskloop import outlook

        return await outlook.held(self, await self._opened(), await self._meant(job))

    # -- who changed what

    async def audit(
        self,
        *,
        actor: str | None = None,
        job: str | Job[..., Any] | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[audit.Entry]:
        """What people changed, newest first, at most `limit`. `before`: only ids below, for the next page."""
        inquiry.texts(actor=actor)
        jobs, below = None if job is None else self._names(job), inquiry.before(before)
        return list(
            await (await self._opened()).audit(actor=actor, jobs=jobs, before=below, limit=inquiry.limit(limit))
        )

    # -- looking

    async def incidents(self, since: Instant = "24h", limit: int = 100) -> list[Incident]:
        """What disturbed the workers, the newest first: loops that stood still, clocks that were set, stores away."""
        from taskloop import looking

        found = await looking.incidents(self, await self._opened(), durations.since(since, self._clock.now()))
        return found[: inquiry.limit(limit)]

    async def jobs(self, name: str | None = None) -> list[JobRecord]:
        """Every job that is declared here or that a worker of the store declared, by name; `name`: that one, or none."""
        from taskloop import looking

        return await looking.jobs(self, await self._opened(), None if name is None else [name_of(name)])

    async def status(self) -> Status:
        """How the whole stands, as the store knows it; `attention` says first what is worst."""
        from taskloop import looking

        return await looking.status(self, await self._opened())

    async def workers(self) -> list[Worker]:
        """The workers that are there."""
        from taskloop import looking

        return await looking.workers(self, await self._opened())

    async def why(
        self, job: str | Job[..., Any] | None = None, at: Instant | None = None, run: int | None = None
    ) -> Explanation:
        """Why a job did or did not run at an instant, or what became of a run and why; from what is on record.

        `at` takes an instant (without seconds: its minute) or the time back from now (the fire nearest to it, within
        half of its unit: of `"24h"` half an hour, of `"30s"` half a minute, for that is the least); None: what is due
        now, or was decided last. Raises `NoSuchJob`, `NoSuchRun`, `BadInstant`, `BadValue` where neither a job nor a
        run is named.
        """
        from taskloop import explaining

        return await explaining.why(self, await self._opened(), job, at, run)

    def definition(self, job: Job[..., Any]) -> Definition:
        """What a job declares, in plain JSON."""
        from taskloop.records import definition

        trigger = self.resolved(job.trigger) if job.trigger is not None else None
        # Asked at every look at the jobs, and dear: the schema of the parameters alone takes a millisecond.
        made_of = (job, job.policy, trigger, job.step_facts())
        known, found = self._defined.get(job.name, (None, None))
        if found is None or known != made_of:
            found = definition(job, trigger, self._clock.now())
            self._defined[job.name] = (made_of, found)
        return found._replace(seen_at=self._clock.now())

    def on(self, *names: str) -> Callable[[Listener], Listener]:
        """A decorator: call the function at each of these events; none named: at every event.

        Called once, in the process where it happened; what it raises or how long it takes touches no run. Raises
        `BadValue` for what is no event.
        """
        if any(callable(name) for name in names):
            raise BadValue("on() takes names of events; write @scheduler.on() or @scheduler.on('failed')")

        def register(listener: Listener) -> Listener:
            if not callable(listener):
                raise TypeError(f"a listener is a function that takes the event, got {type(listener).__name__}")
            self.feed.subscribe(self._deliver(listener), *names)
            return listener

        return register

    # -- what a worker declares

    def _prepare_jobs(self) -> None:
        """Take over what the collections hold by now, and lay the configuration around each job's policy."""
        for collection in self._collections:
            self._collect(collection)
        self._refuse_aliases(self)
        self._configure_jobs(self)
        self._free_terms.clear()  # they go by the configuration too

    async def _know(self) -> None:
        """Tell the store which jobs this worker has, and on which terms."""
        now, switches = self._clock.now(), self._switches
        ends = [switches.next_end(now), self._next_left(now)]
        self._terms_end = min((one for one in ends if one is not None), default=None)
        self._told_switches = None  # until it is: a caller may be cancelled, or the store away
        force = InForce(switches, now)  # at each switch each of a hundred thousand jobs comes by here
        known = [self._terms(job, bool(force.pause(job.name)) or self._is_left(job.name, now)) for job in self]
        await (await self._opened()).know(known)
        self._told_switches = switches

    def _is_untold(self) -> bool:
        """Whether the store's connection goes by other switches than those that are known here."""
        told = self._told_switches
        return told is not self._switches and told != self._switches

    def _terms(self, job: Job[..., Any], held: bool) -> Terms:
        policy, (of, terms) = job.policy, self._free_terms.get(job.name, (None, None))
        if terms is None or of is not policy:
            terms = Terms(
                job=job.name,
                gated=policy.overlap != "allow",
                group=policy.group,
                places=self.options.groups.get(policy.group, 1) if policy.group else 1,
                max_running=policy.max_running,
                expires=policy.max_late is not None,
            )
            self._free_terms[job.name] = policy, terms
        return terms._replace(held=True) if held else terms

    async def _declare_late(self, jobs: Sequence[Job[..., Any]]) -> None:
        """Declare jobs that were added to, or take back those removed from, a started scheduler."""
        from taskloop.declaring import configured, declare

        jobs = await configured(self, jobs)
        await self._know()
        store = await self._opened()
        plan = await declare(self, store, jobs, self._clock.now(), others=await store.workers(living=True))
        if plan.changed or plan.dropped or plan.renamed:  # another version had it otherwise, and nobody here has asked
            self._say("INFO", "scheduler.plan", **plan.told())
        self._stirred()

    def _next_left(self, now: datetime) -> datetime | None:
        """When the next job will be left to others; None: never."""
        return None

    # -- what an engine adds

    def _vitals(self) -> Mapping[str, Any]:
        """What this process says of itself as a worker; empty: it is none."""
        return {}

    def _redeclared(self, *jobs: Job[..., Any]) -> None:
        """Jobs were added, or (none) one was removed: a started engine tells its store."""

    def _admit(self, runs: list[Run]) -> list[Run]:
        """Claim at once those runs for which this process has a slot; without an engine all wait."""
        return runs

    def _submitted(self, asked: Sequence[Run], answer: Sequence[Run] | Exception) -> None:
        """Runs were written, or could not be; those that this process claimed are to start."""
        for run in () if isinstance(answer, Exception) else answer:
            if not run.existed:
                self.feed.send("submitted", run.created_at, run)

    def _ended_elsewhere(self, runs: Sequence[RunId]) -> None:
        """Other processes have told that runs have ended: whoever waits for one looks."""
        for run_id in runs:
            self._waiters.announce(run_id, None)

    def _ended(self, run: Run) -> None:
        """A run became final by a verb of this ledger."""
        self.feed.send(run.state.value, self._clock.now(), run)

    def _lend(self, context: Any, run_id: int) -> None:
        """The run in hand waits for another: its slot is free meanwhile."""

    def _take_back(self, context: Any) -> None: ...

    def _patience(self, run_id: RunId) -> float | None:
        """Seconds to listen before the store is asked; None: this process has the run and will tell for certain."""
        return 0

    def _look_seconds(self) -> float | None:
        """How long to listen for a run that is not final before looking again; None: until it is told."""
        return LOOK_SECONDS

    def _deliver(self, listener: Callable[[Event], Any]) -> Callable[[Event], None]:
        return listener


async def _of_the_driver(connection: Any) -> Any:
    """What SQLAlchemy has of its driver. It begins a transaction with the first statement of its own only: what is written
    before that past it would be committed at once, whatever becomes of the transaction.
    """
    if not hasattr(connection, "get_raw_connection"):
        return connection
    await connection.exec_driver_sql("SELECT 1")
    return (await connection.get_raw_connection()).driver_connection
