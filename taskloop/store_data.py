"""The plain data that passes between the engine and a store: what is asked to be written, what has become of it, and what
is found. The verbs are in `store`.

Level 4. What only passes through is a NamedTuple: making the class of a dataclass takes a millisecond, and every command
line pays it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from taskloop.frozen import Frozen, in_one_go
from taskloop.policy import Policy
from taskloop.runs import Outcome, Run, RunId, State
from taskloop.schedules import Plan, Schedule
from taskloop.steps import LogLine
from taskloop.switches import Switches

__all__ = [
    "Attempt",
    "Brief",
    "Cancelling",
    "Claimed",
    "DayCount",
    "Definition",
    "Due",
    "Evidence",
    "Fired",
    "Firing",
    "Former",
    "Incident",
    "Newest",
    "Pruned",
    "Query",
    "Renamed",
    "Settling",
    "Span",
    "Subject",
    "Terms",
    "Window",
    "Wish",
    "Worker",
]


class Terms(NamedTuple):
    """What a store must know of a job to hand out its runs."""

    job: str
    held: bool = False
    """Paused: nothing of it fires or starts."""
    gated: bool = True
    """At most one run of each of its schedules at a time."""
    group: str | None = None
    places: int = 1
    """Runs at once in the group."""
    max_running: int | None = None
    expires: bool = False
    """Whether its fires may wait only so long."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One live scheduler process: a random id and what tells whether it is still there."""

    id: str
    name: str | None
    host: str
    pid: int
    process: str
    """Differs between two processes that had the same pid one after the other."""
    started_at: datetime
    beat_at: datetime
    stopped_at: datetime | None = None
    beat_tick: float | None = None
    """Its last beat by the clock of its machine that nobody sets, in seconds; None: unknown."""
    ended: Literal["stopped", "died"] | None = None
    """How it came to its end; None: it lives."""
    fires: bool = True
    """Whether it fires schedules; False: it only submits, or only runs what is submitted."""
    jobs: frozenset[str] | None = None
    """The jobs it knows; None: not told, there are too many."""
    version: str | None = None
    health: Mapping[str, Any] = field(default_factory=dict)
    """What it said of itself with its last beat: `lease_seconds`, `lag_ms`, `blocked`, `store`, `stalled`."""

    @property
    def only_submits(self) -> bool:
        """Whether it fires and runs nothing, as a scheduler with `enabled = false`: any other that does not fire says what
        it takes.
        """
        return not self.fires and "takes" not in self.health


class Incident(NamedTuple):
    """Something that disturbed a worker: kept, so that the past can be explained."""

    worker: str
    kind: Literal["loop_blocked", "clock", "frozen", "store", "fenced", "taken_for_dead", "stalled"]
    since: datetime
    until: datetime
    data: Mapping[str, Any] = {}


class Wish(NamedTuple):
    """What another process asks of the worker that has a run."""

    run: RunId
    actor: str | None
    reason: str | None


class Definition(NamedTuple):
    """A job as some worker last declared it, in plain JSON."""

    name: str
    facts: Mapping[str, Any]
    origin: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call inside a run, ended or in hand."""

    attempt: int
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str
    worker: str | None
    error: Mapping[str, Any] | None = None


class DayCount(NamedTuple):
    """Runs of a job that ended on one day of UTC in one state."""

    day: date
    state: State
    runs: int
    took_seconds: float
    """Of all of them together, each from its first start to its end."""


class Newest(NamedTuple):
    """What the history says of how a job stands, without the runs themselves."""

    run: RunId
    """Its newest run, skips not counted."""
    state: State
    last_success: datetime | None
    failures: int
    """Since its last success, 100 at most."""
    failure: str | None
    """What is wrong with the newest failure since then: what it said, or how it ended."""
    failing_since: datetime | None
    """When the first of them ended."""
    begun: bool
    """Whether the newest run has had an attempt."""


@in_one_go
@dataclass(frozen=True, kw_only=True)
class Span(Frozen):
    """As much of a run as a timeline shows, under the names that a `Run` has for it."""

    id: int
    job: str
    state: State
    reason: str | None
    due_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    count: int


class Brief(NamedTuple):
    """As much of a run as a picture of many shows."""

    id: int
    state: State
    took_seconds: float | None
    """From its first start to its end; None: it has not ended, or never began."""


class Due(NamedTuple):
    """Schedules that are due, or soon will be, the earliest first, and the next instant at which another will be.

    None: there is none after them, or nobody has looked, for there were as many as were wanted, or they are due.
    """

    schedules: Sequence[Schedule]
    next_at: datetime | None


class Firing(NamedTuple):
    """A plan to carry out, and whether the worker has a free slot for its newest run."""

    plan: Plan
    policy: Policy
    starts: bool = False
    because: Mapping[str, Any] = {}
    """The numbers behind its fires that are no runs: who switched the job off, how long the outage was."""
    trial: bool = False
    """The job's breaker lets one run through: a fire beside an active run of the job is skipped as disabled."""
    declared: Mapping[str, Any] | None = None
    """What the job's declaration gives, by the version that fires; None: it goes by what is stored with the schedule."""

    @property
    def params(self) -> Mapping[str, Any]:
        """What its runs are given."""
        return self.plan.schedule.params if self.declared is None else self.declared


class Fired(NamedTuple):
    """What became of firings in the store."""

    started: Sequence[Run] = ()
    """Claimed by this worker in the same transaction: to be started now."""
    waiting: int = 0
    """Runs written that wait for a slot, a place or the end of another."""
    skipped: Sequence[Run] = ()
    gave_way: Sequence[Run] = ()
    """Waiting runs that gave way to a newer one: skipped, or cancelled where they had been begun."""
    replaced: Sequence[RunId] = ()
    """Running runs that are to be cancelled for a newer one; wishes for them are written."""
    lost: int = 0
    """Firings that another process had done first."""

    @property
    def ended(self) -> Sequence[Run]:
        """Runs that are final now."""
        return (*self.skipped, *self.gave_way)

    @property
    def more(self) -> bool:
        """Whether a claim may find something."""
        return self.waiting > 0


class Claimed(NamedTuple):
    """Runs this worker now has, runs that waited too long, and when the next waiting one is ready (None: none)."""

    started: Sequence[Run]
    expired: Sequence[Run]
    next_at: datetime | None
    more: bool
    """Whether others may be ready: ask again when a slot is free."""
    left: bool = True
    """Whether any run waits at all, for whatever: if none does, the end of a run starts no other."""
    replaced: Sequence[RunId] = ()

    @property
    def ended(self) -> Sequence[Run]:
        """Runs that are final now."""
        return self.expired


class Settling(NamedTuple):
    """A running run as it was claimed, and as it is to stand after its attempt."""

    before: Run
    after: Run
    outcome: Outcome
    breaker: tuple[int, timedelta] | None = None
    """Failures in a row that switch the job off, and for how long; None: none do."""
    for_the_dead: bool = False
    """Written in the place of a worker that died, and only while it is dead."""
    lines: Sequence[LogLine] = ()
    """The last lines of its log."""
    awaited: bool = True
    """Whether somebody waits for the answer; else it may be given when there is time."""


class Cancelling(NamedTuple):
    """What a cancel did: the run as it now stands, and whether a wish was left with the worker that has it."""

    run: Run
    wished: bool = False
    ended: bool = False
    """This very cancel ended it: it waited. Neither: it had ended before, and stays as it is."""


class Query(NamedTuple):
    """Which runs to find, newest first. None: no such condition; skips are left out unless `state` names them.

    `since` and `until` are of the instant they were put on record, `created_at`.
    """

    jobs: Sequence[str] | None = None
    states: Sequence[State] | None = None
    cause: str | None = None
    schedule: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    limit: int = 100
    skipped: bool = False


class Former(NamedTuple):
    """A schedule as it was until it was changed or removed."""

    schedule: Schedule
    until: datetime


class Renamed(NamedTuple):
    """What went over to other job names."""

    schedules: Sequence[str]
    """The old names whose declared schedule goes on under the new one."""
    active: bool
    """Whether any of them is yet to end."""
    ended: Sequence[Run]
    """Those that gave way to a run of the same key under the new name."""
    more: bool
    """Whether there are records left under an old name."""


class Pruned(NamedTuple):
    """What one step of pruning did: runs deleted, and where to go on, which only the store can read.

    `after` None: the round is over.
    """

    deleted: int
    after: object | None


class Window(NamedTuple):
    """An instant that is asked about, and how exactly it is meant: from `since` to before `until`."""

    at: datetime
    since: datetime
    until: datetime


class Evidence(NamedTuple):
    """What a store knows about a job around an instant: all that an explanation is made from."""

    schedules: Sequence[Schedule]
    former: Sequence[Former]
    """Schedules that were changed or removed after the instant."""
    rows: Sequence[Run]
    """Records of fires that hold the instant, itself or among those they count, and of each schedule the next one
    after it, within the window; without an instant the fire decided last; of a question about a run that run."""
    asked: Sequence[Run]
    """Runs of the job that were asked for or due within the window, else the last one before its end."""
    active: Sequence[Run]
    """Active runs of the job, oldest first, at most 100."""
    switches: Switches = Switches()
    """All intervals that touch the instant or what came of it, ended ones too."""
    workers: Sequence[Worker] = ()
    incidents: Sequence[Incident] = ()
    group: Sequence[Run] = ()
    """Running runs of the row's group."""
    previous: Run | None = None
    """The record before the one that was found, of its schedule; of any of the job where none was found."""
    next: Run | None = None
    ahead: Run | None = None
    """The run of the same schedule before the row, skips left out: it may have kept it waiting."""
    freed: Sequence[Run] = ()
    """Of a row that began late the last run of its group, and of its job, that ended until then: it may have its place."""
    began_at: datetime | None = None
    """The oldest thing on record; None: the store is empty."""
    known_since: datetime | None = None
    """Since when workers, switches, incidents and former schedules are all there; None: nothing was ever deleted."""
    kept_since: datetime | None = None
    """The oldest record of the job that is kept; None: there is none."""
    left_out: int = 0
    """Schedules of the job that were not read, for there are too many."""
    cut: bool = False
    """Whether there were more records around the instant than are read."""


class Subject(NamedTuple):
    """What an explanation is about: of which schedule (None: of none), the facts of which time matter, its record."""

    schedule: str | None
    since: datetime
    until: datetime
    row: Run | None
