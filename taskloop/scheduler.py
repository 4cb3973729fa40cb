"""The engine: `TaskScheduler`, everything that moves.

The way of a fire. `start` makes one host task; it opens the store, mends what an earlier life left, and keeps two loops:

    _fire_loop   one timer: sleep until the earliest due instant, or a wake -> `_tick`
                 _tick: what is due -> plan (pure) -> store.fire (one transaction) -> _launch what it claimed
                        what waits  -> store.claim -> _launch
    _tend_loop   heartbeat, runs of silent workers, wishes and switches of other processes, progress, pruning

`_launch` gives each run a task of its own, `_perform`: call the function (`attempts`), `settle` (pure), write, tell.
`stop` ends the loops, waits for the attempts, asks the rest to end, abandons what does not, lets go of the store.

A slot is taken before a run is claimed and given back when its function has ended, so `_free` never lies about what
this process is doing. Nothing here holds back a store's answer: whatever it hands out comes through a `heed` callback,
even if the task that asked was cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Self

from taskloop import durations
from taskloop.attempts import Attempt
from taskloop.context import RunContext, running
from taskloop.errors import NotRunning, StoreUnavailable, TaskloopError
from taskloop.events import Event
from taskloop.executors import Executor, InThread, OnLoop
from taskloop.jobs import Duration, Job
from taskloop.ledger import Ledger
from taskloop.logs import Speaker
from taskloop.processes import is_dead, this_process
from taskloop.runs import Cancelled, Cause, Lost, Outcome, Run, RunId, ShutDown, State, settle
from taskloop.schedules import Plan, Schedule, bind, plan, rebind
from taskloop.signals import Signals
from taskloop.store import Claimed, Due, Fired, Firing, Settling, Store, Terms, Worker

__all__ = ["TaskScheduler"]

DUE_AT_ONCE: Final = 200
"""Schedules planned in one go: a few milliseconds of the loop, however many are due."""
LONGEST_NAP: Final = 60.0
"""No sleep is longer, so that a step of the wall clock is noticed within a minute."""
GAP: Final = timedelta(seconds=30)
"""A nap that ends this much later than it should was no nap: the machine slept or its clock was set."""
TEND_SECONDS: Final = 0.5
"""How often wishes of other processes are looked for, and progress is written."""
PRUNE_SECONDS: Final = 3600.0
LISTENER_SECONDS: Final = 30.0


class TaskScheduler(Ledger):
    """Runs jobs inside an asyncio program and keeps a record of every fire.

    `store`: an address (`sqlite:///app.db`), a path or a Store. Making a scheduler opens nothing: no file, no thread,
    no loop. `jobs`: collections to take over; `options`: limits and spans.
    """

    def __init__(self, *args: Any, executors: dict[str, Executor] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.speaker = Speaker()
        self._executors = executors
        self._own_executors: dict[str, Executor] = {}
        self._host: asyncio.Task[None] | None = None
        self._worker: Worker | None = None
        self._phase = "stopped"
        self._attempts: dict[RunId, Attempt] = {}
        self._watchers: dict[RunId, set[asyncio.Future[Run | None]]] = {}
        self._listeners = InThread(1)
        self._spoken = False
        self._held_until: datetime | None = None
        self._listening: set[asyncio.Task[Any]] = set()
        self._free = 0
        self._backlog = False
        self._watched_since: datetime | None = None
        self._grace: timedelta | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and is not stopping."""
        return self._phase == "running"

    @property
    def in_flight(self) -> int:
        """Calls that wait for a thread, of the store, of jobs or of listeners: a virtual clock lets them end first."""
        executors = sum(one.in_flight for one in self._own_executors.values())
        return executors + self._listeners.in_flight + getattr(self._store, "in_flight", 0)

    # -- start and stop

    async def start(self, interval: Duration | None = None) -> None:
        """Open the store, mend what an earlier life left, and begin to fire; waits until that is done.

        `interval`: of every `every()` that names none; None: the options'. A second start warns and changes nothing.
        A start that failed has closed everything again and may be tried anew. Raises `BadJob`, `BadStore`,
        `StoreUnavailable`.
        """
        if self._host is not None:
            self.speaker.say("WARNING", "scheduler.already_running")
            return
        if interval is not None:
            self.options = replace(self.options, interval=durations.parse_interval(interval))
        self._closing, self._hurrying, self._wake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._loop, self._pid, self._grace = asyncio.get_running_loop(), os.getpid(), None
        started: asyncio.Future[None] = self._loop.create_future()
        self._phase = "starting"
        self._host = self._loop.create_task(self._live(started), name="taskloop")
        try:
            await asyncio.shield(started)
        except asyncio.CancelledError:
            await self.stop(grace=0)
            raise

    async def stop(self, grace: Duration | None = None) -> None:
        """Fire no more, let running runs end, record what each came to, and let go of the store.

        Waits at most `grace` (None: the options', 30 s), then cancels, waits the options' `kill_grace`, then abandons.
        Safe before `start`, twice, and after the host closed the loop it started on. Called by a job of its own it
        returns at once, and that job gets the grace too.
        """
        host = self._host
        if host is None:
            await self.close()
            return
        if self._loop.is_closed():
            self._forget()
            return
        self._grace = durations.parse(grace) if grace is not None else self.options.grace
        if self._closing.is_set():
            self._hurrying.set() if grace is not None and not self._grace else None
        self._closing.set()
        self._wake.set()
        context = running.get()
        if context is not None and context.scheduler is self:
            return
        await asyncio.wait({host})

    async def serve(self, interval: Duration | None = None, *, run_for: Duration | None = None) -> int | None:
        """Start, wait for SIGINT, SIGTERM or SIGHUP, stop; gives the signal's number, None if it ended otherwise.

        A second signal ends the grace. Handlers that stood before are called too, and put back afterwards. `run_for`
        None: the options' `max_runtime`, by default no end.
        """
        span = durations.parse(run_for) if run_for is not None else self.options.max_runtime
        with Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            signals.on_repeat = self._hurry
            starting = asyncio.ensure_future(self.start(interval))
            first = asyncio.ensure_future(signals.wait())
            try:
                await asyncio.wait({starting, first}, return_when=asyncio.FIRST_COMPLETED)
                if not first.done():
                    starting.result()
                    await asyncio.wait({first}, timeout=span.total_seconds() if span else None)
                if first.done():
                    self.speaker.say("INFO", "signal.received", signal=signal.Signals(first.result()).name)
            finally:
                starting.cancel()
                await asyncio.wait({starting})
                await self.stop()
                first.cancel()
            return signals.received

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _hurry(self) -> None:
        if self._host is not None:
            self._hurrying.set()

    # -- the host task

    async def _live(self, started: asyncio.Future[None]) -> None:
        """Everything between start and stop, in one task that outlives the one that called `start`."""
        loops: list[asyncio.Task[None]] = []
        try:
            await self._begin()
            self._phase = "running"
            if self.options.enabled:
                loops.append(self._loop.create_task(self._fire_loop(), name="taskloop fire"))
            loops.append(self._loop.create_task(self._tend_loop(), name="taskloop tend"))
            self.speaker.say("INFO", "scheduler.started", jobs=len(self), store=self._store_open.url)
            started.set_result(None)
            await self._closing.wait()
            self._phase = "stopping"
            self.speaker.say("INFO", "scheduler.stopping", running=len(self._attempts))
            await self._wind_down(self._grace or timedelta(0))
        except BaseException as error:  # noqa: BLE001 - whoever awaits start() is told, whatever it was
            if not started.done():
                started.set_exception(error)
            elif isinstance(error, asyncio.CancelledError):  # the host is ending its loop: no time for graces
                await self._wind_down(timedelta(0))
            else:
                raise
        finally:
            for loop in loops:
                loop.cancel()
            await self._end()

    async def _begin(self) -> None:
        for collection in self._collections:
            self._collect(collection)
        for job in self:
            job.configure(self.options.defaults, self.options.jobs.get(job.name, {}))
        store, now = await self._opened(), self._clock.now()
        self._own_executors = self._executors or {"loop": OnLoop(), "thread": InThread(self.options.threads)}
        self._free, self._backlog, self._attempts = self.options.max_running, True, {}
        self._worker = this_process(self.name, now)
        others = await store.enlist(self._worker)
        live = await self._rescue(others)
        self._watched_since = min((one.started_at for one in live), default=now)
        await self._refresh_switches(force=True)
        await self._know()
        await store.define([self.definition(job) for job in self])
        await self._declare(store, now, alone=not live)
        self._speak()

    async def _declare(self, store: Store, now: datetime, *, alone: bool) -> None:
        """Store the schedules that code and file declare; one that is stored already keeps its cursor."""
        declared = []
        for job in self:
            if job.trigger is not None:
                trigger = self.resolved(job.trigger)
                declared.append(
                    Schedule(
                        id=job.name, job=job.name, trigger=trigger, params=job.params, origin=job.origin, seen_at=now
                    )
                )

        def merge(old: Schedule | None, new: Schedule) -> Schedule:
            policy = self._jobs[new.job].policy
            return bind(new, policy, now) if old is None else rebind(old, new, policy, now)

        stored = {one.id: one for one in await store.put(declared, merge)}
        if not alone or not self.options.enabled:
            return
        due = {name for name, one in stored.items() if one.next_due is not None and one.next_due <= now}
        wanted = [job for job in self if job.policy.on_start and job.name not in due and self._is_on(job, now)]
        await store.submit([self._on_start(job, now) for job in wanted])

    def _on_start(self, job: Job[..., Any], now: datetime) -> Run:
        return Run(
            job=job.name,
            schedule=job.name if job.trigger is not None else None,
            cause=Cause.ON_START,
            params=job.params,
            attempts=job.policy.retry.attempts,
            due_at=now,
            ready_at=now,
            created_at=now,
            priority=job.policy.priority,
        )

    async def _wind_down(self, grace: timedelta) -> None:
        """Give running attempts `grace`, ask them to end, abandon what does not."""
        await self._ended_within(grace.total_seconds(), heed_hurry=True)
        kill_grace = self.options.kill_grace.total_seconds()
        for attempt in list(self._attempts.values()):
            attempt.ask(ShutDown(), self._abandon, kill_grace)
        await self._ended_within(kill_grace, heed_hurry=False)
        for attempt in list(self._attempts.values()):
            self._abandon(attempt)
        await self._ended_within(1.0, heed_hurry=False)

    async def _ended_within(self, seconds: float, *, heed_hurry: bool) -> None:
        """Wait until no attempt is unrecorded, at most `seconds`, or until somebody hurries."""
        hurry = asyncio.ensure_future(self._hurrying.wait()) if heed_hurry else None
        deadline = self._loop.time() + seconds
        try:
            while self._attempts and (left := deadline - self._loop.time()) > 0:
                watched = {asyncio.ensure_future(self._idle()), *([hurry] if hurry else [])}
                await asyncio.wait(watched, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if hurry is not None and hurry.done():
                    return
        finally:
            if hurry is not None:
                hurry.cancel()

    async def _idle(self) -> None:
        """Return when every attempt that is in hand now is recorded."""
        heard = [(run_id, self._watch(run_id)) for run_id in list(self._attempts)]
        await asyncio.wait({one for _, one in heard if one is not None})

    async def _end(self) -> None:
        """Leave nothing open; the last thing a host task does."""
        store = self._store
        with suppress(TaskloopError, asyncio.CancelledError):
            if store is not None and self._worker is not None and self._store_is_open:
                await store.leave(self._worker.id, self._clock.now())
        with suppress(TaskloopError, asyncio.CancelledError):
            await self.close()
        thread = self._own_executors.get("thread")
        if isinstance(thread, InThread) and self._executors is None:
            thread.close()
        self.speaker.say("INFO", "scheduler.stopped")
        self._forget()

    def _forget(self) -> None:
        self._host, self._worker, self._phase = None, None, "stopped"
        self._store_is_open = False

    # -- firing

    async def _fire_loop(self) -> None:
        failures = 0
        while not self._closing.is_set():
            asked_at = self._clock.now()
            try:
                nap = await self._tick(asked_at)
                if failures:
                    self.feed.send("store_back", self._clock.now())
                failures = 0
            except StoreUnavailable as error:
                failures += 1
                nap = min(30.0, 0.5 * 2 ** min(failures, 6))
                if failures == 1:
                    self.feed.send("store_lost", self._clock.now(), text=str(error))
            await self._sleep(nap)
            self._notice_gap(asked_at, nap)

    async def _tick(self, now: datetime) -> float:
        """Fire what is due and start what waits; gives the seconds until there is something to do again."""
        store = self._store_open
        assert self._worker is not None
        if self._held_until is not None and now >= self._held_until:
            await self._know()
        due = await store.due(now, DUE_AT_ONCE)
        if due.schedules:
            firings = self._plans(due, now)
            await store.fire(firings, self._worker.id, now, partial(self._fired, [one.starts for one in firings]))
        wakes = [due.next_at]
        if self._backlog and self._free > 0:
            slots, self._free, self._backlog = self._free, 0, False
            claimed = await store.claim(self._worker.id, now, slots, partial(self._claimed, slots))
            wakes.append(claimed.next_at)
            if claimed.next_at is not None:
                self._backlog = True
        if due.schedules or (self._backlog and self._free > 0 and wakes[-1] is None):
            return 0.0
        wakes += [switch.until for switch in self._switches if switch.holds(now)]
        soonest = min((at for at in wakes if at is not None), default=None)
        if soonest is None:
            return LONGEST_NAP
        return min(LONGEST_NAP, max(0.0, (soonest - self._clock.now()).total_seconds()))

    def _plans(self, due: Due, now: datetime) -> list[Firing]:
        firings = []
        for schedule in due.schedules:
            job = self._jobs[schedule.job]
            since, missed = self._watched(schedule)
            try:
                planned = plan(
                    schedule, job.policy, now=now, watched_since=since, enabled=self._is_on(job, now), missed=missed
                )
            except Exception as error:  # noqa: BLE001 - one schedule that cannot be planned must not stop the others
                self.speaker.say("ERROR", "schedule.stopped", schedule=schedule.id, error=repr(error))
                planned = Plan(schedule, (), None, now)
            starts = self._free > 0
            self._free -= starts
            firings.append(Firing(planned, job.policy, starts))
        return firings

    def _watched(self, schedule: Schedule) -> tuple[datetime, Any]:
        """Since when somebody was there to fire `schedule`, and how its held fires are to be settled."""
        since = self._watched_since or self._clock.now()
        pauses = [one for one in self._switches if one.kind == "paused" and one.job in (None, schedule.job)]
        for pause in pauses:
            end = pause.ended_at or pause.until
            if end is not None and schedule.next_due is not None and pause.since <= schedule.next_due < end:
                return max(since, end), pause.missed
        return since, None

    def _fired(self, reserved: Sequence[bool], answer: Fired | Exception) -> None:
        """Start what a transaction of fires claimed, and give back the slots it did not need."""
        self._free += sum(reserved)
        if isinstance(answer, Exception):
            return
        self._free -= len(answer.started)
        self._backlog |= answer.waiting > 0
        for run in answer.started:
            self._launch(run)
        for run in (*answer.skipped, *answer.cancelled):
            self._tell(run)
        for run_id in answer.replaced:
            if run_id in self._attempts:
                self._ask(self._attempts[run_id], Cancelled("superseded"))

    def _claimed(self, reserved: int, answer: Claimed | Exception) -> None:
        self._free += reserved
        if isinstance(answer, Exception):
            self._backlog = True
            return
        self._free -= len(answer.started)
        self._backlog |= answer.more or len(answer.started) == reserved
        for run in answer.started:
            self._launch(run)
        for run in answer.expired:
            self._tell(run)

    async def _sleep(self, seconds: float) -> None:
        """The one timer: sleep, or until `_wake` is set."""
        if seconds > 0 and not self._wake.is_set():
            timer = self._loop.call_later(seconds, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
        elif not self._wake.is_set():
            await asyncio.sleep(0)
        self._wake.clear()

    def _notice_gap(self, asked_at: datetime, nap: float) -> None:
        """After a suspend or a step of the clock, what was due meanwhile was missed, not late."""
        now = self._clock.now()
        if now - asked_at > timedelta(seconds=nap) + GAP:
            self._watched_since = now
            self.speaker.say("WARNING", "clock.gap", seconds=round((now - asked_at).total_seconds(), 1))

    # -- attempts

    def _launch(self, run: Run) -> None:
        """Give a run that is committed as running its task."""
        job = self._jobs[run.job]
        context = RunContext(run, monotonic=self._clock.monotonic, call=self._call_from_thread, scheduler=self)
        executor = self._own_executors[job.policy.executor or ("loop" if job.is_async else "thread")]
        attempt = Attempt(run, job, context, executor)
        self._attempts[run.id] = attempt
        attempt.task = self._loop.create_task(self._perform(attempt))
        if job.policy.timeout is not None:
            attempt.limit(job.policy.timeout.total_seconds(), self._abandon, self.options.kill_grace.total_seconds())
        self.feed.send("started", run.started_at or run.created_at, run)

    async def _perform(self, attempt: Attempt) -> None:
        outcome = await attempt.outcome(self._clock.now, random.random)
        self._free += 1
        if self._backlog:
            self._wake.set()
        if not attempt.settled:
            await self._record(attempt, outcome)

    async def _record(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write what an attempt came to, however long the store is away, and tell it."""
        attempt.settled = True
        run = attempt.run
        if attempt.context.latest is not None:
            run = replace(run, progress=attempt.context.latest)
        now = self._clock.now()
        after = settle(run, outcome, now=now, repeatable=attempt.policy.repeatable)
        written = await self._settled(Settling(attempt.run, after, outcome))
        self._attempts.pop(run.id, None)
        self._announce(run.id, after if written else None)
        if written:
            self._tell(after)
        if after.state is State.WAITING or after.schedule is not None or attempt.policy.constrained:
            self._stirred()  # itself, the next of its schedule or one of its group may start now

    async def _settled(self, settling: Settling) -> bool:
        delay = 0.1
        while True:
            try:
                return await self._store_open.settle(settling)
            except StoreUnavailable as error:
                self.speaker.say("ERROR", "store.lost", run=settling.before.id, error=str(error))
                await asyncio.sleep(delay)
                delay = min(30.0, delay * 2)

    def _ask(self, attempt: Attempt, ending: Outcome) -> None:
        attempt.ask(ending, self._abandon, self.options.kill_grace.total_seconds())

    def _abandon(self, attempt: Attempt) -> None:
        """Record an attempt that was asked to end and goes on; its slot stays taken until it does end."""
        if not attempt.settled:
            self._listen(self._record(attempt, attempt.abandoned()))

    def _call_from_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(function(*args, **kwargs), self._loop).result()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """From another thread: run an async function on the scheduler's loop, wait and give its result."""
        if self._host is None:
            raise NotRunning("call() needs a started scheduler; await start() first")
        return self._call_from_thread(function, *args, **kwargs)

    # -- tending

    async def _tend_loop(self) -> None:
        beat_at = prune_at = self._loop.time()
        while not self._closing.is_set():
            await asyncio.sleep(TEND_SECONDS)
            with suppress(StoreUnavailable):
                await self._heed_others()
                await self._write_progress()
                if self._loop.time() >= beat_at:
                    beat_at = self._loop.time() + self.options.heartbeat.total_seconds()
                    await self._beat()
                if self._loop.time() >= prune_at and self.options.keep is not None:
                    prune_at = self._loop.time() + PRUNE_SECONDS
                    await self._prune(self.options.keep)

    async def _heed_others(self) -> None:
        """Take note of what other processes wrote: submits, cancels, switches, schedules."""
        store = self._store_open
        if not await store.changed():
            return
        before = self._switches
        await self._refresh_switches(force=True)
        if before != self._switches:
            await self._know()
        await self._grant_wishes()
        self._backlog = True
        self._wake.set()

    async def _grant_wishes(self) -> None:
        assert self._worker is not None
        for wish in await self._store_open.wishes(self._worker.id):
            attempt = self._attempts.get(wish.run)
            if attempt is not None:
                self._ask(attempt, Cancelled(wish.reason, wish.actor))

    async def _write_progress(self) -> None:
        reports = []
        for attempt in self._attempts.values():
            latest = attempt.context.latest
            if latest is not None and latest is not attempt.run.progress and not attempt.settled:
                attempt.run = replace(attempt.run, progress=latest)
                reports.append((attempt.run, latest))
                self.feed.send("progress", self._clock.now(), attempt.run)
        if reports:
            await self._store_open.progress(reports)

    async def _beat(self) -> None:
        assert self._worker is not None
        store = self._store_open
        await store.beat(self._worker.id, self._clock.now())
        await self._rescue([one for one in await store.workers() if one.stopped_at is None])

    async def _rescue(self, others: Sequence[Worker]) -> list[Worker]:
        """Settle the runs of workers that are gone; gives those that live."""
        store, now = self._store_open, self._clock.now()
        dead = [
            one
            for one in others
            if self._worker is not None and one.id != self._worker.id
            and (is_dead(one) or now - one.beat_at > self.options.lease)
        ]
        for run in await store.orphans([one.id for one in dead]) if dead else ():
            repeatable = run.job in self and self._jobs[run.job].policy.repeatable
            after = settle(run, Lost(), now=now, repeatable=repeatable)
            if await store.settle(Settling(run, after, Lost())):
                self.feed.send("recovered", now, after)
                self._tell(after)
                self._backlog = True
        for one in dead:
            await store.leave(one.id, one.beat_at)
        return [one for one in others if one not in dead]

    async def _prune(self, keep: timedelta) -> None:
        while not self._closing.is_set() and await self._store_open.prune(ended_before=self._clock.now() - keep):
            await asyncio.sleep(0.05)  # a fire goes before the next batch

    # -- what a ledger asks of an engine

    @property
    def _store_open(self) -> Store:
        if self._store is None or not self._store_is_open:
            raise StoreUnavailable("the store is closed; the scheduler is stopping")
        return self._store

    def _is_on(self, job: Job[..., Any], now: datetime) -> bool:
        return self.is_enabled(job.name, job.policy.enabled, now)

    def _admit(self, runs: list[Run]) -> list[Run]:
        if not self.is_running or not self.options.enabled or self._backlog:
            return runs
        return [self._begun(run) if self._has_place(run) else run for run in runs]

    def _has_place(self, run: Run) -> bool:
        policy = self._jobs[run.job].policy
        held = self._switches and self.pause_of(run.job, run.created_at) is not None
        return self._free > 0 and run.ready_at <= run.created_at and not policy.constrained and not held

    def _begun(self, run: Run) -> Run:
        self._free -= 1
        assert self._worker is not None
        at = run.created_at
        return replace(
            run, state=State.RUNNING, worker=self._worker.id, token=1, attempt=1, started_at=at, attempt_started_at=at
        )

    def _submitted(self, asked: Sequence[Run], answer: Sequence[Run] | Exception) -> None:
        self._free += sum(run.state is State.RUNNING for run in asked)
        if isinstance(answer, Exception):
            return
        for run in answer:
            if run.existed:
                continue
            self.feed.send("submitted", run.created_at, run)
            if run.state is State.RUNNING:
                self._free -= 1
                self._launch(run)
            else:
                self._stirred()

    def _stirred(self) -> None:
        if self._phase == "running":
            self._backlog = True
            self._wake.set()

    async def _refresh_switches(self, *, force: bool = False) -> None:
        if force or self._phase != "running":
            await super()._refresh_switches()

    async def _switched(self) -> None:
        await self._refresh_switches(force=True)
        if self._phase == "running":
            await self._know()
        self._stirred()

    async def _know(self) -> None:
        """Tell the store which jobs this worker has, and on which terms."""
        now = self._clock.now()
        ends = [one.until for one in self._switches if one.until is not None and one.holds(now)]
        self._held_until = min(ends, default=None)
        await self._store_open.know([self._terms(job, now) for job in self])

    def _terms(self, job: Job[..., Any], now: datetime) -> Terms:
        policy = job.policy
        return Terms(
            job=job.name,
            held=self.pause_of(job.name, now) is not None,
            gated=policy.overlap != "allow",
            group=policy.group,
            places=self.options.groups.get(policy.group, 1) if policy.group else 1,
            max_running=policy.max_running,
        )

    async def cancel(self, run_id: int, *, reason: str | None = None, actor: str | None = None) -> Run:
        attempt = self._attempts.get(RunId(run_id))
        if attempt is None:
            return await super().cancel(run_id, reason=reason, actor=actor)
        self._ask(attempt, Cancelled(reason, actor))
        return attempt.run

    def _lend(self, context: RunContext | None) -> None:
        if context is not None and context.scheduler is self:
            self._free += 1
            self._stirred()

    def _take_back(self, context: RunContext | None) -> None:
        if context is not None and context.scheduler is self:
            self._free -= 1

    def _watch(self, run_id: RunId) -> asyncio.Future[Run | None] | None:
        if self._host is None:
            return None
        heard: asyncio.Future[Run | None] = self._loop.create_future()
        self._watchers.setdefault(run_id, set()).add(heard)
        return heard

    def _unwatch(self, run_id: RunId, heard: asyncio.Future[Run | None] | None) -> None:
        watchers = self._watchers.get(run_id)
        if watchers is not None and heard is not None:
            watchers.discard(heard)
            if not watchers:
                self._watchers.pop(run_id, None)

    def _is_here(self, run_id: RunId) -> bool:
        return run_id in self._attempts

    def _ended(self, run: Run) -> None:
        self._announce(run.id, run)
        self._tell(run)

    def _announce(self, run_id: RunId, run: Run | None) -> None:
        for heard in self._watchers.pop(run_id, ()):
            if not heard.done():
                heard.set_result(run)

    # -- telling

    def _tell(self, run: Run) -> None:
        name = "retrying" if run.state is State.WAITING else run.state.value
        self.feed.send(name, run.ended_at or run.ready_at, run)

    def _speak(self) -> None:
        if not self._spoken:
            self._spoken = True
            self.feed.subscribe(self.speaker, *self.speaker.events())

    def _deliver(self, listener: Callable[[Event], Any]) -> Callable[[Event], None]:
        def deliver(event: Event) -> None:
            if self._host is not None:
                self._listen(self._call_listener(listener, event))

        return deliver

    async def _call_listener(self, listener: Callable[[Event], Any], event: Event) -> None:
        try:
            if asyncio.iscoroutinefunction(listener):
                async with asyncio.timeout(LISTENER_SECONDS):
                    await listener(event)
            else:
                await self._listeners.call(listener, None, {"event": event})
        except Exception as error:  # noqa: BLE001 - a listener's trouble is its own
            self.speaker.say("WARNING", "listener.failed", listener=repr(listener), error=repr(error))

    def _listen(self, work: Any) -> None:
        """Run a coroutine beside everything else, held until it is done."""
        task = self._loop.create_task(work)
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)
