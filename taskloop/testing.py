"""Virtual time for tests: two weeks pass in milliseconds, with the real engine and a real store.

Level 6, above the engine. `virtual_time` puts a scheduler into the loop of the test and takes over that loop's time:
`asyncio.sleep`, timeouts and timers of jobs follow it too. Time stands still but for the verbs of `VirtualTime`.

How the time of a loop jumps stands in `loop_time`; nothing of the engine is patched. Start at `VirtualTime`. User page:
docs/testing.md.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from taskloop import durations
from taskloop.context import RunContext, StepContext
from taskloop.errors import BadDuration, Conflict, NoSuchJob, NotRunning, nearest
from taskloop.events import Event
from taskloop.inject import Inject, identity
from taskloop.jobs import Duration, Job, name_of
from taskloop.loop_time import LoopTime, Standstill, let_time_jump
from taskloop.retry import RetryAt
from taskloop.runs import ACTIVE, Cause, Run, RunId, State
from taskloop.scheduler import TaskScheduler
from taskloop.store import Store, open_store
from taskloop.store_sqlite import SqliteStore

__all__ = ["Standstill", "VirtualClock", "VirtualTime", "run_context", "virtual_time"]

T = TypeVar("T")

_MICROSECOND: Final = timedelta(microseconds=1)
_ASKED: Final = frozenset({Cause.MANUAL, Cause.API, Cause.CLI, Cause.RERUN})
_ERRORS: Final = ("failed", "retrying")
_ENDS: Final = ("succeeded", "failed", "cancelled", "interrupted", "skipped")


def virtual_time(
    scheduler: TaskScheduler,
    at: datetime | str = "2026-01-01T00:00Z",
    *,
    store: Any = None,
    interval: Duration | None = None,
    start: bool = True,
    patience: Duration = "1s",
) -> VirtualTime:
    """`async with virtual_time(scheduler) as time:` starts the scheduler at `at` and stops it at the end.

    `store`: an address, path or Store; None: in memory, whatever the scheduler names. `interval`: as for
    `TaskScheduler.start`; `start` False: the test starts it. `patience`: how long, in real time, a call in a thread
    or an answer from outside may take before virtual time goes on without it. Raises `Conflict` if the scheduler runs already.
    """
    return VirtualTime(scheduler, at, store=store, interval=interval, start=start, patience=patience)


class VirtualTime:
    """The time of a test, and the scheduler that lives in it. Made by `virtual_time`."""

    def __init__(
        self,
        scheduler: TaskScheduler,
        at: datetime | str,
        *,
        store: Any,
        interval: Duration | None,
        start: bool,
        patience: Duration,
    ) -> None:
        self.scheduler = scheduler
        self.clock: VirtualClock = VirtualClock(durations.absolute(at))
        self._interval = interval
        self._starts = start
        self._patience = durations.parse(patience).total_seconds()
        self._members = [_Member(scheduler, store if store is not None else MemoryStore(), self._heard)]
        self._overrides: dict[Any, Any] = {}
        self._submitted: list[Run] = []
        self._ended: asyncio.Future[None] | None = None
        self._entered = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise Conflict("a virtual time is entered once; make another one by `virtual_time(scheduler)`")
        if self.scheduler.is_running:
            raise Conflict(
                "the scheduler runs already; enter virtual_time() before what starts it, such as a client "
                "of the application"
            )
        self._loop_time = LoopTime(_loop_of_test(), self._members, self._patience)
        self._entered = True
        self.clock.follow(self._loop_time)
        self._loop_time.install()
        try:
            await self._members[0].move_in(self.clock, self._overrides)
            if self._starts:
                await self.start(self._interval)
        except BaseException as error:
            await self._leave()
            self._tell_a_standstill(type(error))
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._leave()
        except asyncio.CancelledError as cancelled:
            kind = type(cancelled)
            if self._loop_time.stalled is None:
                raise
        self._tell_a_standstill(kind)

    def _tell_a_standstill(self, kind: type[BaseException] | None) -> None:
        """Raise `Standstill` in the place of the cancellation by which a test that hung was ended."""
        if self._loop_time.stalled is not None and kind is asyncio.CancelledError:
            self._loop_time.test.uncancel()
            raise Standstill(self._loop_time.stalled) from None

    async def _leave(self) -> None:
        try:
            self._loop_time.halt()
            for member in reversed(self._members):
                try:
                    await self.until(member.scheduler.stop(grace=0))
                finally:
                    await self.until(member.move_out())
        finally:
            self._loop_time.uninstall()

    def _timekeeper(self) -> LoopTime:
        """What lets time pass here. Raises `NotRunning` before it is entered, after it is left, and on another loop."""
        if not self._entered:
            raise NotRunning("virtual time has not begun; enter it: `async with virtual_time(scheduler) as time:`")
        self._loop_time.refuse_elsewhere()
        return self._loop_time

    @property
    def now(self) -> datetime:
        """The wall clock."""
        return self.clock.now()

    # -- passing

    async def advance(
        self,
        duration: Duration = 0,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Let this much time pass: every timer on the way fires at its instant, and what it starts goes on.

        Returns when nothing is left to do at the end of it. Without arguments: what can be done now is done.
        """
        try:
            more = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        except (TypeError, ValueError, OverflowError):
            units = {"weeks": weeks, "days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
            given = {name: number for name, number in units.items() if number != 0}
            raise BadDuration(given, "each unit takes a number, and all together a century at most") from None
        span = (durations.parse(duration) + durations.parse(more)) // _MICROSECOND
        keeper = self._timekeeper()
        await keeper.travel(keeper.micros + span, asyncio.get_running_loop().create_future())

    async def until(self, awaitable: Awaitable[T]) -> T:
        """Let time pass, as fast as it can, until `awaitable` is done; gives its result or raises its error."""
        task = asyncio.ensure_future(awaitable)
        try:
            await self._timekeeper().travel(None, task)
        finally:
            if not task.done():
                task.cancel()
        return task.result()

    async def run_until_idle(self, limit: Duration = "4w") -> None:
        """Let time pass until no run is active, neither running nor waiting; fires on the way count too.

        Raises `TimeoutError` if `limit` has passed and some still are.
        """
        loop, keeper = asyncio.get_running_loop(), self._timekeeper()
        end = keeper.micros + durations.parse(limit) // _MICROSECOND
        while True:
            await self.advance()
            active = await self.scheduler.runs(state=sorted(ACTIVE))
            if not active:
                return
            if keeper.micros >= end:
                listed = ", ".join(f"{run.id} of '{run.job}' {run.state}" for run in active[:10])
                raise TimeoutError(f"still active after {limit}: run {listed}")
            self._ended = loop.create_future()
            await keeper.travel(end, self._ended)

    def step(self, by: Duration) -> None:
        """Set the wall clock forward, or back by `"-1h"`; the monotonic clock and all timers go on as before."""
        back = isinstance(by, str) and by.startswith("-")
        span = abs(by) if isinstance(by, timedelta) else durations.parse(by[1:] if isinstance(by, str) and back else by)
        self.clock.step(-span if back or (isinstance(by, timedelta) and by < timedelta(0)) else span)

    async def suspend(self, duration: Duration) -> None:
        """Let the machine sleep: this much time is gone at once, and what fell due in it wakes late.

        What can be done now is done before: a store that is at work as it falls asleep would be one that hangs.
        """
        keeper = self._timekeeper()
        await self.advance()
        let_time_jump(asyncio.get_running_loop())
        keeper.jump(keeper.micros + durations.parse(duration) // _MICROSECOND)
        await self.advance()

    def override(self, provider: Callable[..., Any], fake: Callable[..., Any]) -> None:
        """Inject what `fake` gives wherever `provider` is named, by jobs or by other providers, until the end.

        `fake` takes any form of a provider, and is entered and left as often as the other would be. What lives as long
        as the worker and is entered already stays. Raises `BadJob` for what is no provider.
        """
        for one in (provider, fake):
            Inject(one)
        self._overrides[identity(provider)] = fake

    # -- living and dying

    async def start(self, interval: Duration | None = None) -> None:
        """Start the scheduler and let it do what is due now."""
        await self.until(self._members[0].scheduler.start(interval))
        await self.advance()

    async def crash(self) -> None:
        """End the process as `kill -9` would: no cleanup runs, nothing is recorded, the store stays as it is.

        Threads cannot be killed: a plain function that is being called goes on, unheard. `restart` begins a new life.
        """
        if not self.scheduler.is_running:
            raise NotRunning("the scheduler is not running; there is nothing to crash")
        self._timekeeper().kill()
        for member in self._members:
            await member.die(self.now)

    async def restart(self, after: Duration = 0, *, interval: Duration | None = None) -> None:
        """Stop the scheduler, unless it crashed, let `after` pass and start it again on the same store."""
        if self.scheduler.is_running:
            await self.until(self.scheduler.stop())
        await self.advance(after)
        for member in self._members[1:]:
            if member.died:
                await self.until(member.scheduler.start())
        await self.start(interval if interval is not None else self._interval)

    async def join(self, other: TaskScheduler, store: Any, *, start: bool = True) -> None:
        """Let another scheduler live in the same time, on a store of its own choice; it is stopped at the end too.

        Raises `Conflict` if it lives here already, or runs.
        """
        self._timekeeper()
        member = _Member(other, store, self._heard)
        if any(one.scheduler is other for one in self._members):
            raise Conflict("this scheduler lives in this virtual time already; join another one, or `restart` this one")
        if other.is_running:
            raise Conflict("the scheduler that is to join runs already, in real time; join it before what starts it")
        self._members.append(member)
        await member.move_in(self.clock, self._overrides)
        if start:
            await self.until(other.start())
            await self.advance()

    # -- looking

    async def runs(self, job: str | Job[..., Any] | None = None, state: str | Sequence[str] | None = None) -> list[Run]:
        """All runs, oldest first, of one job and in these states if given; skips only where `state` names them.

        Raises `NoSuchJob` for one that is neither declared nor on record.
        """
        await self.scheduler._meant(job)
        found: list[Run] = []
        before = None
        while page := await self.scheduler.runs(job, state=state, before=before, limit=1000):
            found += page
            before = page[-1].id
        return found[::-1]

    def submitted(self, job: str | Job[..., Any] | None = None) -> Submitted:
        """The runs that were asked for, not fired by a schedule, as they were then; oldest first.

        Raises `NoSuchJob` for one that is not declared and was never asked for.
        """
        if job is None:
            return Submitted(self._submitted)
        meant = {name for member in self._members for name in member.scheduler._names(job)}
        known = {one.name for member in self._members for one in member.scheduler}
        known |= {run.job for run in self._submitted}
        if not meant & known:
            raise NoSuchJob(name_of(job), nearest(name_of(job), known))
        return Submitted(run for run in self._submitted if run.job in meant)

    def _heard(self, event: Event) -> None:
        if event.name == "submitted" and event.run is not None and event.run.cause in _ASKED:
            self._submitted.append(event.run)
        if event.name in _ERRORS and event.run is not None and event.run.error is not None:
            error = event.run.error
            if error.traceback and error.type != RetryAt.__name__:  # the store that has it is gone when somebody looks
                sys.stderr.write(f"run {event.run.id} of '{event.run.job}':\n{error.traceback.rstrip()}\n")
        if event.name in _ENDS and self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class Submitted(list[Run]):
    """A list that may be awaited too, like everything else that is asked of a `VirtualTime`."""

    def __await__(self) -> Generator[Any, None, Submitted]:
        yield from ()
        return self


def run_context(**fields_: Any) -> RunContext:
    """A context for calling a job plainly: `await send_mail.function(run_context(attempt=2), batch=5)`.

    Fields: those of a `Run`, and `step` and `cancelled`. What the job reports is in `.latest`.
    """
    extra = {name: fields_.pop(name) for name in ("step", "cancelled") if name in fields_}
    names = [field.name for field in fields(Run)]
    for name in fields_:
        if name not in names:
            near = nearest(name, [*names, "step", "cancelled"])
            raise TypeError(f"run_context() has no field '{name}'" + (f"; did you mean '{near}'?" if near else ""))
    now = datetime.now(UTC)
    given = {"id": RunId(1), "job": "job", "state": State.RUNNING, "cause": Cause.MANUAL, "attempt": 1}
    instants = {"due_at": now, "ready_at": now, "created_at": now, "started_at": now, "attempt_started_at": now}
    context = RunContext(Run(**{**given, **instants, **fields_}), monotonic=time.monotonic)
    context.cancelled = extra.get("cancelled", False)
    step = extra.get("step")
    return context if step is None else StepContext(context, step, context.attempt)


class VirtualClock:
    """The engine's clock in virtual time: the wall may be set, the monotonic clock only goes forward."""

    steps_by_hand = True

    def __init__(self, at: datetime) -> None:
        self._at = at
        self._time: LoopTime | None = None
        self._since = 0

    def follow(self, loop_time: LoopTime) -> None:
        self._time, self._since = loop_time, loop_time.micros

    def now(self) -> datetime:
        return self._at + (self._time.micros - self._since) * _MICROSECOND if self._time else self._at

    def monotonic(self) -> float:
        return self._time.time() if self._time else 0.0

    def step(self, by: timedelta) -> None:
        self._at += by


class MemoryStore(SqliteStore):
    """A store in memory that outlives the lives of its scheduler: it is closed by `end`, not by `close`."""

    def __init__(self, connection: Any = None) -> None:
        super().__init__(":memory:")
        self._kept = connection

    async def _connect(self, create: bool, path: str | None = None) -> Any:
        if self._kept is None:
            self._kept = await super()._connect(create, path)
        return self._kept

    async def changed(self) -> bool:
        return False  # nobody else can reach it

    async def close(self, within: float = 0.0) -> None:
        """Nothing: what is in memory would be lost."""

    async def end(self) -> None:
        await super().close()

    def heir(self) -> MemoryStore:
        """A store with this one's content, for the life after a crash."""
        return MemoryStore(self._kept)


class _Member:
    """A scheduler that lives in virtual time, with its store; knows what has to be reached inside the engine."""

    def __init__(self, scheduler: TaskScheduler, store: Any, hear: Callable[[Event], None]) -> None:
        if not isinstance(scheduler, TaskScheduler):
            has_one = isinstance(getattr(scheduler, "scheduler", None), TaskScheduler)
            meant = "in its .scheduler" if has_one else "itself"
            raise TypeError(f"scheduler is {scheduler!r:.200}; a TaskScheduler is allowed: give the object {meant}")
        self.scheduler = scheduler
        self.store: Store = open_store(store)
        self._before = (scheduler._store, scheduler._address, scheduler._clock)
        self.died = False
        self._hear = hear
        self._unsubscribe: Callable[[], None] = lambda: None

    async def move_in(self, clock: VirtualClock, overrides: dict[Any, Any]) -> None:
        self._unsubscribe = self.scheduler.feed.subscribe(self._hear, "submitted", *{*_ENDS, *_ERRORS})
        await self.scheduler.close()
        self.scheduler.overrides = overrides
        self.scheduler.furnish(store=self.store, clock=clock)

    async def move_out(self) -> None:
        self._unsubscribe()
        self.scheduler.overrides = {}
        await self.scheduler.close()
        if isinstance(self.store, MemoryStore):
            await self.store.end()
        self.scheduler._store, self.scheduler._address, self.scheduler._clock = self._before

    async def die(self, now: datetime) -> None:
        """Go on with the content of the store alone, in which the worker looks as dead as it is."""
        scheduler, old = self.scheduler, self.store
        if scheduler.worker is None:
            return
        where = scheduler.worker.process.rpartition(":")[0]
        worker = replace(scheduler.worker, process=f"{where}:dead", beat_at=now)
        scheduler._forget()
        scheduler._store_is_open = False
        self.store = await _reopened(old)
        scheduler.furnish(store=self.store)
        self.died = True
        await self.store.open()
        await self.store.enlist(worker)  # its row, which now names a process that is no more
        await self.store.close()

    @property
    def in_flight(self) -> int:
        return self.scheduler.in_flight

    @property
    def store_calls(self) -> int:
        return getattr(self.store, "in_flight", 0)

    @property
    def calls(self) -> int:
        attempts = self.scheduler._slots.attempts if self.scheduler._slots is not None else ()
        return len(attempts) + len(self.scheduler._listeners._calls)


async def _reopened(store: Store) -> Store:
    """A store as the next process would open it."""
    if isinstance(store, MemoryStore):
        return store.heir()
    if not isinstance(store, SqliteStore):
        raise TypeError(f"crash() knows no way to reopen a {type(store).__name__}; use a sqlite store")
    await store.close()
    return SqliteStore(store.path, synchronous=store.synchronous)


def _loop_of_test() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise NotRunning(
            "virtual time needs asyncio, and this test runs without it; with anyio's plugin let the fixture "
            '`anyio_backend` give "asyncio"'
        ) from None
