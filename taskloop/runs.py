"""The state machine of a run: its record, which moves exist, and what an outcome leads to.

Pure: no clock, no store, no randomness. Start at `settle`. The picture is in docs/lifecycle.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal, NewType, assert_never

from taskloop.clock import later
from taskloop.frozen import Frozen, in_one_go

__all__ = [
    "ACTIVE",
    "FINAL",
    "MOVES",
    "Cancelled",
    "Cause",
    "Failure",
    "Lost",
    "Outcome",
    "Progress",
    "Raised",
    "Reason",
    "Returned",
    "Run",
    "RunId",
    "ShutDown",
    "State",
    "cancelled_by",
    "error_told",
    "given_up",
    "only_repeat_key",
    "settle",
]

RunId = NewType("RunId", int)


class State(StrEnum):
    """Where a run stands. The last five are final."""

    WAITING = "waiting"
    """Recorded, not started: waits for its instant, a slot, its group, the end of a pause, or a retry."""
    RUNNING = "running"
    """Claimed by a live worker, which alone may settle it."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The last attempt allowed raised an error, or ran into its timeout."""
    CANCELLED = "cancelled"
    """Somebody, or under `overlap="replace"` a newer run once it was begun, asked for its end."""
    INTERRUPTED = "interrupted"
    """The attempt ended without a word (its worker died or stopped) and may not be repeated."""
    SKIPPED = "skipped"
    """A fire that was decided against: `reason` says why."""


class Cause(StrEnum):
    """What brought a run about."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    API = "api"
    CLI = "cli"
    RERUN = "rerun"
    ON_START = "on_start"
    CATCH_UP = "catch_up"


class Reason(StrEnum):
    """Why a fire was skipped, or why a run ended otherwise than by itself."""

    OVERLAP = "overlap"
    TOO_LATE = "too_late"
    MISSED = "missed"
    DISABLED = "disabled"
    GROUP_FULL = "group_full"
    SUPERSEDED = "superseded"
    UNKNOWN_JOB = "unknown_job"
    SHUTTING_DOWN = "shutting_down"
    WORKER_DIED = "worker_died"
    ABANDONED = "abandoned"
    LEASE_LOST = "lease_lost"


ACTIVE: Final = frozenset({State.WAITING, State.RUNNING})
FINAL: Final = frozenset(State) - ACTIVE

MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.WAITING: frozenset({State.RUNNING, State.CANCELLED, State.SKIPPED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED, State.WAITING}),
} | {state: frozenset() for state in FINAL}
"""Every move there is. `running -> waiting` is a retry; "run again" is no move but a new run."""

_STATUS: Final[Mapping[State, str]] = {
    State.WAITING: "PENDING",
    State.RUNNING: "RUNNING",
    State.SUCCEEDED: "SUCCESS",
    State.FAILED: "FAILED",
    State.CANCELLED: "CANCELLED",
    State.INTERRUPTED: "FAILED",
    State.SKIPPED: "SKIPPED",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: `done` of `total`, with the job's own words."""

    done: float
    total: float
    message: str = ""
    rate: float | None = None
    """Units of `done` a second since the attempt began; None: not known yet."""
    eta_seconds: float | None = None
    ahead: float = 0.0
    """Of 1, what counts beyond `done`: a little for the steps of a flow that are in hand."""

    @property
    def fraction(self) -> float:
        """`done / total` and what counts beyond, kept within 0 and 1; 0 for an empty total."""
        return min(1.0, max(0.0, self.done / self.total + self.ahead)) if self.total > 0 else 0.0

    @property
    def told_after(self) -> float | None:
        """Seconds from the begin of the attempt to this report, as its rate tells; None: nothing was done by then."""
        return self.done / self.rate if self.rate else None

    def left(self, elapsed: float) -> float | None:
        """Seconds to the end of an attempt that has gone on for so many: what was left at the report, less what passed since.

        None: not known, or it has not come true.
        """
        if self.told_after is None or self.eta_seconds is None:
            return None
        left = self.eta_seconds - max(0.0, elapsed - self.told_after)
        return left if left > 0 else None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is kept: plain bounded text, safe to show."""

    type: str
    message: str
    traceback: str = ""
    fingerprint: str = ""
    """Equal for errors of one cause, whatever numbers their messages hold."""

    def __str__(self) -> str:
        """As it is told: who writes it into a message of their own means no traceback."""
        return self.told()

    def told(self, message: str | None = None) -> str:
        """Its type and its message, or that given in its place: `ValueError: no such order`."""
        return error_told(self.type, self.message if message is None else message)


@in_one_go
@dataclass(frozen=True, kw_only=True)
class Run(Frozen):
    """One record: this job, due at this instant or asked for by somebody. Instants are aware UTC."""

    id: RunId = RunId(0)
    """0 until the store has given one."""
    job: str
    schedule: str | None = None
    """The schedule that fired; None: asked for."""
    state: State = State.WAITING
    reason: str | None = None
    cause: Cause = Cause.SCHEDULE
    actor: str | None = None
    key: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0
    """The attempt in hand or the last one, from 1; 0: none has begun."""
    attempts: int = 1
    """How many attempts the policy allows."""
    due_at: datetime
    until_at: datetime | None = None
    """For a counted skip: the last of the `count` instants it stands for; None: `due_at` alone."""
    ready_at: datetime
    """Not started before this instant: a given `at`, or the time of the next attempt."""
    expires_at: datetime | None = None
    """A fire that has not begun by then is skipped; None: waits as long as it takes."""
    created_at: datetime
    started_at: datetime | None = None
    """When the first attempt began."""
    attempt_started_at: datetime | None = None
    ended_at: datetime | None = None
    worker: str | None = None
    token: int = 0
    """Grows with each claim; a write that carries an older one changes nothing."""
    priority: int = 0
    group: str | None = None
    """Whose places it takes while it runs."""
    progress: Progress | None = None
    summary: str | None = None
    result: Any = None
    error: Failure | None = None
    rerun_of: RunId | None = None
    count: int = 1
    data: Mapping[str, Any] = field(default_factory=dict)
    """The facts behind `reason`: how late, the run in the way and its age, who switched the job off, or asked for the end
    (`cancelled_by`); and how an attempt was lost (`lost`) that was followed by another.
    """
    existed: bool = False

    @property
    def status(self) -> str:
        """The state in the words of older systems: a run between two attempts is still RUNNING."""
        if self.state is State.WAITING and self.attempt > 0:
            return "RUNNING"
        return _STATUS[self.state]

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def is_only_repeat(self) -> bool:
        """Whether it is wanted only where the run it repeats has not been run again yet, whatever came of that."""
        return self.rerun_of is not None and self.key == only_repeat_key(self.rerun_of)


@dataclass(frozen=True, slots=True)
class Returned:
    """The attempt returned."""

    result: Any = None
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """The attempt raised, or ran into its timeout."""

    failure: Failure
    retry_in: timedelta | None
    """How long to wait before the next attempt; None: this error is not to be tried again."""
    result: Any = None
    """What it came to all the same, if it failed."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The attempt ended because somebody asked for it."""

    reason: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The attempt ended because the worker is stopping, and it ended in time."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt ended without a word: nobody knows how far it came."""

    reason: Literal[Reason.WORKER_DIED, Reason.ABANDONED, Reason.LEASE_LOST] = Reason.WORKER_DIED
    actor: str | None = None
    """Who had asked for its end, of one that was abandoned."""


Outcome = Returned | Raised | Cancelled | ShutDown | Lost


def settle(run: Run, outcome: Outcome, *, now: datetime, repeatable: bool) -> Run:
    """The record after an attempt of a running run came to `outcome`.

    `repeatable`: whether `on_crash` lets an attempt that was cut short be made again. A retry uses up an attempt; a
    stop that the job heeded in time gives the attempt back. An abandoned attempt is never repeated, since it may
    still be going on.
    """
    if run.state is not State.RUNNING:
        raise ValueError(f"run {run.id} is {run.state}; only a running run can be settled")
    match outcome:
        case Returned(result, summary):
            return _end(run, State.SUCCEEDED, now, result=result, summary=summary, error=None)
        case Raised(failure, retry_in, result):
            if retry_in is not None and run.attempt < run.attempts:
                return _wait(run, later(now, retry_in), error=failure)
            return _end(run, State.FAILED, now, error=failure, summary=first_line(failure.message), result=result)
        case Cancelled(reason, actor):
            return cancelled_by(actor, run, reason, now)
        case ShutDown():
            if repeatable:
                return _wait(run, now, attempt=run.attempt - 1)
            return _end(run, State.INTERRUPTED, now, reason=Reason.SHUTTING_DOWN)
        case Lost(reason, actor):
            if repeatable and reason is not Reason.ABANDONED and run.attempt < run.attempts:
                return _wait(run, now, data={**run.data, "lost": reason.value})
            return _end(run, State.INTERRUPTED, now, reason=reason, data=_told_of(actor, run))
        case _:
            assert_never(outcome)


def cancelled_by(actor: str | None, run: Run, reason: str | None, now: datetime) -> Run:
    """The record of a run whose end `actor` has asked for, None: nobody; `run.actor` stays who asked for the run."""
    return _end(run, State.CANCELLED, now, reason=reason, data=_told_of(actor, run))


def _told_of(actor: str | None, run: Run) -> Mapping[str, Any]:
    """The data of a run whose end `actor` has asked for, None: nobody."""
    return run.data if actor is None else {**run.data, "cancelled_by": actor}


def given_up(run: Run, reason: str | None, now: datetime, actor: str | None = None) -> Run:
    """The record of a run that waits and is not to begin: a fire that was never begun is skipped, all else cancelled."""
    if run.schedule is None or run.started_at is not None:  # by its attempts it would not show: a stop gives one back
        return cancelled_by(actor, run, reason, now)
    return _end(run, State.SKIPPED, now, reason=reason)


def only_repeat_key(run: int) -> str:
    """The key of a run that repeats another one, and is the only one to do so."""
    return f"again-{run}"


def error_told(kind: str, message: str | None) -> str:
    """The type of an error and its message, if it has one."""
    return f"{kind}: {message}" if message else kind


def first_line(text: str, limit: int = 200) -> str:
    """The first line of a text, cut to `limit` characters: what a list shows of it."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _end(run: Run, state: State, now: datetime, **changes: Any) -> Run:
    return run.changed(state=state, ended_at=now, **changes)


def _wait(run: Run, ready_at: datetime, **changes: Any) -> Run:
    return run.changed(state=State.WAITING, ready_at=ready_at, worker=None, **changes)
