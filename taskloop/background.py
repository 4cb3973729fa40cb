"""Background jobs for a program without an event loop: the same scheduler, on a thread of its own.

Level 6, above the engine, on a loop that `loop_thread` turns. Each verb hands a coroutine to that loop and waits; the
`safe_` verbs are the others without their errors: a number that says whether it went well. Whatever runs on the loop
itself must not wait for it, nor for a lock that somebody holds who does: such calls act at once, or are refused.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar

from taskloop.context import running
from taskloop.durations import Duration, parse
from taskloop.errors import BadParameters, BadTrigger, Conflict, NotRunning, nearest
from taskloop.jobs import Job, begun
from taskloop.loop_thread import LAST_SECONDS, LoopThread
from taskloop.outcomes import failure
from taskloop.parameters import Parameters
from taskloop.policy import OPTIONS
from taskloop.scheduler import TaskScheduler
from taskloop.store import Store
from taskloop.triggers import At, Cron, Every, Trigger

__all__ = ["BackgroundTasks"]

P = ParamSpec("P")
T = TypeVar("T")
INTERVAL: Final = timedelta(seconds=5)
"""Of a task that names none."""
EXIT_SECONDS: Final = 2.0
"""How long the end of the interpreter waits for records to be written."""
SPARE_SECONDS: Final = 5.0
"""What a stop may take longer than both graces, before its caller is told that something holds the loop."""
_UNITS: Final = ("weeks", "days", "hours", "minutes", "seconds")
_KINDS: Final = ("interval", "cron", "date")
_FIELDS: Final = ("minute", "hour", "day", "month", "day_of_week")
_LEAST: Final = {"minute": "0", "hour": "0", "day": "1", "month": "1", "day_of_week": "*"}
_FINER: Final[Mapping[str, Sequence[str]]] = {
    "minute": (),
    "hour": ("minute",),
    "day_of_week": ("minute", "hour"),
    "day": ("minute", "hour"),
    "month": ("minute", "hour", "day"),
}
"""Of a field that is given, those below it: they are at their least where nobody names them, as 05:00 for the hour 5."""


class BackgroundTasks:
    """A scheduler on a thread of its own, for programs without an event loop.

    Without a `store` its records live in memory, as long as it runs. Works as a context manager, may be started again
    after a stop, and at the end of the interpreter stops by itself. Every verb may be called from any thread.
    """

    def __init__(
        self, success: int = 0, error: int = 84, debug: bool = False, store: str | Path | Store | None = None
    ) -> None:
        """`success` and `error`: what the `safe_` verbs give. `debug`: log what happens, not only what goes wrong."""
        self.success = success
        self.error = error
        self.scheduler: TaskScheduler = TaskScheduler("sqlite:///:memory:" if store is None else store)
        """The scheduler itself; use its async verbs by `call`."""
        if debug:
            self.scheduler.speaker.level = "DEBUG"
        self._host: LoopThread | None = None
        self._began: Future[None] = Future()
        self._is_stopping = False
        self._switching = asyncio.Lock()
        """Held on the loop while somebody pauses or resumes; of each loop a new one."""
        # Re-entrant: a signal handler of the host may stop what the same thread is just starting.
        self._lock = threading.RLock()
        _ALL.add(self)

    @property
    def is_running(self) -> bool:
        """Whether it is started, in this process, and not told to stop."""
        return self._host is not None and self.scheduler.is_running and not self._is_stopping

    # -- tasks

    def add_task(
        self,
        func: Callable[..., T],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        trigger: str | Trigger = "interval",
        **options: Any,
    ) -> Job[..., T]:
        """Make a function a job that runs by a trigger, before the start or later; gives the job.

        `trigger`: "interval" with `weeks days hours minutes seconds` (5 seconds if none is given), "cron" with
        `expression` or the fields `minute hour day month day_of_week`, and `timezone`; "date" with `run_date`; or a
        trigger. Fields below those given are at their least: `hour=5` is 05:00. All other options are those of a job:
        `name`, `timeout`, `retry`, ... Raises `BadTrigger`, `BadJob`, `BadParameters`.
        """
        when, rest = _trigger(trigger, dict(options))
        name = str(rest.get("name") or getattr(func, "__name__", "task"))
        wrong = _misgiven(args, kwargs, rest)
        if wrong:
            raise BadParameters(name, wrong)
        given = Parameters(name, func).named(tuple(args or ()), kwargs or {}) if args or kwargs else None

        def add() -> Job[..., T]:
            job: Job[..., T] = self.scheduler.add_job(func, when, params=given, **rest)
            return job

        async def added() -> Job[..., T]:
            return add()

        host = self._host
        if host is not None and host.is_here:
            return add()
        with self._lock:  # not while waiting for the loop: what runs there may want it too
            host = self._host
            if host is None or not host.is_alive:
                return add()
        try:
            return host.run(added())
        except NotRunning:  # stopped meanwhile: it is declared at the next start
            return add()

    def start(self) -> None:
        """Start the thread, and return once jobs run; waits for the end of a stop that did not wait.

        Raises `Conflict` if it is started, and what a start raises: `BadStore`, `BadSettings`, `NotRunning` in a fork
        of the process that started it.
        """
        if self._host is not None and self._host.is_here:
            raise Conflict("the background tasks are running already, this is their own loop")
        with self._lock:
            self._refuse_second_start()
            began: Future[None] = Future()
            self._began, self._is_stopping = began, False
            self._host = host = LoopThread(self._live, self._leave, self._complain)
            host.start()
            try:
                began.result()
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C while waiting
                    with suppress(NotRunning):
                        host.begin(self.scheduler.stop(0))
                host.join(EXIT_SECONDS)
                raise

    def _refuse_second_start(self) -> None:
        """Raise `Conflict` unless the life before is over, or ends within the time that a stop may take."""
        host = self._host
        if host is not None and host.is_alive and not self._began.done():  # a signal handler, in the middle of a start
            raise Conflict("the background tasks are being started already")
        if self.scheduler.is_running and not self._is_stopping:
            raise Conflict("the background tasks are running already; stop them before another start")
        if host is not None and host.is_alive and self._is_own_job(host):
            raise Conflict("a task of theirs asks, for whose end the stop before is waiting; start them from elsewhere")
        if host is not None and not host.join(self._longest(None)):
            raise Conflict(
                "the stop before has not ended: an async job is blocking the loop; make another BackgroundTasks"
            )

    def pause(self) -> None:
        """Hold all jobs: nothing new starts. Raises `NotRunning`, and `Conflict` if they are held already."""
        self._started("pause").run(self._pause())

    def resume(self) -> None:
        """Let jobs go on; what was due meanwhile is settled by each job's own rule. Raises `NotRunning`, `Conflict`."""
        self._started("resume").run(self._resume())

    def stop(self, wait: bool = True, *, grace: Duration | None = None) -> None:
        """Stop; `wait`: until running jobs have ended, for `grace` (None: 30 s), else they are asked to end at once.

        Inside of a job it does not wait for itself. Raises `NotRunning`, and `Conflict` instead of waiting for ever
        where an async job blocks the loop.
        """
        span = None if grace is None else parse(grace)
        host = self._host
        if host is None or not host.is_alive:
            raise NotRunning("the background tasks are not running; start() begins them")
        self._is_stopping = True
        with suppress(NotRunning):  # its thread is ending by itself
            host.begin(self.scheduler.stop(span if wait else 0))
        if wait and not self._is_own_job(host) and not host.join(self._longest(span)):
            raise Conflict(
                "the scheduler's loop does not turn, so it cannot stop: an async job is blocking it; its thread is left "
                "behind and ends with the process. A function that blocks must be a plain def, which gets a thread"
            )

    def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an async function on the scheduler's loop, wait for it and give its result: `call(job.submit, days=7)`.

        Raises what it raises; `NotRunning` before the start, or if it stops first; `Conflict` on the loop itself.
        """
        host = self._started("call")
        value: T = host.run(begun(function, *args, **kwargs))
        return value

    # -- the same without errors

    def safe_add_task(
        self,
        func: Callable[..., T],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        trigger: str | Trigger = "interval",
        **options: Any,
    ) -> Job[..., T] | int:
        """The job, or `error` with the reason logged."""
        try:
            return self.add_task(func, args, kwargs, trigger, **options)
        except Exception as error:
            return self._refused("add_task", error)

    def safe_start(self) -> int:
        """`success`, or `error` with the reason logged, also if it is started already."""
        return self._safely("start", self.start)

    def safe_pause(self) -> int:
        """`success`, or `error` with the reason logged, also if nothing changed."""
        return self._safely("pause", self.pause)

    def safe_resume(self) -> int:
        """`success`, or `error` with the reason logged, also if nothing changed."""
        return self._safely("resume", self.resume)

    def safe_stop(self, wait: bool = True) -> int:
        """`success`, or `error` with the reason logged, also if it is not running."""
        return self._safely("stop", lambda: self.stop(wait))

    def _safely(self, verb: str, do: Callable[[], None]) -> int:
        try:
            do()
        except Exception as error:
            return self._refused(verb, error)
        return self.success

    def _refused(self, verb: str, error: Exception) -> int:
        self._say("background.refused", error, verb=verb)
        return self.error

    def _say(self, name: str, error: BaseException, **fields: Any) -> None:
        said = failure(error)
        self.scheduler.speaker.say("ERROR", name, **fields, error=f"{said.type}: {said.message}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(NotRunning):  # a job may have stopped it
            self.stop()

    # -- between the threads

    def _started(self, verb: str) -> LoopThread:
        host = self._host
        if host is None or not host.is_alive:
            self.scheduler._refuse_a_fork()
            raise NotRunning(f"{verb}() needs running background tasks; start() begins them")
        if host.is_here:
            raise Conflict(f"{verb}() would wait for the loop it blocks; on the loop, await the scheduler's own verb")
        return host

    def _is_own_job(self, host: LoopThread) -> bool:
        context = running.get()
        return host.is_here or (context is not None and context.scheduler is self.scheduler)

    def _longest(self, grace: timedelta | None) -> float:
        options = self.scheduler.options
        return ((options.grace if grace is None else grace) + options.kill_grace).total_seconds() + SPARE_SECONDS

    def _hasten(self) -> LoopThread | None:
        """At the end of the interpreter: stop without waiting, and without a lock that somebody might hold."""
        host = self._host
        if host is None or not host.is_alive:
            return None
        with suppress(NotRunning):
            host.begin(self.scheduler.stop(0))
        return host

    def _is_forked(self) -> None:
        """This process is a fork of the one in which it was made: the thread is the other's, and so is its loop."""
        if self._host is not None:
            _FOREIGN.append(self._host)
        self._host, self._lock = None, threading.RLock()

    # -- on the loop

    async def _live(self) -> None:
        began, self._switching = self._began, asyncio.Lock()
        try:
            await self.scheduler.start()
        except Exception as error:
            began.set_exception(error)
            return
        except BaseException:
            began.set_exception(NotRunning("the scheduler's thread was ended while it started; start it again"))
            raise
        engine = self.scheduler._host
        began.set_result(None)
        if engine is None:
            return
        try:
            await asyncio.wait({engine})  # whoever stops it: a verb of ours, a job, or `call(scheduler.stop)`
        except asyncio.CancelledError:
            raise NotRunning(
                "something on the scheduler's loop cancelled every task there, so it has stopped; start it again"
            ) from None
        if not engine.cancelled() and (raised := engine.exception()) is not None:
            self._complain(raised)

    async def _leave(self) -> None:
        """Let go of the store, which somebody who waited for a run may have opened again."""
        await self.scheduler.close(LAST_SECONDS)

    def _complain(self, error: BaseException) -> None:
        self._say("background.loop_failed", error)

    async def _pause(self) -> None:
        async with self._switching:  # of two threads at once the second finds it done
            if (await self.scheduler.paused()) is not None:
                raise Conflict("the background tasks are paused already; resume them first")
            await self.scheduler.pause()

    async def _resume(self) -> None:
        async with self._switching:
            if (await self.scheduler.paused()) is None:
                raise Conflict("the background tasks are not paused; there is nothing to resume")
            await self.scheduler.resume()


_ALL: Final[weakref.WeakSet[BackgroundTasks]] = weakref.WeakSet()
_FOREIGN: Final[list[LoopThread]] = []
"""Of the process that this one was forked from: kept, because to take them apart would reach into its loop."""


@atexit.register
def _stop_all() -> None:
    """Daemon threads still live when this is called, and die right after it: what they do ends here, or is cut off."""
    deadline = time.monotonic() + EXIT_SECONDS
    for host in [one._hasten() for one in list(_ALL)]:
        if host is not None:
            host.join(max(0.0, deadline - time.monotonic()))


def _forked() -> None:
    for one in list(_ALL):
        one._is_forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _misgiven(args: object, kwargs: object, options: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with the form of the arguments of a task, by parameter of `add_task`."""
    wrong: dict[str, str] = {}
    if args is not None and (isinstance(args, str | bytes) or not isinstance(args, Sequence)):
        wrong["args"] = f"allowed is a tuple, a list or another sequence of values, got {type(args).__name__}"
        if isinstance(args, Every | Cron | At) or (isinstance(args, str) and args in _KINDS):  # as add_job has it
            wrong["args"] += "; a trigger is given by its name: trigger="
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        wrong["kwargs"] = "allowed is a dict of values by parameter name"
    if "params" in options:
        wrong["params"] = "is none of add_task; give args=(...) and kwargs={...}"
    return wrong


def _trigger(kind: str | Trigger, options: dict[str, Any]) -> tuple[Trigger, dict[str, Any]]:
    """The trigger that a word and its options mean, and the options that are left for the job."""
    if not isinstance(kind, str):
        return kind, options
    if kind == "interval":
        if single := [name for name in options if f"{name}s" in _UNITS]:
            raise BadTrigger(
                single[0], f"did you mean {single[0]}s=? Of an interval there are {', '.join(_UNITS)}", what="interval"
            )
        units = {name: options.pop(name) for name in _UNITS if name in options}
        try:
            if any(isinstance(number, bool) for number in units.values()):
                raise TypeError("true and false are none")
            return Every(timedelta(**units) if units else INTERVAL), options
        except (TypeError, ValueError, OverflowError) as error:
            raise BadTrigger(units, f"allowed are numbers for {', '.join(_UNITS)} ({error})", what="interval") from None
    if kind == "cron":
        return _cron(options), options
    if kind == "date":
        if "run_date" not in options:
            raise BadTrigger(kind, "it needs run_date=, an aware datetime or a text with its offset")
        return At(options.pop("run_date")), options
    near = nearest(kind, _KINDS)
    meant = f"did you mean '{near}'? " if near else ""
    raise BadTrigger(kind, f"{meant}allowed are 'interval', 'cron', 'date' or a trigger such as Every('5m')")


def _cron(options: dict[str, Any]) -> Cron:
    timezone = options.pop("timezone", None)
    given = {name: str(options.pop(name)) for name in _FIELDS if name in options}
    expression = options.pop("expression", None)
    if (expression is None) == (not given):
        found = ["expression", *given] if given else [name for name in options if name not in ("name", *OPTIONS)]
        got = f", got {', '.join(found)}" if found else ""
        raise BadTrigger(
            expression or "cron", f"give either expression= or some of {', '.join(_FIELDS)}{got}", what="cron"
        )
    if expression is None:
        least = {finer for name in given for finer in _FINER[name]} - set(given)
        if "day_of_week" in given:
            least -= {"day"}
        expression = " ".join(given.get(name, _LEAST[name] if name in least else "*") for name in _FIELDS)
    return Cron(expression, timezone=timezone)
