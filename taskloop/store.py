"""The Store protocol: what the engine asks of a memory, and the plain data that passes between them.

Level 4. A store takes `now`, it never asks a clock. `tests/test_store*.py` is the suite every store must pass.
Start at `Store`; `open_store` turns an address into one. What only passes through is a NamedTuple: making the class of a
dataclass takes a millisecond, and every command line pays it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from taskloop.errors import BadStore
from taskloop.policy import Policy
from taskloop.runs import Outcome, Progress, Run, RunId, State
from taskloop.schedules import Plan, Schedule
from taskloop.switches import Switch, Switches, SwitchKind

__all__ = [
    "Attempt",
    "Cancelling",
    "Claimed",
    "Definition",
    "Due",
    "Fired",
    "Firing",
    "Heed",
    "Merge",
    "Query",
    "Settling",
    "Store",
    "Terms",
    "Wish",
    "Worker",
    "open_store",
]

Merge = Callable[[Schedule | None, Schedule], Schedule]
"""What to store, from what is stored under the id (None: nothing) and what was declared."""
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


class Due(NamedTuple):
    """Schedules that are due, earliest first; where none is, the next instant at which one will be (None: never)."""

    schedules: Sequence[Schedule]
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class Firing:
    """A plan to carry out, and whether the worker has a free slot for its newest run."""

    plan: Plan
    policy: Policy
    starts: bool = False


class Fired(NamedTuple):
    """What became of firings in the store."""

    started: Sequence[Run] = ()
    """Claimed by this worker in the same transaction: to be started now."""
    waiting: int = 0
    """Runs written that wait for a slot, a place or the end of another."""
    skipped: Sequence[Run] = ()
    cancelled: Sequence[Run] = ()
    """Waiting runs that gave way to a newer one."""
    replaced: Sequence[RunId] = ()
    """Running runs that are to be cancelled for a newer one; wishes for them are written."""
    lost: int = 0
    """Firings that another process had done first."""

    @property
    def ended(self) -> Sequence[Run]:
        """Runs that are final now."""
        return (*self.skipped, *self.cancelled)

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


class Cancelling(NamedTuple):
    """What a cancel did: the run as it now stands, and whether a wish was left with the worker that has it."""

    run: Run
    wished: bool = False


class Query(NamedTuple):
    """Which runs to find, newest first. None: no such condition; skips are left out unless `state` names them."""

    jobs: Sequence[str] | None = None
    states: Sequence[State] | None = None
    cause: str | None = None
    schedule: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    limit: int = 100
    skipped: bool = False


class Store(Protocol):
    """What remembers schedules, runs, switches and workers.

    Every verb that writes returns after its commit, raises `StoreUnavailable` when it cannot write, and is not undone
    by cancelling the caller.
    """

    url: str
    private: bool
    """Whether no other process can reach it, so that nobody needs to be heeded."""
    in_flight: int
    """Calls that wait for a thread or a connection."""

    async def open(self, *, create: bool = True) -> None:
        """Make ready, migrating an older schema. Raises `BadStore` (foreign, newer, corrupt), `StoreUnavailable`."""

    async def close(self) -> None:
        """Write what is queued and let go. Safe to call twice, or unopened."""

    # -- workers
    async def enlist(self, worker: Worker) -> Sequence[Worker]:
        """Record this worker; gives the others not known to have stopped."""

    async def beat(self, worker: str, now: datetime) -> None: ...

    async def leave(self, worker: str, now: datetime) -> None: ...

    async def workers(self) -> Sequence[Worker]:
        """Those not known to have stopped, and the newest of the others."""

    async def orphans(self, dead: Iterable[str]) -> Sequence[Run]:
        """The running runs of these workers."""

    async def changed(self) -> bool:
        """Whether another process has written since the last call."""

    # -- jobs and schedules
    async def know(self, terms: Iterable[Terms]) -> None:
        """From now on hand out fires and runs of exactly these jobs."""

    async def define(self, definitions: Iterable[Definition]) -> None: ...

    async def definitions(self) -> Sequence[Definition]: ...

    async def rename(self, names: Mapping[str, str]) -> None:
        """Give waiting runs, stored schedules and switches in force of old job names to the new ones (old: new)."""

    async def put(self, schedules: Sequence[Schedule], merge: Merge) -> Sequence[Schedule]:
        """Store each as `merge` has it, all in one transaction; gives what is stored now."""

    async def drop(self, ids: Sequence[str]) -> int:
        """Remove schedules; their runs stay. Gives how many there were."""

    async def schedules(
        self,
        *,
        job: str | None = None,
        ids: Sequence[str] | None = None,
        prefix: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Schedule]: ...

    async def coming(self, limit: int) -> Sequence[Schedule]:
        """The schedules that fire next, earliest first."""

    async def next_dues(self, jobs: Sequence[str]) -> Mapping[str, datetime]:
        """When each job fires next by any of its schedules."""

    async def due(self, now: datetime, limit: int) -> Due: ...

    async def fire(self, firings: Sequence[Firing], worker: str, now: datetime, heed: Heed | None = None) -> Fired:
        """Move the cursors and write the runs and skips, in one transaction. Fires nothing twice."""

    # -- runs
    async def submit(self, runs: Sequence[Run], heed: Heed | None = None) -> Sequence[Run]:
        """Write runs, each WAITING, or RUNNING where its worker has a slot for it; gives them with ids.

        A run whose key is taken comes back as the earlier one, with `existed`; with other parameters `KeyConflict`.
        """

    async def claim(self, worker: str, now: datetime, slots: int, heed: Heed | None = None) -> Claimed: ...

    async def settle(self, settling: Settling) -> bool:
        """Write how an attempt ended. False: the run was taken from this worker meanwhile; nothing is changed."""

    async def progress(self, reports: Sequence[tuple[Run, Progress]]) -> None: ...

    async def cancel(self, run: RunId, *, actor: str | None, reason: str | None, now: datetime) -> Cancelling | None:
        """Cancel a waiting run, or leave a wish with the worker of a running one. None: no such run."""

    async def wishes(self, worker: str) -> Sequence[Wish]:
        """Wishes for runs of this worker, taken out of the store."""

    async def run(self, run: RunId) -> Run | None: ...

    async def find(self, query: Query) -> Sequence[Run]: ...

    async def standing(self, jobs: Sequence[str]) -> Mapping[str, tuple[Run, datetime | None, int]]:
        """Of each job that ever ran: its newest run, its last success, and how often it failed since, 100 at most."""

    async def attempts(self, run: Run) -> Sequence[Attempt]: ...

    async def counts(self) -> Mapping[State, int]:
        """How many runs are waiting and running."""

    async def prune(self, *, ended_before: datetime, limit: int = 1000) -> int:
        """Delete at most `limit` final runs that ended before; gives how many. The newest run always stays."""

    # -- switches
    async def switch(self, switch: Switch) -> None:
        """Begin an interval; an open one of the same job and subject (switch or pause) ends."""

    async def unswitch(
        self,
        job: str | None,
        kinds: Sequence[SwitchKind],
        now: datetime,
        *,
        actor: str | None = None,
        missed: str | None = None,
    ) -> int: ...

    async def switches(self) -> Switches:
        """The open ones, and of the ended pauses the newest of each job."""


def open_store(address: Any, *, synchronous: Literal["full", "normal"] = "full") -> Store:
    """The store at an address: `sqlite:///app.db`, `sqlite:///:memory:`, a path, or a store itself. Opens nothing.

    Raises `BadStore` for an unknown scheme.
    """
    if not isinstance(address, str) and hasattr(address, "settle"):
        store: Store = address
        return store
    text = str(address)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "sqlite", "/" + text
    if scheme == "sqlite" and rest.startswith("/"):
        from taskloop.store_sqlite import SqliteStore

        return SqliteStore(rest[1:] or ":memory:", synchronous=synchronous)
    raise BadStore(
        f"store '{text}': scheme '{scheme}' is unknown; write sqlite:///file.db, sqlite:////absolute/file.db or "
        "sqlite:///:memory:"
    )
