"""Background jobs for a program without an event loop: the same scheduler, on a thread of its own.

Level 6. Everything that touches the scheduler happens on that thread's loop; what is called here from any other thread
waits for it. The `safe_` verbs are the others without their errors: a number that says whether it went well.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar

from taskloop.context import running
from taskloop.durations import Duration
from taskloop.errors import BadTrigger, Conflict, NotRunning, nearest
from taskloop.jobs import Job
from taskloop.parameters import Parameters
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
LEFT_SECONDS: Final = 0.5
_UNITS: Final = ("weeks", "days", "hours", "minutes", "seconds")
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
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Future[Duration | None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is started and not told to stop."""
        ending = self._ending
        return self._thread is not None and self._thread.is_alive() and ending is not None and not ending.done()

    # -- tasks

    def add_task(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        trigger: str | Trigger = "interval",
        **options: Any,
    ) -> Job[..., Any]:
        """Make a function a job that runs by a trigger, before the start or later; gives the job.

        `trigger`: "interval" with `weeks days hours minutes seconds` (5 seconds if none is given), "cron" with
        `expression` or the fields `minute hour day month day_of_week`, and `timezone`; "date" with `run_date`; or a
        trigger. Fields below those given are at their least: `hour=5` is 05:00. All other options are those of a job:
        `name`, `timeout`, `retry`, ... Raises `BadTrigger`, `BadJob`, `BadParameters`.
        """
        when, rest = _trigger(trigger, dict(options))
        name = str(rest.get("name") or getattr(func, "__name__", "task"))
        given = Parameters(name, func).named(tuple(args), kwargs or {}) if args or kwargs else None

        def add() -> Job[..., Any]:
            return self.scheduler.add_job(func, when, params=given, **rest)

        async def added() -> Job[..., Any]:
            return add()

        with self._lock:
            if not self.is_running or self._is_on_loop():
                return add()
            return self.call(added)

    def start(self) -> None:
        """Start the thread, and return once jobs run. Raises `Conflict` if it is started, and what a start raises."""
        with self._lock:
            if self.is_running:
                raise Conflict("the background tasks are running already; stop them before another start")
            if self._thread is not None:
                self._thread.join()
            started: Future[None] = Future()
            thread = threading.Thread(target=self._serve, args=(started,), name="taskloop background", daemon=True)
            self._thread = thread
            thread.start()
            started.result()
            atexit.register(self._at_exit)

    def pause(self) -> None:
        """Hold all jobs: nothing new starts. Raises `NotRunning`, and `Conflict` if they are held already."""
        if self._is_paused():
            raise Conflict("the background tasks are paused already; resume them first")
        self._drive(self.scheduler.pause)

    def resume(self) -> None:
        """Let jobs go on; what was due meanwhile is settled by each job's own rule. Raises `NotRunning`, `Conflict`."""
        if not self._is_paused():
            raise Conflict("the background tasks are not paused; there is nothing to resume")
        self._drive(self.scheduler.resume)

    def stop(self, wait: bool = True, *, grace: Duration | None = None) -> None:
        """Stop; `wait`: until running jobs have ended, for `grace` (None: 30 s), else they are asked to end at once.

        Inside of a job it does not wait for itself. Raises `NotRunning`.
        """
        with self._lock:
            thread, loop, ending = self._thread, self._loop, self._ending
            if thread is None or loop is None or ending is None or not self.is_running:
                raise NotRunning("the background tasks are not running; start() begins them")
            atexit.unregister(self._at_exit)
            asked = threading.Event()

            def ask() -> None:
                if not ending.done():
                    ending.set_result(grace if wait else 0)
                asked.set()

            if self._is_on_loop():
                ask()
                return
            with suppress(RuntimeError):  # its loop has ended meanwhile
                loop.call_soon_threadsafe(ask)
                asked.wait(LEFT_SECONDS)
        if wait and running.get() is None:
            thread.join()

    def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an async function on the scheduler's loop, wait for it and give its result: `call(job.submit, days=7)`.

        Raises what it raises, and `NotRunning`.
        """
        if not self.is_running:
            raise NotRunning("the background tasks are not running; start() begins them")
        return self.scheduler.call(function, *args, **kwargs)

    # -- the same without errors

    def safe_add_task(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        trigger: str | Trigger = "interval",
        **options: Any,
    ) -> Job[..., Any] | int:
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
        self.scheduler.speaker.say("ERROR", "background.refused", verb=verb, error=f"{type(error).__name__}: {error}")
        return self.error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:  # a job may have stopped it
            self.stop()

    # -- the thread

    def _serve(self, started: Future[None]) -> None:
        """The whole life of the thread: one loop, from the start of the scheduler to its stop."""
        loop = self._loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._live(started))
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:  # what jobs left behind gets a moment to end, and no more
                loop.run_until_complete(asyncio.wait(left, timeout=LEFT_SECONDS))
            loop.set_exception_handler(lambda *_: None)
            if not asyncio.all_tasks(loop):
                loop.close()

    async def _live(self, started: Future[None]) -> None:
        try:
            await self.scheduler.start()
        except BaseException as error:
            started.set_exception(error)
            return
        self._ending = asyncio.get_running_loop().create_future()
        started.set_result(None)
        grace = await self._ending
        await self.scheduler.stop(grace)

    def _is_on_loop(self) -> bool:
        return self._thread is threading.current_thread()

    def _is_paused(self) -> bool:
        async def asked() -> bool:
            return (await self.scheduler.status()).paused is not None

        return self._drive(asked)

    def _drive(self, verb: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self.call(verb)

    def _at_exit(self) -> None:
        """The interpreter is ending: let records be written, but hang for nothing."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            with suppress(Exception):
                self.stop(wait=False)
            thread.join(EXIT_SECONDS)


def _trigger(kind: str | Trigger, options: dict[str, Any]) -> tuple[Trigger, dict[str, Any]]:
    """The trigger that a word and its options mean, and the options that are left for the job."""
    if not isinstance(kind, str):
        return kind, options
    if kind == "interval":
        units = {name: options.pop(name) for name in _UNITS if name in options}
        try:
            return Every(timedelta(**units) if units else INTERVAL), options
        except (TypeError, OverflowError) as error:
            raise BadTrigger(units, f"allowed are numbers for {', '.join(_UNITS)} ({error})", what="interval") from None
    if kind == "cron":
        return _cron(options), options
    if kind == "date":
        if "run_date" not in options:
            raise BadTrigger(kind, "it needs run_date=, an aware datetime or a text with its offset")
        return At(options.pop("run_date")), options
    near = nearest(kind, ("interval", "cron", "date"))
    meant = f"did you mean '{near}'? " if near else ""
    raise BadTrigger(kind, f"{meant}allowed are 'interval', 'cron', 'date' or a trigger such as Every('5m')")


def _cron(options: dict[str, Any]) -> Cron:
    timezone = options.pop("timezone", None)
    given = {name: str(options.pop(name)) for name in _FIELDS if name in options}
    expression = options.pop("expression", None)
    if (expression is None) == (not given):
        raise BadTrigger(expression or "cron", f"give either expression= or some of {', '.join(_FIELDS)}", what="cron")
    if expression is None:
        least = {finer for name in given for finer in _FINER[name]} - set(given)
        if "day_of_week" in given:
            least -= {"day"}
        expression = " ".join(given.get(name, _LEAST[name] if name in least else "*") for name in _FIELDS)
    return Cron(expression, timezone=timezone)
