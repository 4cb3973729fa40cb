"""The engine: `TaskScheduler`, everything that moves.

The way of a fire. `start` makes one host task, `_live`; it opens the store, mends what an earlier life left, and keeps
two loops:

    firing.FireLoop   one timer: sleep until the earliest due instant, or a wake; what is due -> plan (pure)
                      -> store.fire (one transaction) -> slots.launch what it claimed; what waits -> store.claim
    _tend_loop        `tending`: runs of dead workers, wishes and switches of other processes, progress, pruning

`slots` gives each run a task of its own: call the function (`attempts`), `settle` (pure), write, tell. `guard` watches
over all of it from two threads: one beats for this worker, one sees when the loop stands still. `stop` ends the loops,
waits for the runs in hand, asks the rest to end, abandons what does not, lets go of the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, Self, TypeVar

from taskloop import durations
from taskloop.attendance import Attendance
from taskloop.audience import LOOK_SECONDS, Listeners
from taskloop.clock import Clock, later
from taskloop.context import RunContext
from taskloop.errors import BadStore, Conflict, NotRunning, StoreUnavailable, TaskloopError
from taskloop.events import Event, Subscriber
from taskloop.executors import Executor, Executors, call_on
from taskloop.firing import FireLoop
from taskloop.guard import Guard
from taskloop.jobs import Duration, Job, Jobs, begun
from taskloop.journal import Journal, StoreWatch
from taskloop.ledger import Ledger
from taskloop.life import Life
from taskloop.options import Options
from taskloop.processes import this_process
from taskloop.runs import Cancelled, Run, RunId
from taskloop.signals import until_signal
from taskloop.slots import Slots
from taskloop.starting import opened, patiently, unless
from taskloop.store import Store
from taskloop.store_data import Worker
from taskloop.switches import Switch
from taskloop.tasks import Gathered, hold, lazily, shielded, this_loop
from taskloop.tending import TOLD_SECONDS, Tending

if TYPE_CHECKING:
    from taskloop.declaring import StartPlan
    from taskloop.pings import Pings
    from taskloop.punctuality import Curfew
    from taskloop.records import Status

__all__ = ["TaskScheduler"]

P = ParamSpec("P")
T = TypeVar("T")

LAST_SECONDS: Final = 0.2
"""How long a stop waits for each of the last things it does; together with `slots.LAST_SECONDS` less than two."""


class TaskScheduler(Ledger):
    """Runs jobs inside an asyncio program and keeps a record of every fire.

    `store`: an address (`sqlite:///app.db`, `postgresql://…`), a path or a Store; None: what the environment names, else
    `sqlite:///taskloop.db`. `jobs`: collections to take over. `config`: a configuration file to read at start;
    `options`: all of it as values, in place of file, environment and dev mode. Making one opens no file, thread or loop.
    """

    _phase: Literal["stopped", "starting", "declared", "running", "stopping"] = "stopped"
    """`declared`: its store knows its jobs, and nothing fires yet."""
    _spoken = False  # whether the log hears of events
    _loop: asyncio.AbstractEventLoop
    """Of the life in hand, or the last one."""
    _tending: Tending
    _journal: Journal
    _store_watch: StoreWatch

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
        self._executors: dict[str, Executor] = {}
        self.overrides: dict[Any, Any] = {}  # of a test: providers to inject in the place of others
        self._host: asyncio.Task[None] | None = None
        self._pings: Pings | None = None
        self._closing, self._hurrying = asyncio.Event(), asyncio.Event()
        self._listeners = Listeners(self._say)
        self._fires: FireLoop | None = None
        self._guard: Guard | None = None
        self._curfew: Curfew | None = None
        """What may not begin here any more; None: nobody said when this worker stops."""

    @property
    def is_running(self) -> bool:
        """Whether it was started, in this process, and is not stopping."""
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
        changes nothing; one during a stop waits for its end; one that fails may be tried again, one that is stopped returns.
        Raises `BadSettings`, `BadJob`, `BadStore`, `StoreUnavailable`, `NotRunning`, `Conflict` in a job a stop waits for.
        """
        loop = this_loop()
        if self._host is not None and self._loop.is_closed():
            await self.stop()
        if self._host is not None and self._loop is not loop:
            raise NotRunning("the scheduler runs on another event loop; stop it there, or make another scheduler")
        if self._host is not None and self._closing.is_set():
            if self._is_own_job():  # that would wait for itself
                raise Conflict("the scheduler is stopping and waits for this job; start it again when that has ended")
            await asyncio.wait({self._host})
        if self._host is not None:
            return self._say("WARNING", "scheduler.already_running")
        self._interval = None if interval is None else durations.parse_interval(interval)
        self._closing, self._hurrying = asyncio.Event(), asyncio.Event()
        self._loop, self._phase, self._curfew, self._grace = loop, "starting", None, timedelta(0)
        started: asyncio.Future[None] = loop.create_future()
        self._host = loop.create_task(self._live(started), name="taskloop")
        try:
            await asyncio.shield(started)
        except (Exception, asyncio.CancelledError):  # refused, or cancelled: nothing of it may go on
            await self.stop(grace=0)
            raise

    async def stop(self, grace: Duration | None = None) -> None:
        """Fire no more, let running runs end, record what each came to, and let go of the store.

        Waits at most `grace` (None: the configuration's, 30 s), then cancels, waits `kill_grace`, then abandons; all
        in all two seconds longer than both. Safe before `start`, twice (a second stop with grace 0 ends the first's),
        and after the host closed the loop it started on. Called by a job of its own it returns at once, and that job
        gets the grace too. Raises `NotRunning` on another loop than its own, while that lives.
        """
        if (host := self._host) is None:
            return await self.close()
        if self._loop.is_closed():  # the host took the engine away with its loop; the next start mends the records
            hold(host)
            self._forget()
            return await self.close()
        if self._loop is not asyncio.get_running_loop():
            raise NotRunning("the scheduler runs on another event loop; from there: scheduler.call(scheduler.stop)")
        span = self.options.grace if grace is None else durations.parse(grace)
        if not self._closing.is_set():
            self._grace = span
        elif not span:
            self._hurrying.set()
        self._closing.set()
        if not self._is_own_job():
            await asyncio.wait({host})

    async def serve(self, interval: Duration | None = None, *, run_for: Duration | None = None) -> int | None:
        """Start, wait for SIGINT, SIGTERM or SIGHUP, stop; gives the signal's number, None if somebody else stopped it.

        A second signal ends the grace. Handlers that stood before are called too, and put back afterwards. `run_for`
        None: the configuration's `max_runtime`, by default no end. A job that usually takes longer than the time left
        is not begun any more but left to another worker, or the next start. Raises what `start` raises, and what keeps it from going on.
        """

        async def served() -> None:
            await self.start(interval)
            span = durations.parse_interval(run_for) if run_for is not None else self.options.max_runtime
            if (host := self._host) is not None:
                if span and self._slots is not None:  # beside: a store that is away ends no worker
                    ends_at = later(self._clock.now(), span + self.options.grace)
                    self._listeners.begin(self._slots.insist(partial(self._mind_the_end, ends_at)))
                await asyncio.wait({host}, timeout=span.total_seconds() if span else None)
                if host.done():
                    host.result()

        return await until_signal(
            served(), stop=self.stop, hurry=lambda: self._hurrying.set(), heard=lambda one: self._say("INFO", "signal.received", signal=one.name)
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with shielded():  # a scope of the host's that was given up: the runs in hand have their grace all the same
            await self.stop()

    # -- the host task

    async def _live(self, started: asyncio.Future[None]) -> None:
        """Everything between start and stop, in a task that outlives the one that called `start`."""
        from anyio import create_task_group  # here, not above: an import should cost a host as little as it can

        try:
            if (begun := await unless(self._closing, self._begin())) is None:  # stopped before it had started
                return started.set_result(None)
            slots, fires = begun
            async with create_task_group() as loops:
                self._phase = "running"
                with lazily(self._loop):
                    for work in [fires.run, self._tend_loop] if self.options.enabled else [self._tend_loop]:
                        loops.start_soon(work)
                count = len(getattr(self._open_store, "only", None) or self)
                self._say("INFO", "scheduler.started", jobs=count, store=self._open_store.url)
                started.set_result(None)
                self.feed.begin()
                try:
                    await self._closing.wait()
                finally:  # also where a loop of ours fails, or the host ends its own: nothing new is begun
                    self._closing.set()
                    self._phase = "stopping"
                    fires.close()
                self._say("DEBUG", "timer.cancelled")
                self._say("INFO", "scheduler.stopping", running=len(slots.attempts))
                await slots.wind_down(self._grace, self._hurrying)
                loops.cancel_scope.cancel()
        except asyncio.CancelledError:  # the host is ending its loop: no time for a grace
            if self._slots is not None:
                await self._slots.wind_down(timedelta(0), self._hurrying)
            started.cancel()
        except Exception as error:
            if not started.done():
                return started.set_exception(error)
            self._say("CRITICAL", "scheduler.died", error=repr(cause := getattr(error, "exceptions", [error])[0]))
            await slots.wind_down(timedelta(0), self._hurrying)  # what ran on would be on no record
            raise cause from None
        finally:
            try:
                await self._end()
            finally:
                self._forget()

    async def _begin(self) -> tuple[Slots, FireLoop]:
        self._say("INFO", "scheduler.starting")
        await self._configure()
        self._prepare_jobs()
        store, clock, options = await opened(self._clock, self._say, self._opened), self._clock, self.options
        now, jobs = clock.now(), list(self)
        if not self._spoken:
            self._spoken = True
            self.feed.subscribe(self.speaker, *self.speaker.events())
        self._listeners.loop, self._late = self._loop, Gathered(self._declare_late, lambda job: job.name)
        self._hear_for_pings(jobs)
        self._executors = Executors(options.threads, options.dask, self._say)
        self.worker = worker = this_process(
            self.name, now, clock.monotonic(), fires=options.enabled and getattr(store, "fires", True), jobs=[job.name for job in jobs], lease=options.lease
        )  # fmt: skip
        self._journal, self._store_watch = Journal(worker.id), StoreWatch(clock, self._store_changed)
        life = Life(
            worker, store, jobs=self, options=options, clock=clock, journal=self._journal, store_watch=self._store_watch, feed=self.feed,
            listeners=self._listeners, say=self._say, tell=self._tell, ended=self._ended, breaker=self._breaker
        )  # fmt: skip
        self._slots = slots = Slots(
            options.max_running if getattr(store, "starts", True) else 0, life, executors=self._executors, waiters=self._waiters,
            context=partial(RunContext, monotonic=clock.monotonic, call=self.call, scheduler=self), overrides=self.overrides
        )  # fmt: skip
        self._fires = fires = FireLoop(life, self, slots, blocked_since=self._blocked_since)
        self._guard = guard = Guard(life, slots=slots, fires=fires, came_back=self._came_back)
        self._tending = Tending(life, slots=slots, heirs=self._heirs, guard=guard, gone=fires.heed_the_gone)
        patient = partial(patiently, clock, self._store_watch)
        before = await patient(store.workers)
        self._tending.others = others = await patient(self._tending.enlist)
        await patient(partial(self._refresh_switches, force=True))
        self._watch_since(now, before, others, fires)
        await patient(self._know)
        await patient(partial(self._tell_the_plan, others, jobs))
        guard.start(lambda: self._tending.others)
        self._tending.beats &= not guard.beats
        return slots, fires

    def _hear_for_pings(self, jobs: Iterable[Job[..., Any]]) -> None:
        """Tell the services that watch over a job, if there is such a job among these."""
        if self._pings is None and any(job.policy.ping is not None for job in jobs):
            from taskloop.pings import Pings

            self._pings = Pings(lambda job: self._jobs[job].policy.ping if job in self else None, self._say, self.feed)

    def _watch_since(self, now: datetime, before: Sequence[Worker], others: Sequence[Worker], fires: FireLoop) -> None:
        """Since when somebody has been there to fire, and what is known of the time before."""
        gone = [one for one in before if one.id not in {other.id for other in others}]
        fires.heed_the_gone(gone, others)
        fires.attendance = Attendance(now, gone=gone, others=others)
        if gone and not others:
            self._tending.doubt_the_clock(now - max(one.stopped_at or one.beat_at for one in gone))

    async def _tell_the_plan(self, others: Sequence[Worker], jobs: Sequence[Job[..., Any]]) -> None:
        from taskloop import advice, declaring

        store, there = self._open_store, list(self)
        self.start_plan: StartPlan | None = await declaring.declare(
            self, store, there, self._clock.now(), others=others, starting=self.options.enabled
        )
        if told := self.start_plan.told(only := getattr(store, "only", None)):
            self._say("INFO", "scheduler.plan", **told)
        for level, mistake, fields in await advice.look(self, store, others, only):
            self._say(level, f"advice.{mistake}", **fields)
        await declaring.declare_added(self, jobs)
        self._phase = "declared"

    async def _end(self) -> None:
        """Leave nothing open; the last thing a host task does."""
        with suppress(TaskloopError, asyncio.CancelledError, TimeoutError):
            await self._listeners.end(LAST_SECONDS)
            if self._guard is not None:
                self._guard.stop()
                await self._guard.gone(LAST_SECONDS)
            if self.worker is not None and self._store_is_open:
                async with asyncio.timeout(LAST_SECONDS):
                    await self._journal.write(self._open_store)
                    if self._slots is None or not self._slots.attempts:  # else the lease tells, not we
                        await self._open_store.leave(self.worker.id, self._clock.now())
        if self._slots is not None:
            self._slots.close()
        with suppress(TaskloopError, asyncio.CancelledError):
            await self.close(LAST_SECONDS)
        self._say("INFO", "scheduler.stopped")

    def _forget(self) -> None:
        """Let go of all that belongs to one life, without waiting for any of it."""
        for executor in self._executors.values():
            executor.close()
        if self._guard is not None:
            self._guard.stop()
        if self._pings is not None:
            self._pings.close()
        if self._slots is not None:
            self._slots.close()
        self._host = self.worker = self._slots = self._fires = self._guard = self._pings = None
        self._phase, self._executors = "stopped", {}

    def _is_forked(self, parent: int) -> None:
        super()._is_forked(parent)
        self._host = self.worker = self._slots = self._fires = self._guard = None
        self._phase, self._executors = "stopped", {}  # a thread that is not here may hold the lock of their calls

    async def _tend_loop(self) -> None:
        told, told_tick = "", 0.0
        while True:  # to the very end: a worker that stops must still beat
            wrong: Exception | None = None
            try:
                wrong = await self._tending.round()
                if self._tending.changed or self._is_misread:
                    await self._switched()
                    self._tending.changed = False
            except (StoreUnavailable, BadStore) as error:
                self._store_watch.lost(error, self._tending, in_its_time=self.options.enabled)
            except Exception as error:  # the next round does what this one could not
                wrong = error
            tick = self._clock.monotonic()
            if wrong is not None and (repr(wrong) != told or tick - told_tick > TOLD_SECONDS):
                told, told_tick = repr(wrong), tick
                self._say("WARNING", "tending.failed", error=told)
            await self._tending.nap()

    def _vitals(self) -> Mapping[str, Any]:
        return {} if self._guard is None else self._guard.health()

    def _blocked_since(self, since: float) -> float:
        return 0.0 if self._guard is None else self._guard.blocked_since(since)

    def _store_changed(self, name: str, data: Mapping[str, Any]) -> None:
        if self._guard is not None:
            self._guard.store_changed(name, data)

    async def _mind_the_end(self, ends_at: datetime) -> None:
        """It is known when this worker stops: what usually takes longer than the time left is left to others."""
        from taskloop import looking

        self._curfew = await looking.curfew(self, self._open_store, ends_at)
        await self._know()
        self._stirred()

    def _is_left(self, job: str, now: datetime) -> bool:
        return self._curfew is not None and self._curfew.forbids(job, now)

    def _next_left(self, now: datetime) -> datetime | None:
        return None if self._curfew is None else self._curfew.next_at(now)

    # -- verbs

    def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """From another thread: run an async function on the scheduler's loop, wait for it and give its result."""
        if self._host is None:
            raise NotRunning("call() needs a started scheduler; await start() first")
        if asyncio._get_running_loop() is self._loop:
            raise Conflict("call() would wait for the loop it blocks; on the loop, await the function itself")
        return call_on(self._loop, begun(function, *args, **kwargs))

    def _ask_to_end(self, run_id: RunId, ending: Cancelled) -> Run | None:
        return self._slots.ask(run_id, ending) if self._slots is not None else None

    async def status(self) -> Status:
        """How the whole stands; while the store is away, how this process stands, which says so first."""
        try:
            return await super().status()
        except (StoreUnavailable, BadStore) as error:
            if self._slots is None:
                raise
            from taskloop import looking

            active = [attempt.run for attempt in self._slots.attempts.values()]
            return looking.status_without_store(self, error, active, since=self._store_watch.lost_at)

    # -- what a ledger asks of an engine

    @property
    def _open_store(self) -> Store:
        if self._store is None or not self._store_is_open:
            raise StoreUnavailable("the store is closed; the scheduler is stopping")
        return self._store

    def _redeclared(self, *jobs: Job[..., Any]) -> None:
        if self._phase != "stopped" and self._slots is not None:
            if asyncio._get_running_loop() is not self._loop:  # of a view or a job in a thread, which may make no tasks
                return self._listeners.turn(self._redeclared, *jobs)
            self._hear_for_pings(jobs)
            if self._phase in ("declared", "running") and self._late.give(*jobs):  # a few goes do for a thousand jobs
                self._listeners.begin(self._slots.insist(self._late.work))

    async def _came_back(self) -> None:
        if self._fires is not None:
            await self._declare_late(self._fires.ours_to_say(await self._open_store.workers(living=True)))

    async def _declare_late(self, jobs: Sequence[Job[..., Any]]) -> None:
        if self.worker is not None:
            await self._open_store.has_jobs(self.worker.id, [job.name for job in self])
        await super()._declare_late(jobs)

    def _admit(self, runs: list[Run]) -> list[Run]:
        if self._phase != "running" or not self.options.enabled or self._fires is None:
            return runs
        return self._fires.admit(runs)

    def _submitted(self, asked: Sequence[Run], answer: Sequence[Run] | Exception) -> None:
        super()._submitted(asked, answer)
        if self._fires is not None and self.options.enabled:
            self._fires.submitted(asked, answer)

    def _stirred(self) -> None:
        if self._phase == "running" and self._fires is not None:
            self._fires.stir()

    async def _refresh_switches(self, *, force: bool = False) -> None:
        if force or self._phase != "running":
            await super()._refresh_switches()

    async def _switched(self) -> None:
        await self._refresh_switches(force=True)
        if self._phase == "running" and self._is_untold():  # whoever has read them since
            await self._know()
        self._stirred()

    async def _breaker_moved(self, before: Switch | None, run: Run) -> None:
        with suppress(StoreUnavailable, BadStore):
            if self._store_is_open:  # else the stop was first
                await super()._breaker_moved(before, run)

    def _lend(self, context: RunContext | None, run_id: int) -> None:
        if context is not None and context.scheduler is self and self._slots is not None:
            self._slots.lend(context, RunId(run_id))

    def _take_back(self, context: RunContext | None) -> None:
        if context is not None and context.scheduler is self and self._slots is not None:
            self._slots.take_back(context)

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

    def _tell(self, name: str, run: Run, at: datetime | None = None, **data: Any) -> None:
        self.feed.send(name, at or run.ended_at or self._clock.now(), run, **data)

    def _deliver(self, listener: Callable[[Event], Any]) -> Subscriber:
        return self._listeners.subscriber(listener)
