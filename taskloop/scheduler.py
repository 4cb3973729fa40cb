"""The engine: `TaskScheduler`, everything that moves.

The way of a fire. `start` makes one host task, `_live`; it opens the store, mends what an earlier life left, and keeps
two loops:

    _fire_loop   one timer: sleep until the earliest due instant, or a wake -> `_tick`
                 _tick: what is due -> plan (pure) -> store.fire (one transaction) -> slots.launch what it claimed
                        what waits  -> store.claim -> slots.launch
    _tend_loop   `tending`: beats, runs of dead workers, wishes and switches of other processes, progress, pruning

`slots` gives each run a task of its own: call the function (`attempts`), `settle` (pure), write, tell. `stop` ends the
loops, waits for the runs in hand, asks the rest to end, abandons what does not, lets go of the store.

Whatever the store hands out arrives by a `heed` callback, even if the task that asked was cancelled meanwhile: a run
that is committed as running is always started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any, Final, ParamSpec, Self, TypeVar

from taskloop import durations
from taskloop.audience import Listeners
from taskloop.clock import EPOCH, Clock
from taskloop.context import RunContext, running
from taskloop.errors import Conflict, NotRunning, StoreUnavailable, TaskloopError
from taskloop.events import Event, Subscriber
from taskloop.executors import Executor, InThread, OnLoop
from taskloop.jobs import Duration, Job, Jobs
from taskloop.ledger import LOOK_SECONDS, Ledger
from taskloop.logs import Speaker
from taskloop.options import Options
from taskloop.processes import this_process
from taskloop.runs import Cancelled, Run, RunId, State
from taskloop.schedules import Plan, plan
from taskloop.signals import until_signal
from taskloop.slots import Slots
from taskloop.store import Claimed, Due, Fired, Firing, Store, Worker
from taskloop.tending import Tending

__all__ = ["TaskScheduler"]

P = ParamSpec("P")
T = TypeVar("T")

DUE_AT_ONCE: Final = 100
"""Schedules planned in one go: a few milliseconds of the loop, however many are due."""
LONGEST_NAP: Final = 60.0
"""No sleep is longer, so that a step of the wall clock is noticed within a minute."""
GAP: Final = timedelta(seconds=30)
"""A nap that ends this much later than it should was no nap: the machine slept or its clock was set."""


class TaskScheduler(Ledger):
    """Runs jobs inside an asyncio program and keeps a record of every fire.

    `store`: an address (`sqlite:///app.db`), a path or a Store; None: what the environment names, else
    `sqlite:///taskloop.db`. `jobs`: collections to take over. `config`: a configuration file to read at start;
    `options`: the same as values. Making a scheduler opens nothing: no file, no thread, no loop.
    """

    _phase = "stopped"

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
        super().__init__(store, jobs=jobs, config=config, options=options, name=name, clock=clock)
        self.speaker = Speaker()
        self._executors: dict[str, Executor] = {}
        self._host: asyncio.Task[None] | None = None
        self.worker: Worker | None = None
        """This process as the store knows it; None: not started."""
        self._closing, self._hurrying, self._wake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._listeners = Listeners(self.speaker.say)
        self._slots: Slots | None = None
        self._backlog = False
        """Whether runs may be waiting in the store that a free slot should go to."""
        self._waits = True
        """Whether any run may be waiting in the store at all."""
        self._unread = True
        """Whether schedules may have changed since they were last read."""
        self._next_at: datetime | None = None
        self._ready_at: datetime | None = None
        """When the next waiting run is ready that was not when last asked."""
        self._watched_since = EPOCH
        self._spoken = False

    @property
    def is_running(self) -> bool:
        """Whether it was started and is not stopping."""
        return self._phase == "running"

    @property
    def in_flight(self) -> int:
        """Calls that wait for a thread, of the store, of jobs or of listeners: a virtual clock lets them end first."""
        threads = sum(one.in_flight for one in self._executors.values()) + self._listeners.in_flight
        return threads + getattr(self._store, "in_flight", 0)

    # -- start and stop

    async def start(self, interval: Duration | None = None) -> None:
        """Open the store, mend what an earlier life left, and begin to fire; waits until that is done.

        `interval`: of every `every()` that names none; None: the configuration's, 2 weeks. A second start warns and
        changes nothing. A start that failed may be tried again. Raises `BadSettings`, `BadJob`, `BadStore`,
        `StoreUnavailable`.
        """
        if self._host is not None:
            self.speaker.say("WARNING", "scheduler.already_running")
            return
        self._interval = None if interval is None else durations.parse_interval(interval)
        self._closing, self._hurrying, self._wake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._grace = timedelta(0)
        started: asyncio.Future[None] = self._loop.create_future()
        self._phase = "starting"
        self._host = host = self._loop.create_task(self._live(started), name="taskloop")
        try:
            await asyncio.shield(started)
        except asyncio.CancelledError:
            await self.stop(grace=0)
            raise
        except BaseException:
            await asyncio.wait({host})
            raise

    async def stop(self, grace: Duration | None = None) -> None:
        """Fire no more, let running runs end, record what each came to, and let go of the store.

        Waits at most `grace` (None: the configuration's, 30 s), then cancels, waits `kill_grace`, then abandons. Safe
        before `start`, twice (a second stop with grace 0 ends the first's), and after the host closed the loop it
        started on. Called by a job of its own it returns at once, and that job gets the grace too.
        """
        host = self._host
        if host is None:
            return await self.close()
        if self._loop.is_closed():  # the host took the engine away with its loop; the next start mends the records
            self._host = self.worker = self._slots = None
            self._phase = "stopped"
            return await self.close()
        span = self.options.grace if grace is None else durations.parse(grace)
        if not self._closing.is_set():
            self._grace = span
        elif not span:
            self._hurrying.set()
        self._closing.set()
        self._wake.set()
        context = running.get()
        if context is None or context.scheduler is not self:
            await asyncio.wait({host})

    async def serve(self, interval: Duration | None = None, *, run_for: Duration | None = None) -> int | None:
        """Start, wait for SIGINT, SIGTERM or SIGHUP, stop; gives the signal's number, None if it ended otherwise.

        A second signal ends the grace. Handlers that stood before are called too, and put back afterwards. `run_for`
        None: the configuration's `max_runtime`, by default no end. Raises what `start` raises.
        """

        async def served() -> None:
            await self.start(interval)
            span = durations.parse(run_for) if run_for is not None else self.options.max_runtime
            if self._host is not None:
                await asyncio.wait({self._host}, timeout=span.total_seconds() if span else None)

        def heard(one: Signals) -> None:
            self.speaker.say("INFO", "signal.received", signal=one.name)

        return await until_signal(served(), stop=self.stop, hurry=lambda: self._hurrying.set(), heard=heard)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- the host task

    async def _live(self, started: asyncio.Future[None]) -> None:
        """Everything between start and stop, in a task that outlives the one that called `start`."""
        from anyio import (
            create_task_group,  # here, not above: importing taskloop should cost a host as little as it can
        )

        try:
            slots = await self._begin()
            async with create_task_group() as loops:
                self._phase = "running"
                if self.options.enabled:
                    loops.start_soon(self._fire_loop)
                loops.start_soon(self._tend_loop)
                self.speaker.say("INFO", "scheduler.started", jobs=len(self), store=self._open_store.url)
                started.set_result(None)
                await self._closing.wait()
                self._phase = "stopping"
                self.speaker.say("INFO", "scheduler.stopping", running=len(slots.attempts))
                await slots.wind_down(self._grace, self._hurrying)
                loops.cancel_scope.cancel()
        except asyncio.CancelledError:  # the host is ending its loop: no time for a grace
            if self._slots is not None:
                await self._slots.wind_down(timedelta(0), self._hurrying)
            started.cancel()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            await self._end()

    async def _begin(self) -> Slots:
        self.speaker.say("INFO", "scheduler.starting")
        await self._configure()
        self._prepare_jobs()
        store, now = await self._opened(), self._clock.now()
        self._executors = {"loop": OnLoop(), "thread": InThread(self.options.threads)}
        self._backlog, self._ready_at, self._unread, self._next_at = True, None, True, None
        self._listeners.loop = self._loop
        if not self._spoken:
            self._spoken = True
            self.feed.subscribe(self.speaker, *self.speaker.events())
        self.worker = this_process(self.name, now)
        self._slots = slots = Slots(
            self.options.max_running, store=store, jobs=self, executors=self._executors, clock=self._clock,
            kill_grace=self.options.kill_grace, waiters=self._waiters, listeners=self._listeners,
            context=self._context, tell=self._tell, freed=self._freed
        )  # fmt: skip
        self._tending = Tending(
            store, self.worker, jobs=self, slots=slots, options=self.options, clock=self._clock, feed=self.feed,
            tell=self._tell
        )  # fmt: skip
        live = await self._tending.rescue(await store.enlist(self.worker))
        self._watched_since = min((one.started_at for one in live), default=now)
        await self._refresh_switches(force=True)
        await self._know()
        await self._declare(list(self), on_start=self.options.enabled and not live)
        return slots

    async def _end(self) -> None:
        """Leave nothing open; the last thing a host task does."""
        with suppress(TaskloopError, asyncio.CancelledError):
            await self._listeners.end(1.0)
            unsaid = self._slots is not None and self._slots.attempts  # then the lease tells, not we
            if self.worker is not None and self._store_is_open and not unsaid:
                await self._open_store.leave(self.worker.id, self._clock.now())
        with suppress(TaskloopError, asyncio.CancelledError):
            await self.close()
        self.speaker.say("INFO", "scheduler.stopped")
        self._forget()

    def _forget(self) -> None:
        for executor in self._executors.values():
            executor.close()
        self._executors = {}
        if self._slots is not None:
            self._slots.closed = True
        self._host, self.worker, self._slots = None, None, None
        self._phase, self._store_is_open = "stopped", False

    # -- firing

    async def _fire_loop(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                wake_at = await self._tick(self._clock.now())
                if failures:
                    self.feed.send("store_back", self._clock.now())
                failures = 0
            except Exception as error:  # whatever it is, the next fire must not depend on it
                failures += 1
                wake_at = self._clock.now() + timedelta(seconds=min(30.0, 0.5 * 2 ** min(failures, 6)))
                if failures == 1:
                    self.feed.send("store_lost", self._clock.now(), error=repr(error))
            await self._sleep_until(wake_at)

    async def _tick(self, now: datetime) -> datetime | None:
        """Fire what is due and start what waits; gives the instant of the next thing to do, None: none is known."""
        assert self.worker is not None and self._slots is not None
        slots = self._slots
        if self._held_until is not None and now >= self._held_until:
            await self._know()
            self._stirred()
        due = await self._due(now)
        if due.schedules:
            await asyncio.sleep(0)  # the host's turn, between reading and planning
            firings = self._plans(due, slots, now)
            reserved = sum(one.starts for one in firings)
            await self._open_store.fire(firings, self.worker.id, now, partial(self._handed_out, reserved))
        expected = self._ready_at is not None and now >= self._ready_at
        if (self._backlog and slots.free > 0) or expected:
            reserved, self._backlog = max(0, slots.free), False
            slots.reserve(reserved)
            claimed = await self._open_store.claim(self.worker.id, now, reserved, partial(self._handed_out, reserved))
            self._ready_at = claimed.next_at
        if due.schedules or (self._backlog and slots.free > 0):
            return now
        return min((at for at in (due.next_at, self._ready_at, self._held_until) if at is not None), default=None)

    async def _due(self, now: datetime) -> Due:
        """What is due; the store is not asked again before the instant it named, unless something stirred."""
        if self._unread or self._next_at is None or now >= self._next_at:
            self._unread = False
            try:
                due = await self._open_store.due(now, DUE_AT_ONCE)
            except BaseException:
                self._unread = True
                raise
            self._next_at = now if due.schedules else due.next_at or now + timedelta(seconds=LONGEST_NAP)
            return due
        return Due((), self._next_at)

    def _plans(self, due: Due, slots: Slots, now: datetime) -> list[Firing]:
        firings = []
        enabled = {name: self._is_on(self._jobs[name], now) for name in {one.job for one in due.schedules}}
        for schedule in due.schedules:
            policy = self._jobs[schedule.job].policy
            try:
                since, missed = self._switches.settling(schedule.job, schedule.next_due or now, self._watched_since)
                on = enabled[schedule.job]
                planned = plan(schedule, policy, now=now, watched_since=since, enabled=on, missed=missed)
            except Exception as error:
                self.speaker.say("ERROR", "schedule.stopped", schedule=schedule.id, error=repr(error))
                planned = Plan(schedule, (), None, now)
            starts = slots.free > 0
            slots.reserve(starts)
            firings.append(Firing(planned, policy, starts))
        return firings

    def _handed_out(self, reserved: int, answer: Fired | Claimed | Exception) -> None:
        """Start what the store gave for `reserved` slots, and give back the slots it did not need."""
        assert self._slots is not None
        self._slots.release(reserved)
        if isinstance(answer, Exception):
            self._backlog = True
            return
        self._backlog |= answer.more
        self._waits = answer.left if isinstance(answer, Claimed) else self._waits or answer.more
        self._slots.launch_all(answer.started)
        for run in answer.ended:
            self._ended(run)
        for run_id in answer.replaced:
            self._slots.ask(run_id, Cancelled("superseded"))

    async def _sleep_until(self, wake_at: datetime | None) -> None:
        """The one timer: sleep until an instant of the wall clock (None: none), or until `_wake` is set."""
        await asyncio.sleep(0)
        while not self._wake.is_set():
            now = self._clock.now()
            nap = LONGEST_NAP if wake_at is None else min(LONGEST_NAP, (wake_at - now).total_seconds())
            if nap <= 0:
                break
            timer = self._loop.call_later(nap, self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._notice_gap(now, nap)
            # Before its time: somebody woke us. At its time somebody may have too, and then left a flag.
            if timer.when() - self._loop.time() > 0.001 or self._backlog or self._unread or self._closing.is_set():
                break
            self._wake.clear()
        self._wake.clear()

    def _notice_gap(self, asleep_at: datetime, nap: float) -> None:
        """After a suspend or a step of the clock, what was due meanwhile was missed, not late."""
        now = self._clock.now()
        if now - asleep_at > timedelta(seconds=nap) + GAP:
            self._watched_since = now
            self.speaker.say("WARNING", "clock.gap", seconds=round((now - asleep_at).total_seconds(), 1))

    async def _tend_loop(self) -> None:
        while True:  # to the very end: a worker that stops must still beat
            try:
                await self._tending.round()
                if self._tending.changed:
                    await self._switched()
                    self._tending.changed = False
            except Exception as error:  # the next round does what this one could not
                self.speaker.say("WARNING", "tending.failed", error=repr(error))
            await self._tending.nap()

    def _context(self, run: Run) -> RunContext:
        report = self._slots.report if self._slots is not None else None
        return RunContext(run, monotonic=self._clock.monotonic, call=self.call, report=report, scheduler=self)

    def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """From another thread: run an async function on the scheduler's loop, wait for it and give its result."""
        if self._host is None:
            raise NotRunning("call() needs a started scheduler; await start() first")
        if asyncio._get_running_loop() is self._loop:
            raise Conflict("call() would wait for the loop it blocks; on the loop, await the function itself")
        return asyncio.run_coroutine_threadsafe(function(*args, **kwargs), self._loop).result()

    async def cancel(self, run_id: int, *, reason: str | None = None, actor: str | None = None) -> Run:
        asked = self._slots.ask(RunId(run_id), Cancelled(reason, actor)) if self._slots is not None else None
        return asked or await super().cancel(run_id, reason=reason, actor=actor)

    # -- what a ledger asks of an engine

    @property
    def _open_store(self) -> Store:
        if self._store is None or not self._store_is_open:
            raise StoreUnavailable("the store is closed; the scheduler is stopping")
        return self._store

    def _redeclared(self, job: Job[..., Any] | None) -> None:
        if self._phase == "running":
            self._listeners.begin(self._declare_late([job] if job is not None else []))

    def _admit(self, runs: list[Run]) -> list[Run]:
        if self._phase != "running" or not self.options.enabled or self._backlog:
            return runs
        return [self._begun(run) for run in runs]

    def _begun(self, run: Run) -> Run:
        """The run as claimed by this process, if it has a slot and nothing else needs to be asked."""
        policy = self._jobs[run.job].policy
        held = self._switches.pause(run.job, run.created_at) is not None
        assert self._slots is not None and self.worker is not None
        if self._slots.free <= 0 or run.ready_at > run.created_at or policy.constrained or held:
            return run
        self._slots.reserve(1)
        at = run.created_at
        return run.changed(
            state=State.RUNNING, worker=self.worker.id, token=1, attempt=1, started_at=at, attempt_started_at=at
        )

    def _submitted(self, asked: Sequence[Run], answer: Sequence[Run] | Exception) -> None:
        if self._slots is not None:
            self._slots.release(sum(run.state is State.RUNNING for run in asked))
        super()._submitted(asked, answer)
        for run in () if isinstance(answer, Exception) else answer:
            if run.state is State.RUNNING and not run.existed and self._slots is not None:
                self._slots.launch(run)
            elif run.state is State.WAITING and self._slots is not None and self.options.enabled:
                self._slots.expected.add(run.id)
                self._freed(True, True)

    def _freed(self, stirred: bool, waits: bool) -> None:
        """A slot is free again. `stirred`: a run that waits for more than a slot may start; `waits`: one does wait."""
        self._waits |= waits
        self._backlog |= stirred and self._waits
        if self._backlog:
            self._wake.set()

    def _stirred(self) -> None:
        if self._phase == "running":
            self._backlog = self._unread = self._waits = True
            self._wake.set()

    async def _refresh_switches(self, *, force: bool = False) -> None:
        if force or self._phase != "running":
            await super()._refresh_switches()

    async def _switched(self) -> None:
        before = self._switches
        await self._refresh_switches(force=True)
        if self._phase == "running" and before != self._switches:
            await self._know()
        self._stirred()

    def _lend(self, context: RunContext | None) -> None:
        if context is not None and context.scheduler is self and self._slots is not None:
            self._slots.lend(context.id)

    def _take_back(self, context: RunContext | None) -> None:
        if context is not None and context.scheduler is self and self._slots is not None:
            self._slots.take_back(context.id)

    def _patience(self, run_id: RunId) -> float | None:
        if self._slots is None:
            return 0
        return None if run_id in self._slots.attempts else LOOK_SECONDS if run_id in self._slots.expected else 0

    def _look_seconds(self) -> float | None:
        return None if self._phase == "running" and self._open_store.private else LOOK_SECONDS

    def _ended(self, run: Run) -> None:
        self._waiters.announce(run.id, run)
        if self._slots is not None:
            self._slots.expected.discard(run.id)
        self._tell(run.state.value, run)

    def _tell(self, name: str, run: Run) -> None:
        self.feed.send(name, run.ended_at or run.attempt_started_at or run.ready_at, run)

    def _deliver(self, listener: Callable[[Event], Any]) -> Subscriber:
        return self._listeners.subscriber(listener)
