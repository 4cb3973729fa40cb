"""The Store protocol: what the engine asks of a memory, and the plain data that passes between them.

Level 4. A store takes `now`, it never asks a clock. `tests/test_store*.py` is the suite every store must pass.
Start at `Store`; `open_store` turns an address into one. What only passes through is a NamedTuple: making the class of a
dataclass takes a millisecond, and every command line pays it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol

from taskloop.audit import Entry
from taskloop.errors import BadStore
from taskloop.frozen import Frozen, in_one_go
from taskloop.policy import Policy
from taskloop.runs import Outcome, Progress, Run, RunId, State
from taskloop.schedules import Plan, Schedule
from taskloop.steps import LogLine, Step
from taskloop.switches import Switch, Switches, SwitchKind
from taskloop.tokens import Token

__all__ = [
    "Attempt",
    "Beater",
    "Cancelling",
    "Choose",
    "Claimed",
    "DayCount",
    "Definition",
    "Due",
    "Evidence",
    "Fired",
    "Firing",
    "Former",
    "Heed",
    "Incident",
    "Merge",
    "Pruned",
    "Query",
    "Renamed",
    "Rewind",
    "Settling",
    "Store",
    "Subject",
    "Terms",
    "Window",
    "Wish",
    "Worker",
    "open_store",
]

Merge = Callable[[Schedule | None, Schedule], Schedule]
"""What to store, from what is stored under the id (None: nothing) and what was declared."""
Rewind = Callable[[Schedule, Sequence[tuple[datetime, datetime]]], Schedule]
"""Where a schedule stands after the clock was set back, given the spans of later instants that are decided already."""
Heed = Callable[[Any], None]
"""Called on the loop with the answer or the error of a write, also when who asked for it is gone: what a store has
handed out is never forgotten."""


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
    """What it said of itself with its last beat: `lag_ms`, `blocked`, `store`, `stalled`."""


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


Choose = Callable[[Evidence], Subject]
"""What of the records found an explanation is about; called on the store's thread: values in, a value out."""


class Beater(Protocol):
    """Beats for a worker from one thread that is not the loop's, over a connection of its own."""

    def beat(self, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        """Say that its worker lives. False: it was taken for dead meanwhile, and lives again from now on.

        Raises `StoreUnavailable`, and `BadStore` where a newer program has taken the store over.
        """

    def close(self) -> None: ...


Schema = Literal["upgrade", "newest", "any"]
"""What an opening does about an older schema: bring it up to date, refuse it, or leave it as it is."""


class Store(Protocol):
    """What remembers schedules, runs, switches and workers.

    Every verb that writes returns after its commit, raises `StoreUnavailable` when it cannot write, and is not undone
    by cancelling the caller. One that takes an `entry` of the audit completes and writes it in the transaction of the change,
    where anything was changed (see `taskloop.audit`).
    """

    url: str
    private: bool
    """Whether no other process can reach it, so that nobody needs to be heeded."""
    remote: bool
    """Whether it lies beyond a network, where others may reach it while this process cannot."""
    upgraded_from: int | None
    """The older schema that opening it brought up to date; None: there was none."""

    @property
    def in_flight(self) -> int:
        """Calls that wait for a thread or a connection."""

    async def open(self, *, create: bool = True, schema: Schema = "upgrade") -> None:
        """Make ready. `create` false: a store that is not there is not made, neither a file nor tables in a foreign one.

        Raises `BadStore` (foreign, newer, corrupt, older unless `schema` allows for it), `StoreUnavailable`.
        """

    async def close(self, within: float = 10.0) -> None:
        """Write what is queued and let go, in about `within` seconds. Safe to call twice, or unopened."""

    # -- workers
    async def enlist(self, worker: Worker) -> Sequence[Worker]:
        """Record this worker; gives the others not known to have stopped."""

    async def beat(self, worker: Worker, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        """As `Beater.beat`, from the loop."""

    def beater(self, worker: Worker) -> Beater | None:
        """A beater, not connected yet; None: no other process can reach the store, so nobody needs to hear beats."""

    async def leave(self, worker: str, now: datetime) -> None:
        """Record that a worker has stopped."""

    async def has_jobs(self, worker: str, jobs: Iterable[str]) -> None:
        """Record that a worker has other jobs now than when it enlisted."""

    async def bury(self, worker: Worker) -> bool:
        """Record that a worker has died, unless it has beaten since it was read; False: it lives, or has stopped."""

    async def note(self, incidents: Sequence[Incident], heed: Heed | None = None) -> None:
        """Keep what disturbed a worker. `heed` hears that it is written, or the error, also if the caller is cancelled."""

    async def incidents(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[Incident]:
        """What disturbed any worker in a span, newest first."""

    async def workers(self, *, living: bool = False) -> Sequence[Worker]:
        """Those not known to have stopped, and unless only these are asked for the newest of the others."""

    async def in_hand(self, worker: str) -> Mapping[RunId, int]:
        """The running runs of a worker, and the token of each."""

    async def orphans(self) -> Sequence[Run]:
        """The running runs of these workers, and of those that are known to have stopped or not known at all."""

    async def changed(self) -> bool:
        """Whether another process has written since the last call."""

    def on_ended(self, heed: Callable[[Sequence[RunId]], None]) -> None:
        """From now on, while `hint` is asked, call `heed` on the loop with runs that have ended in other processes: not
        all of them, and none where nobody can tell.
        """

    async def hint(self, seconds: float) -> None:
        """Wait until another process may have written something to act on, at most so long: a look at `changed` may be
        worth it sooner. Where nobody can tell, it is so long.
        """

    # -- jobs and schedules
    async def know(self, terms: Iterable[Terms]) -> None:
        """From now on hand out fires and runs of exactly these jobs."""

    async def define(self, definitions: Iterable[Definition]) -> None:
        """Keep what jobs declare, in place of what was kept of the jobs of these names."""

    async def definitions(self, *, without: Collection[str] = ()) -> Sequence[Definition]:
        """What was declared of all jobs but these."""

    async def aliases(self) -> Mapping[str, str]:
        """Every alias that a stored definition names, and the job that has it."""

    async def rename(self, names: Mapping[str, str], now: datetime, limit: int) -> Renamed:
        """Give schedules, active runs, switches and counters of old job names to the new ones (old: new), and of each
        history the newest `limit` records that are still under the old name.
        """

    async def relabel(self, names: Mapping[str, str], now: datetime) -> None:
        """Let declared schedules (old id: new id) go on under the new ids, as jobs of those names, unless those have one; and
        give them what is on record since a day before `now`, so that nothing of it is fired again. All in one transaction.
        """

    async def put(
        self, schedules: Sequence[Schedule], merge: Merge, now: datetime, entry: Entry | None = None
    ) -> Sequence[Schedule]:
        """Store each as `merge` has it, all in one transaction; gives what is stored now. What it replaces is kept
        as what it was until `now`.
        """

    async def drop(self, ids: Sequence[str], now: datetime, entry: Entry | None = None) -> int:
        """Remove schedules; their runs stay. Gives how many there were."""

    async def schedules(
        self,
        *,
        job: str | None = None,
        ids: Sequence[str] | None = None,
        prefix: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Schedule]:
        """Schedules by id, at most `limit`: of this job, whose ids begin with `prefix`, that come `after` that id."""

    async def replan(self, decide: Rewind, rules: str) -> int:
        """Move the cursors of known jobs to where `decide` has them, unless that was done for these `rules` of the
        time zones before. Gives how many moved.
        """

    async def declared_schedules(self) -> Sequence[tuple[str, str]]:
        """Id and job of every schedule that code or a file declared, by id."""

    async def rewind(
        self, decide: Rewind, now: datetime, *, back: timedelta | None, boot: str, since: float, tick: float
    ) -> int:
        """Move the cursors of known jobs to where `decide` has them, after the wall clock was set back to `now`, by `back`.

        What waits is hastened by as much; `back` None: nobody knows how much, and what was written later than `now` waits
        no longer. A run that was asked for at an instant keeps it.

        Only one process of a machine does so: `boot` names the machine's life, `since` and `tick` are seconds of its
        steady clock, when the wall clock was last right and now. Gives how many cursors moved.
        """

    async def coming(self, limit: int, *, jobs: Sequence[str] | None = None) -> Sequence[Schedule]:
        """The schedules that fire next, of these jobs or of all, earliest first."""

    async def next_dues(self, jobs: Sequence[str]) -> Mapping[str, datetime]:
        """When each job fires next by any of its schedules."""

    async def due(self, now: datetime, limit: int, without: Collection[str] = (), ahead_seconds: float = 0.0) -> Due:
        """What is due of the known jobs, the oldest first, but for the schedules of the ids `without`.

        And then what comes within `ahead_seconds`, unless the store is one of several hosts: they would all read the same.
        What was read ahead is fired only if it stands so when it comes due.
        """

    async def fire(self, firings: Sequence[Firing], worker: str, now: datetime, heed: Heed | None = None) -> Fired:
        """Move the cursors and write the runs and skips, in one transaction. Fires nothing twice."""

    # -- runs
    async def submit(self, runs: Sequence[Run], heed: Heed | None = None, entry: Entry | None = None) -> Sequence[Run]:
        """Write runs, each WAITING, or RUNNING where its worker has a slot for it; gives them with ids.

        A run whose key is taken comes back as the earlier one, with `existed`; with other parameters `KeyConflict`.
        One that `is_only_repeat` does so too where its run was run again before, by whatever key and with whatever end.
        """

    async def submit_within(self, connection: Any, runs: Sequence[Run], entry: Entry | None = None) -> Sequence[Run]:
        """As `submit`, by a connection of the application's to this store's database, within its transaction.

        Raises `BadStore` for a connection of another kind, or to another database.
        """

    async def claim(self, worker: str, now: datetime, slots: int, heed: Heed | None = None) -> Claimed:
        """Make at most `slots` waiting runs of the known jobs running ones of this worker: those that are ready and may
        start, by priority, then by how long they have been ready. Fires that have waited beyond `max_late` are skipped.

        `heed` hears the answer also if the caller is cancelled meanwhile: what was handed out is the worker's to start.
        """

    def settle(self, settling: Settling) -> Awaitable[Run | None]:
        """Write how an attempt ended, and give the run as it stands now: as it was to stand, or cancelled if it was to
        wait and somebody has asked for its end. None: the run was taken from this worker meanwhile; nothing is changed.
        """

    async def progress(self, reports: Sequence[tuple[Run, Progress]]) -> None:
        """Keep how far running runs have come; of one that was taken from its worker meanwhile nothing is changed."""

    async def step(self, run: Run, steps: Sequence[Step]) -> bool:
        """Write how steps of a running run stand. False: it was taken from this worker meanwhile; nothing is changed."""

    async def steps(self, run: RunId) -> Sequence[Step]:
        """The steps of a run, in their order."""

    async def log(self, reports: Sequence[tuple[Run, Sequence[LogLine]]]) -> None:
        """Keep lines of the logs of running runs."""

    async def lines(self, run: RunId, after: int = 0, limit: int = 100) -> tuple[Sequence[LogLine], int]:
        """Lines of a run's log from the place `after` on (0: its beginning), at most `limit`, and the place where to go on."""

    async def cancel(
        self,
        run: RunId,
        *,
        actor: str | None,
        reason: str | None,
        now: datetime,
        waiting_only: bool = False,
        entry: Entry | None = None,
    ) -> Cancelling | None:
        """Cancel a waiting run, or leave a wish with the worker of a running one.

        `waiting_only`: leave that alone, and give up what waits, as `given_up` has it. None: no such run.
        """

    async def wishes(self, worker: str, heed: Heed | None = None) -> Sequence[Wish]:
        """Wishes for runs of this worker, taken out of the store."""

    async def run(self, run: RunId) -> Run | None:
        """The run of that id; None: there is none, or it was pruned."""

    async def find(self, query: Query) -> Sequence[Run]:
        """Runs that fit, the newest first by id."""

    async def spans(self, query: Query, *, each: bool = False) -> Sequence[Span]:
        """As `find`, but of thousands: no parameters, no results, no errors are read.

        `each`: `query.limit` of each of its jobs, one after the other, not of all together.
        """

    async def standing(self, jobs: Sequence[str]) -> Mapping[str, tuple[Run, datetime | None, int]]:
        """Of each job that ever ran: its newest run, its last success, and how often it failed since, 100 at most."""

    async def newest(self, jobs: Sequence[str]) -> Mapping[str, Newest]:
        """How each job that ever ran stands, for a look at many: reads no whole run."""

    async def recent(self, jobs: Sequence[Sequence[str]], limit: int) -> Sequence[Sequence[Brief]]:
        """Of each job, known by any of these names, the newest runs, skips not counted, at most `limit`."""

    async def attempts(self, run: Run) -> Sequence[Attempt]:
        """The attempts of a run that have ended, and the one in hand, the oldest first."""

    async def reruns(self, run: RunId) -> Sequence[Run]:
        """Runs that were asked for as a run again of this one, the oldest first, at most 100."""

    async def late(self, ready_before: datetime) -> Sequence[Run]:
        """Waiting runs that have been ready since before then, the oldest first, at most 100; held ones left out."""

    async def clock(self) -> datetime | None:
        """What the clock of its server shows, the one that all have in common; None: a file has none."""

    async def counts(self) -> Mapping[State, int]:
        """How many runs are waiting and running."""

    async def usual(self, jobs: Sequence[str]) -> Mapping[str, Sequence[float]]:
        """Of each job the seconds that its newest successful attempts took, at most 200."""

    async def days(self, jobs: Sequence[str], first: date, last: date) -> Sequence[DayCount]:
        """What was counted of a job, known by any of these names, on the days from `first` to `last`, the oldest first.

        Both are in it; of days on which nothing ended there is nothing. Counts stay when runs are pruned.
        """

    async def evidence(
        self,
        jobs: Sequence[str],
        now: datetime,
        choose: Choose,
        *,
        window: Window | None = None,
        run: RunId | None = None,
    ) -> Evidence:
        """What is known of a job, known by any of these names, around an instant, one run, or what was decided last.

        One consistent look: first the records, then the facts around what `choose` takes from them.
        """

    async def prune(
        self, keep: timedelta | None, *, now: datetime, after: object | None = None, limit: int = 25
    ) -> Pruned:
        """One step of a round over all jobs: delete at most `limit` final runs, with their attempts.

        A run goes `keep` after its end (None: never), or as its job's definition in the store says: by the job's own
        `keep`, or beyond the number of its `keep_runs`. So a program that does not have a job keeps to its word too.
        Stays whatever they say: what waits or runs, the newest run of all, a fire that was due within the last day, and
        the landmarks of a job that a worker had, or that was declared anew, as lately as its runs are kept: see
        `retention.Landmarks`.

        The last step deletes also what is older than `keep` of workers, switches, incidents and former schedules
        and entries of the audit, and the definitions of jobs of which nothing is left: no run, no schedule, and no
        worker that has them or had them within `keep`.
        """

    # -- switches
    async def switch(self, switch: Switch, entry: Entry | None = None) -> None:
        """Begin an interval; an open one of the same job and subject (switch or pause) ends."""

    async def unswitch(
        self,
        job: str | None,
        kinds: Sequence[SwitchKind],
        now: datetime,
        *,
        actor: str | None = None,
        reason: str | None = None,
        missed: str | None = None,
        entry: Entry | None = None,
    ) -> int:
        """End the open intervals of these kinds, of one job, None: those of all jobs together; gives how many ended.

        `missed`: how the end of a pause settles the fires it held; None: by each job's own policy.
        """

    async def switches(self) -> Switches:
        """The open ones, and of the ended pauses the newest of each job, and all that ended after the earliest instant
        that is not decided yet: they may have held fires that are not settled.
        """

    # -- who may come in
    async def add_token(self, token: Token, entry: Entry | None = None) -> None:
        """Keep a new token. Raises `Conflict` where one of its name is valid, or as many as may be are."""

    async def tokens(
        self,
        *,
        live_at: datetime | None = None,
        named: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> Sequence[Token]:
        """Tokens, newest first: of this id, else of this name; those that were valid then; older ones than that id."""

    async def revoke_tokens(
        self,
        which: str,
        now: datetime,
        *,
        actor: str | None = None,
        reason: str | None = None,
        entry: Entry | None = None,
    ) -> Sequence[Token]:
        """Take back the token of this id, else what there is of this name; gives those that this ended."""

    async def use_token(self, token: str, now: datetime) -> None:
        """Note that it was used, unless a use within the minute before is noted."""

    async def session_secret(self, new: bytes) -> bytes:
        """What sessions are signed with: the one secret that is kept, which is `new` where there was none."""

    # -- who changed what
    async def record(self, entries: Sequence[Entry]) -> None:
        """Write entries of changes that no verb of the store made."""

    async def audit(
        self,
        *,
        actor: str | None = None,
        jobs: Sequence[str] | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Entry]:
        """Entries, newest first: by this actor, about these jobs, with ids below `before`."""


def open_store(
    address: Any,
    *,
    synchronous: Literal["full", "normal"] = "full",
    folder: str | None = None,
    statement_cache_size: int = 100,
) -> Store:
    """The store at an address: `sqlite:///app.db`, `sqlite:///:memory:`, `postgresql://…`, a path, or a store itself. Opens
    nothing.

    `folder`: where a relative path begins; None: the current folder, whenever that is asked for.
    `statement_cache_size`: statements that PostgreSQL keeps prepared; 0 behind a transaction pooler. Raises `BadStore` for
    an unknown scheme, one that names no file, or options after a '?'.
    """
    if not isinstance(address, str) and hasattr(address, "settle"):
        store: Store = address
        return store
    text = str(address)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "sqlite", "/" + text
    is_plain = scheme == "sqlite" and rest.startswith("/") and rest != "/" and (not separator or "?" not in rest)
    if isinstance(address, str) and not (is_plain and (separator or ":" not in text)):
        from taskloop.address import bad_url

        if (wrong := bad_url(text)) is not None:
            raise BadStore(f"store {wrong}")
    if scheme in ("postgresql", "postgres"):
        from taskloop.store_postgres import PostgresStore

        return PostgresStore(text, statement_cache_size=statement_cache_size)
    from taskloop.store_sqlite import SqliteStore

    path = rest[1:] if scheme == "sqlite" and rest.startswith("/") else text
    return SqliteStore(path, synchronous=synchronous, folder=folder)
