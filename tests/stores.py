"""Stores for the tests: every kind there is, and short words for what is put into them.

A new store adds its kind to `KINDS`, to `SHARED` if several processes can have it open, and an address to `Stores`.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from servers import emptied

from taskloop.policy import Policy
from taskloop.runs import Outcome, Returned, Run, RunId, State, settle
from taskloop.schedules import Schedule, plan
from taskloop.store import Store, open_store
from taskloop.store_data import Claimed, Fired, Firing, Settling, Terms
from taskloop.triggers import Every

KINDS = ("file", "memory", "postgres")
SHARED = ("file", "postgres")
"""Kinds that several processes can have open at once."""

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """A file as any other program sees it; what was changed there is committed."""
    with closing(sqlite3.connect(path)) as db, db:
        yield db


class Stores:
    """Stores of one kind, all on one address; closed at the end."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "runs.db"
        self.server = emptied() if kind == "postgres" else None
        self.url = "sqlite:///:memory:" if kind == "memory" else f"sqlite:///{self.path}"
        if self.server is not None:
            self.url = self.server.store
        self._made: list[Store] = []

    def new(self) -> Store:
        """A store nobody has opened yet."""
        store = open_store(self.url)
        self._made.append(store)
        return store

    async def make(self, *jobs: str | Terms) -> Store:
        """An open store that knows these jobs. Asked again: as another process would open it."""
        store = self.new()
        await store.open()
        await know(store, *jobs)
        return store

    def rows(self, statement: str) -> list[Any]:
        """What stands in the store, read past it; `{}` in a statement stands for the prefix of our tables."""
        if self.server is not None:
            return self.server.query(statement.replace("{}", "taskloop."), "taskloop_tests")
        with database(self.path) as db:
            return db.execute(statement.replace("{}", "taskloop_")).fetchall()

    def commits(self) -> int:
        """How many transactions the write-ahead log holds (its frames that end one), or the server has numbered."""
        if self.server is not None:
            return int(self.server.query("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")[0][0])
        log = Path(f"{self.path}-wal").read_bytes()
        page, salt = struct.unpack(">I", log[8:12])[0], log[16:24]
        frames = range(32, len(log) - page - 23, page + 24)
        return sum(log[at + 4 : at + 8] != b"\0\0\0\0" and log[at + 8 : at + 16] == salt for at in frames)

    def dump(self) -> bytes:
        """All that is kept of tokens, as it is kept."""
        if self.server is None:
            return b"".join(one.read_bytes() for one in self.path.parent.iterdir())
        rows = [self.server.query(f"SELECT * FROM taskloop.{table}", "taskloop_tests") for table in ("tokens", "meta")]
        return b"\n".join(
            one if isinstance(one, bytes) else str(one).encode() for found in rows for row in found for one in row
        )

    @contextmanager
    def spoiled(self) -> Iterator[None]:
        """While it lasts, what stands at the address is refused: a folder, or the schema of a version to come."""
        if self.server is None:
            self.path.mkdir()
            yield
            self.path.rmdir()
            return
        self.server.execute(
            "CREATE TABLE taskloop.kept AS SELECT * FROM taskloop.meta;\nDELETE FROM taskloop.meta;\n"
            "INSERT INTO taskloop.meta VALUES ('schema', '999')",
            "taskloop_tests",
        )
        yield
        self.server.execute(
            "DELETE FROM taskloop.meta;\nINSERT INTO taskloop.meta SELECT * FROM taskloop.kept;\nDROP TABLE taskloop.kept",
            "taskloop_tests",
        )

    async def __aenter__(self) -> Stores:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for store in self._made:
            await store.close()


@pytest.fixture(params=KINDS)
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Every kind of store, in turn."""
    async with Stores(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def store(stores: Stores) -> Store:
    """An open store of each kind that knows the jobs `a` and `b`."""
    return await stores.make("a", "b")


@pytest.fixture(params=SHARED)
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Every kind that several processes can have open."""
    async with Stores(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def pair(shared: Stores) -> tuple[Store, Store]:
    """One store, open in two processes that both know the jobs `a` and `b`."""
    return await shared.make("a", "b"), await shared.make("a", "b")


async def know(store: Store, *jobs: str | Terms) -> None:
    await store.know([Terms(one) if isinstance(one, str) else one for one in jobs])


def at(seconds: float) -> datetime:
    """So many seconds after `NOW`."""
    return NOW + timedelta(seconds=seconds)


def asked(job: str = "a", **changes: Any) -> Run:
    """A run somebody asked for, not yet in any store."""
    return Run(**({"job": job, "due_at": NOW, "ready_at": NOW, "created_at": NOW} | changes))


async def submitted(store: Store, *runs: Run) -> list[Run]:
    return list(await store.submit(runs or [asked()]))


async def claimed(store: Store, worker: str = "w1", *, now: datetime = NOW, slots: int = 100) -> Claimed:
    return await store.claim(worker, now, slots)


async def started(store: Store, worker: str = "w1", **changes: Any) -> Run:
    """A run of job `a` that `worker` has claimed."""
    [run] = await submitted(store, asked(**changes))
    return next(one for one in (await claimed(store, worker)).started if one.id == run.id)


def ended(run: Run, outcome: Outcome | None = None, *, now: datetime = NOW, repeatable: bool = False) -> Settling:
    """A running run, as its worker settles it."""
    came = outcome if outcome is not None else Returned()
    return Settling(run, settle(run, came, now=now, repeatable=repeatable), came)


async def finished(store: Store, outcome: Outcome | None = None, *, now: datetime = NOW, **changes: Any) -> Run:
    """A run of job `a` that came to `outcome`."""
    settling = ended(await started(store, **changes), outcome, now=now)
    assert await store.settle(settling)
    return settling.after


def hourly(name: str = "s", job: str = "a", **changes: Any) -> Schedule:
    """A schedule that is due now and every hour from then on."""
    facts = {"id": name, "job": job, "trigger": Every("1h"), "next_due": NOW, "anchor": NOW, "seen_at": NOW}
    return Schedule(**(facts | changes))


def as_declared(old: Schedule | None, new: Schedule) -> Schedule:
    return new


async def put(store: Store, *schedules: Schedule) -> None:
    await store.put(schedules, as_declared, NOW)


def firing(
    schedule: Schedule, *, now: datetime = NOW, starts: bool = False, enabled: bool = True, **policy: Any
) -> Firing:
    """What a worker makes of a due schedule."""
    rules = Policy.of(schedule.job, policy)
    decided = plan(schedule, rules, now=now, watched_since=schedule.next_due or now, enabled=enabled)
    return Firing(decided, rules, starts)


async def fired(store: Store, *firings: Firing, worker: str = "w1", now: datetime = NOW) -> Fired:
    return await store.fire(firings, worker, now)


async def stored(store: Store, name: str) -> Schedule:
    """The schedule of that id as it stands in the store."""
    [found] = await store.schedules(ids=[name])
    return found


async def state(store: Store, run: RunId | int) -> State | None:
    found = await store.run(RunId(run))
    return found.state if found else None


def ids(runs: Sequence[Run]) -> list[int]:
    return [run.id for run in runs]
