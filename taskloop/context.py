"""What a running attempt can see and say: `RunContext`, and `current_run` to find it.

Level 2: knows no engine. The engine makes the context, reads what the job reports through it and sets its flag.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from datetime import datetime
from math import isfinite
from typing import Any, Final, ParamSpec, Self, TypeVar, overload

from taskloop.errors import BadValue, NoCurrentRun, NotRunning
from taskloop.retry import Retry
from taskloop.runs import Progress, Run, RunId
from taskloop.steps import LEVELS

__all__ = ["AttemptCancelled", "RunContext", "StepContext", "StepName", "current_run", "running"]

P = ParamSpec("P")
MESSAGE_CHARACTERS: Final = 1_000
"""What is kept of a progress message."""
REPORTS: Final = 200
"""Reports that a thread may make before others have their turn: a fraction of a millisecond."""
T = TypeVar("T")

running: Final[ContextVar[RunContext | None]] = ContextVar("taskloop_run", default=None)
"""Set by the engine around each attempt; child tasks and threads of a job inherit it."""


class AttemptCancelled(BaseException):
    """Raised by `check_cancelled` once the attempt is to end; like a cancellation, not for jobs to catch."""


class RunContext:
    """The attempt in hand, injected where a parameter of the job is annotated with this class.

    Every method may be called from the loop and from any thread.
    """

    __slots__ = (
        "_call",
        "_cancelled",
        "_monotonic",
        "_progress",
        "_report",
        "_run",
        "_started",
        "_stepping",
        "_turn",
        "began",
        "begin_steps",
        "enter",
        "entered",
        "give_way",
        "lines",
        "open_log",
        "scheduler",
        "scrub",
        "trusted",
        "unwritten",
        "withdraw",
    )

    def __init__(
        self,
        run: Run,
        *,
        monotonic: Callable[[], float],
        call: Callable[..., Any] | None = None,
        report: Callable[[], Any] | None = None,
        scheduler: Any = None,
    ) -> None:
        self._run = run
        self._monotonic = monotonic
        self._started = monotonic()
        self._call = call
        self._report = report
        self._progress: Progress | None = None
        self.scheduler: Any = scheduler
        """The scheduler this attempt runs in."""
        self._cancelled = False
        self._turn = 0
        self.give_way: Callable[[], object] | None = None
        """Lets other threads have a turn; the executor sets it where the function has a thread of its own."""
        self.withdraw: Callable[[], None] | None = None
        """Takes back a call that waits for a thread, unless it has begun; the executor sets it."""
        self.entered: bool = False
        """Whether the function may have been called; set by an executor with which calls wait for their turn."""
        self.began: Callable[[], object] | None = None
        """To be called on the loop when such a call's turn has come; None: nobody waits for that."""
        self.enter: Callable[[], object] | None = None
        """To be called in the task of the attempt before anything of it, so that what it sets is seen there and in threads of
        the job; None: nobody asked for that."""
        self._stepping: Any = None
        self.begin_steps: Callable[[RunContext], Any] | None = None
        """Makes what carries out the steps of this run, when it takes the first; None: steps are plain calls."""
        self.trusted: Callable[[], bool] | None = None
        """Whether the run is surely this worker's; asked before a call begins. None: there is no other."""
        self.scrub: Callable[[str], str] | None = None
        """Takes the run's secrets out of a text; None: it has none."""
        self.lines: Any = None
        """The run's log; None: nothing was said yet, or none is kept."""
        self.open_log: Callable[[RunContext], object] | None = None
        """Makes `lines`, when the first is said; None: none is kept."""
        self.unwritten: bool = False
        """Whether `latest` is newer than what the store has; the engine clears it."""

    def _share(self, other: RunContext) -> None:
        """Have what belongs to the run of another context: its steps, its log, its secrets."""
        self._stepping, self.open_log = other._steps, other.open_log
        self.trusted, self.scrub = other.trusted, other.scrub

    @property
    def _steps(self) -> Any:
        """Carries out the steps of this run; None: no engine is there, steps are plain calls."""
        if self._stepping is None and self.begin_steps is not None:
            self._stepping = self.begin_steps(self)
        return self._stepping

    @property
    def _takes_steps(self) -> bool:
        """Whether a step was begun."""
        return self._stepping is not None

    @property
    def _keeps_log(self) -> bool:
        """Whether anybody keeps what the run says."""
        return self.open_log is not None or self.lines is not None

    def _log_lines(self) -> Any:
        """Where the lines of the run's log go; None: nowhere."""
        if self.lines is None and self.open_log is not None:
            self.open_log(self)
        return self.lines

    @property
    def id(self) -> RunId:
        return self._run.id

    @property
    def job(self) -> str:
        return self._run.job

    @property
    def schedule(self) -> str | None:
        """The schedule that fired; None: asked for."""
        return self._run.schedule

    @property
    def key(self) -> str:
        """The same for every attempt of this run and for no other run: what makes outside effects idempotent."""
        return self._run.key if self._run.key is not None else f"{self._run.job}:{self._run.id}"

    @property
    def attempt(self) -> int:
        """From 1."""
        return self._run.attempt

    @property
    def due_at(self) -> datetime:
        """The instant this run stands for, however late it started."""
        return self._run.due_at

    @property
    def params(self) -> Mapping[str, Any]:
        return self._run.params

    @property
    def worker(self) -> str | None:
        return self._run.worker

    @property
    def cancelled(self) -> bool:
        """True once the attempt is asked to end: by a timeout, a cancel, or a stop."""
        return self._cancelled

    @cancelled.setter
    def cancelled(self, asked: bool) -> None:
        self._cancelled = asked

    @property
    def step(self) -> StepName:
        """The name of the step in hand, a text; called, it carries out a step: `await run.step("load", load, 7)`."""
        return StepName("", self)

    @property
    def age(self) -> float:
        """Seconds since the attempt began, by the steady clock."""
        return self._monotonic() - self._started

    @property
    def latest(self) -> Progress | None:
        """What the job reported last; the engine picks it up a few times a second at most."""
        return self._progress

    def progress(self, done: float | None = None, total: float = 100, message: str = "") -> None:
        """Say how far the attempt has come: `done` of `total`. Costs no more than an assignment.

        `done` None keeps the figures of the last call and changes the message alone. Raises `BadValue` for figures
        that are not finite.
        """
        try:
            total, done = float(total), None if done is None else float(done)
        except OverflowError:
            raise BadValue("progress is beyond what a float can say; finite numbers are allowed") from None
        except (TypeError, ValueError):
            raise BadValue(
                f"progress is {done!r:.40} of {total!r:.40}; finite numbers are allowed, and where the total is not known "
                "the message alone: run.progress(message=...)"
            ) from None
        if not (isfinite(total) and (done is None or isfinite(done))):
            raise BadValue(f"progress is {done} of {total}; finite numbers are allowed")
        last, ahead = self._progress, 0.0
        if done is None:
            done, total, ahead = (last.done, last.total, last.ahead) if last else (0, total, 0.0)
        elapsed = self.age
        rate = _finite(done / elapsed) if elapsed > 0 and done > 0 else None
        eta = _finite(max(0.0, (total - done) / rate)) if rate else None
        text = str(message) if self.scrub is None else self.scrub(str(message))
        text = text.encode(errors="replace").decode().replace("\0", "�")[:MESSAGE_CHARACTERS]
        self._progress = Progress(done, total, text, rate, eta, ahead)
        self._reported()
        if not self.unwritten:  # one call to the loop for however many reports until they are written
            self.unwritten = True
            if self._report is not None:
                self._report()

    def log(self, text: object, level: str = "info") -> None:
        """Add a line to the run's own log, which is kept with its record: `taskloop logs RUN` shows it.

        `level`: debug, info, warning, error or critical, in small or capital letters; else `BadValue`. A line is cut at 4,000 characters, and the log
        of an attempt ends where `[log] capture` says, with the number of lines left out. Costs a few microseconds.
        """
        if level not in LEVELS:
            level = str(level).lower()
            if level not in LEVELS:
                raise BadValue(f"log level is {level!r}; allowed are {', '.join(LEVELS)}")
        self.add_line(level, text)

    def add_line(self, level: str, text: object) -> None:
        """`log`, of a level that is known to be one."""
        lines = self._log_lines()
        if lines is not None:
            lines.add(level, text, str(self.step) or None)
            self._reported()

    def _reported(self) -> None:
        """Give way after some reports: a thread that does nothing but report is interrupted only every 5 ms, and the
        loop, and each statement of the store, would wait for as long.
        """
        self._turn += 1
        if self._turn >= REPORTS:
            self._turn = 0
            if self.give_way is not None:
                self.give_way()

    def check_cancelled(self) -> None:
        """Leave the attempt if it was asked to end; a job in a thread ends promptly only if it calls this, or waits by `call`
        for another run or a step, which ends in the same way.

        Raises `AttemptCancelled`, which is no `Exception`.
        """
        if self.cancelled:
            raise AttemptCancelled(f"run {self._run.id} was asked to end")

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """From a job's thread: run an async function on the scheduler's loop, wait for it and give its result."""
        if self._call is None:
            raise NotRunning("this context belongs to no scheduler; call() needs a running one")
        result: T = self._call(function, *args, **kwargs)
        return result


class StepContext(RunContext):
    """What a step sees: its run, with its own name and attempt; what it says of its progress is its run's message."""

    __slots__ = ("_attempt", "_name", "_parent")

    def __init__(self, parent: RunContext, name: str, attempt: int, params: Mapping[str, Any] | None = None) -> None:
        """`params`: what the step takes, where that is not what the run takes."""
        super().__init__(
            parent._run if params is None else parent._run.changed(params=params),
            monotonic=parent._monotonic,
            call=parent._call,
            report=parent._report,
            scheduler=parent.scheduler,
        )
        self._parent, self._name, self._attempt = parent, name, attempt
        self._share(parent)

    def _log_lines(self) -> Any:
        return self._parent._log_lines()

    @property
    def step(self) -> StepName:
        return StepName(self._name, self)

    @property
    def attempt(self) -> int:
        """The call of this step, from 1."""
        return self._attempt

    @property
    def cancelled(self) -> bool:
        return self._parent.cancelled

    @cancelled.setter
    def cancelled(self, asked: bool) -> None:
        self._cancelled = asked

    def progress(self, done: float | None = None, total: float = 100, message: str = "") -> None:
        super().progress(done, total, message)
        latest = self._progress
        assert latest is not None
        share = f"{latest.fraction:.0%}" if done is not None else ""
        self._parent.progress(message=" ".join(part for part in (f"{self._name}:", share, latest.message) if part))


class StepName(str):
    """The name of the step in hand, empty outside of one; called, it carries out a step of the run."""

    __slots__ = ("_context",)
    _context: RunContext

    def __new__(cls, name: str, context: RunContext) -> Self:
        made = super().__new__(cls, name)
        made._context = context
        return made

    @overload
    async def __call__(
        self, name: str, function: Callable[..., Awaitable[T]], *args: Any, retry: Retry | int | None = None
    ) -> T: ...
    @overload
    async def __call__(
        self, name: str, function: Callable[..., T], *args: Any, retry: Retry | int | None = None
    ) -> T: ...
    async def __call__(
        self, name: str, function: Callable[..., Any], *args: Any, retry: Retry | int | None = None
    ) -> Any:
        """Call `function(*args)` as a step of this run, whose result is kept: on a retry of the run, or after a crash, it
        is taken from the record and the function is not called again.

        The result must be plain data; it comes back as the function's return annotation has it. `retry`: how failures of
        this step are tried again; None: not at all. A plain `def` goes to a thread. Side by side with `asyncio.gather`
        it is the fan-out over a list. Raises what the function raises, and `BadValue` for a name used twice in a run.
        """
        stepping = self._context._steps
        if stepping is None:  # a unit test that calls the job by itself
            result = function(*args)
            return await result if isinstance(result, Awaitable) else result
        return await stepping.call(self._context, name, function, args, Retry.of(retry))


def _finite(number: float) -> float | None:
    """The number, unless it grew beyond what JSON has a word for."""
    return number if isfinite(number) else None


def current_run() -> RunContext:
    """The context of the attempt that is executing this code, found from any depth.

    Raises `NoCurrentRun` outside a run.
    """
    context = running.get()
    if context is None:
        raise NoCurrentRun("no run is executing here; current_run() works only inside a job")
    return context
