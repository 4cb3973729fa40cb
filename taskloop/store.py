"""The Store protocol: what the engine asks of a memory. The plain data that passes between them is in `store_data`.

Level 4. A store takes `now`, it never asks a clock. `tests/test_store*.py` is the suite every store must pass.
Start at `Store`; `open_store` turns an address into one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal, Protocol

from taskloop.audit import Entry
from taskloop.errors import BadStore
from taskloop.runs import Progress, Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.steps import LogLine, Step
from taskloop.store_data import (
    Attempt,
    Brief,
    Cancelling,
    Claimed,
    DayCount,
    Definition,
    Due,
    Evidence,
    Fired,
    Firing,
    Incident,
    Newest,
    Pruned,
    Query,
    Renamed,
    Settling,
    Span,
    Subject,
    Terms,
    Window,
    Wish,
    Worker,
)
from taskloop.switches import Switch, Switches, SwitchKind
from taskloop.tokens import Token

__all__ = ["Beater", "Choose", "Heed", "Merge", "Rewind", "Store", "open_store"]

Merge = Callable[[Schedule | None, Schedule], Schedule]
"""What to store, from what is stored under the id (None: nothing) and what was declared."""
Rewind = Callable[[Schedule, Sequence[tuple[datetime, datetime]]], Schedule]
"""Where a schedule stands after the clock was set back, given the spans of later instants that are decided already."""
Heed = Callable[[Any], None]
"""Called on the loop with the answer or the error of a write, also when who asked for it is gone: what a store has
handed out is never forgotten."""
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

    def meanwhile(self, call: Callable[[], object]) -> None:
        """Have the loop call what has time: while it would else wait for the store, as a rule for what is asked of it next
        in this turn, and then before that is answered.
        """

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

        What waits is hastened by as much, an open breaker too; `back` None: nobody knows how much, and what was written
        later than `now` waits no longer, a breaker for its time from now. A run that was asked for at an instant keeps it.

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

        The call itself raises nothing: what goes wrong is raised where its answer is awaited, or told with it.
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

    async def late(self, ready_before: datetime, each: int, most: int | None = None) -> Sequence[Run]:
        """Waiting runs that have been ready since before then, the oldest first, at most `each` of a job; held ones left
        out. `most` in all: the oldest of each job come before the second of any.
        """

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

        The last step deletes also what is older than `keep` of workers, switches, incidents, former schedules and
        entries of the audit, and the definitions of jobs of which nothing is left: no run, no schedule, and no
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
    an unknown scheme, one that names no file, options after a '?', or what is no address at all.
    """
    if not isinstance(address, str) and hasattr(address, "settle"):
        store: Store = address
        return store
    if not isinstance(address, str | os.PathLike):  # its repr would be the name of a new file
        raise BadStore(
            f"store is {address!r:.200}; an address such as 'sqlite:///app.db', a path or a Store is allowed"
        )
    text = os.fspath(address)
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
