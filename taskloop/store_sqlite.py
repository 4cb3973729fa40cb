"""The SQLite store: one writing connection with group commit, one for reading, each on a thread of aiosqlite's.

A verb that writes puts its work into one queue and waits. The writer task takes what has gathered, carries it out as
one immediate transaction on the writing thread, and answers the callers after COMMIT; while it commits, the next
batch gathers. So a hundred callers cost one flush, and a caller's cancellation never reaches a transaction. If a
batch fails, its parts are tried singly, so that one bad row harms nobody.

What the transactions do stands in `statements_sqlite`. Start at `SqliteStore.open` and `_write`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import aiosqlite

from taskloop import statements_sqlite as statements
from taskloop.clock import from_microseconds, microseconds
from taskloop.errors import BadStore, StoreUnavailable, TaskloopError, Unstorable
from taskloop.rows_sqlite import RUN_COLUMNS, SCHEDULE_COLUMNS, instant, moment, read_run, read_schedule, write_failure
from taskloop.runs import Progress, Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.store import (
    Attempt,
    Cancelling,
    Claimed,
    Definition,
    Due,
    Fired,
    Firing,
    Heed,
    Merge,
    Query,
    Settling,
    Terms,
    Wish,
    Worker,
)
from taskloop.switches import Switch, Switches, SwitchKind

__all__ = ["SqliteStore"]

BUSY_SECONDS: Final = 5.0
"""How long a statement waits for another process's transaction."""
CLOSE_SECONDS: Final = 10.0
_HOPELESS: Final = ("database or disk is full", "database is locked", "readonly", "disk I/O", "unable to open")
"""Errors that no part of a batch would escape by being tried alone."""


class SqliteStore:
    """Runs, schedules and switches in one file; `:memory:` keeps them as long as the store is open."""

    def __init__(self, path: str | Path, *, synchronous: Literal["full", "normal"] = "full") -> None:
        self.path = str(path)
        self.url = f"sqlite:///{self.path}"
        self.synchronous = synchronous
        self.private = self.path == ":memory:"
        self.in_flight = 0
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._queue: list[tuple[str, Any, asyncio.Future[Any], Heed | None]] = []
        self._gathered: asyncio.Event | None = None
        self._writing: asyncio.Task[None] | None = None
        self._opening: asyncio.Future[None] | None = None
        self._openers = 0
        self._terms: dict[str, Terms] = {}
        self._seen_version: int | None = None

    # -- opening and closing

    async def open(self, *, create: bool = True) -> None:
        if self._writer is not None:
            return
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open(create))
        opening = self._opening
        self.in_flight += 1
        self._openers += 1
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:  # a half-open connection would keep a thread and a file: finish, then undo
            if self._openers == 1:
                await asyncio.wait({opening})
                if opening.exception() is None:
                    await self.close()
            raise
        finally:
            self._openers -= 1
            self.in_flight -= 1
            if opening.done():
                self._opening = None

    async def _open(self, create: bool) -> None:
        writer = await self._connect(create)
        reader = writer
        try:
            await self._run(writer, prepare, self.synchronous, self.private, self.path)
            if not self.private:
                reader = await self._connect(create=False)
                await self._run(reader, _reading)
        except BaseException as error:
            for connection in {writer, reader}:
                await connection.close()
            raise self._explained(error) from error
        self._writer, self._reader, self._seen_version = writer, reader, None
        self._gathered = asyncio.Event()
        self._writing = asyncio.create_task(self._write_gathered(), name="taskloop store writer")

    async def _connect(self, create: bool) -> aiosqlite.Connection:
        connection = aiosqlite.Connection(partial(connect, self.path, create), iter_chunk_size=64)
        # Otherwise a host that forgets stop() hangs at exit in a join of this thread; SQLite survives its end.
        connection._thread.daemon = True
        try:
            return await connection
        except Exception as error:
            # aiosqlite has told its thread to end; it must have, before a host may close its loop.
            await asyncio.to_thread(connection._thread.join, CLOSE_SECONDS)
            raise self._explained(error) from error

    async def close(self) -> None:
        writer, reader, writing = self._writer, self._reader, self._writing
        if writer is None or writing is None:
            return
        self._writer = self._reader = self._writing = None
        if self._gathered is not None:
            self._gathered.set()
        self.in_flight += 1
        try:
            if writing.get_loop() is asyncio.get_running_loop():  # else the loop that had it is gone, and it with it
                await asyncio.wait({writing}, timeout=CLOSE_SECONDS)
                writing.cancel()
        finally:
            self.in_flight -= 1
            for connection in (writer, reader if reader is not writer else None):
                if connection is not None:
                    self.in_flight += 1
                    await _let_go(connection)
                    self.in_flight -= 1

    # -- the writer

    async def _write(self, verb: str, work: Any, heed: Heed | None = None) -> Any:
        """Put work before the writer and wait until it is committed; `heed` hears of it in any case."""
        if self._writer is None or self._gathered is None:
            raise StoreUnavailable(f"store {self.url} is not open; start the scheduler, or open the store first")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((verb, work, answer, heed))
        self._gathered.set()
        self.in_flight += 1
        try:
            if self._writing is not None and self._writing.done():
                await self._write_batch(self._writer)
            return await answer
        finally:
            self.in_flight -= 1

    async def _do(self, function: Callable[..., Any], *args: Any, heed: Heed | None = None) -> Any:
        return await self._write("do", partial(function, *args), heed)

    async def _write_gathered(self) -> None:
        """The writer task: one batch after the other, until the store is closed and the queue is empty.

        A host that ends its loop cancels this task too. What is in hand is then still written and answered, and whoever
        writes afterwards, as the end of an attempt does, writes for itself.
        """
        writer, gathered = self._writer, self._gathered
        assert writer is not None and gathered is not None
        try:
            while self._writer is writer or self._queue:
                await gathered.wait()
                gathered.clear()
                await self._write_batch(writer)
        except asyncio.CancelledError:
            await self._write_batch(writer)
            raise

    async def _write_batch(self, writer: aiosqlite.Connection) -> None:
        batch, self._queue = self._queue, []
        if not batch:
            return
        hop = self._hop(writer, transact, [(verb, given) for verb, given, _, _ in batch])
        try:
            await asyncio.shield(hop)
        except asyncio.CancelledError:
            await asyncio.wait({hop})
            raise
        except Exception:  # each caller is told below
            hop.exception()
        finally:
            if hop.done() and not hop.cancelled():
                failed = hop.exception()
                self._answer(batch, [failed] * len(batch) if failed is not None else hop.result())

    def _answer(self, batch: Sequence[Any], answers: Sequence[Any]) -> None:
        for (_, _, future, heed), given in zip(batch, answers, strict=True):
            failed = isinstance(given, Exception)
            answer = self._explained(given) if failed else given
            if heed is not None:
                self._tell(heed, answer)
            if not future.done():
                future.set_exception(answer) if failed else future.set_result(answer)

    def _tell(self, heed: Heed, answer: Any) -> None:
        try:
            heed(answer)
        except Exception as error:  # the next batch must not depend on who hears of this one
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "taskloop: a store's answer was not taken", "exception": error})

    async def _run(self, connection: aiosqlite.Connection, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(sqlite3 connection, …)` on the connection's thread and wait for it."""
        return await self._hop(connection, function, *args)

    def _hop(self, connection: aiosqlite.Connection, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Begin a call of `function(sqlite3 connection, …)` on the connection's thread.

        aiosqlite offers a hop for each statement, within the task that asks. This is one for a whole transaction, and
        a future that no task owns: the end of the task does not lose its answer. Hence its own queue, `_tx`.
        """
        if not connection._running:
            raise StoreUnavailable(f"store {self.url} is closed")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.in_flight += 1
        answer.add_done_callback(self._landed)
        connection._tx.put_nowait((answer, partial(function, connection._conn, *args)))
        return answer

    def _landed(self, _: asyncio.Future[Any]) -> None:
        self.in_flight -= 1

    async def _read(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._reader is None:
            raise StoreUnavailable(f"store {self.url} is not open; start the scheduler, or open the store first")
        try:
            return await self._run(self._reader, function, *args)
        except (sqlite3.Error, ValueError) as error:
            raise self._explained(error) from error

    def _explained(self, error: BaseException) -> BaseException:
        """A SQLite error in the words of a user, with the mend; any other as it is."""
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
        ):
            return BadStore(
                f"store {self.url} cannot be read: {error}; it was left as it is, restore a backup or name another file"
            )
        if isinstance(error, FileNotFoundError) and len(error.args) == 1:
            return StoreUnavailable(f"store {self.url} does not exist; `taskloop run` or start() makes one")
        if isinstance(error, sqlite3.Error | OSError) and not isinstance(error, StoreUnavailable):
            folder = Path(self.path).absolute().parent
            mend = (
                "check that the folder exists and can be written" if not folder.is_dir() else "see `taskloop db check`"
            )
            return StoreUnavailable(f"store {self.url}: {error}; {mend}")
        if isinstance(error, OverflowError | ValueError | TypeError) and not isinstance(error, TaskloopError):
            return Unstorable(str(error))
        return error

    # -- workers

    async def enlist(self, worker: Worker) -> Sequence[Worker]:
        others: Sequence[Worker] = await self._do(_enlist, worker)
        return others

    async def beat(self, worker: str, now: datetime) -> None:
        await self._do(
            _change,
            "UPDATE taskloop_workers SET beat_at = ?, stopped_at = NULL WHERE id = ?",
            (microseconds(now), worker),
        )

    async def leave(self, worker: str, now: datetime) -> None:
        await self._do(_change, "UPDATE taskloop_workers SET stopped_at = ? WHERE id = ?", (microseconds(now), worker))

    async def workers(self) -> Sequence[Worker]:
        found: Sequence[Worker] = await self._read(_workers, "ORDER BY stopped_at IS NOT NULL, beat_at DESC LIMIT 100")
        return found

    async def orphans(self, dead: Iterable[str]) -> Sequence[Run]:
        rest = "WHERE state = 'running' AND worker IN (SELECT value FROM json_each(?)) ORDER BY id"
        return await self._runs(rest, (json.dumps(list(dead)),))

    async def changed(self) -> bool:
        if self._writer is None:
            return False
        version = await self._run(self._writer, _one, "PRAGMA data_version")
        before, self._seen_version = self._seen_version, version
        return bool(before != version)

    # -- jobs and schedules

    async def know(self, terms: Iterable[Terms]) -> None:
        self._terms = {one.job: one for one in terms}
        await self._do(_know, list(self._terms.values()))

    async def define(self, definitions: Iterable[Definition]) -> None:
        rows = [(one.name, json.dumps(one.facts), one.origin, microseconds(one.seen_at)) for one in definitions]
        await self._do(_define, rows)

    async def definitions(self) -> Sequence[Definition]:
        rows = await self._read(_fetch, "SELECT name, definition, origin, seen_at FROM taskloop_jobs ORDER BY name")
        return [Definition(row[0], json.loads(row[1]), row[2], from_microseconds(row[3])) for row in rows]

    async def rename(self, names: Mapping[str, str]) -> None:
        await self._do(_rename, [(new, old) for old, new in names.items()])

    async def put(self, schedules: Sequence[Schedule], merge: Merge) -> Sequence[Schedule]:
        stored: Sequence[Schedule] = await self._do(statements.put_schedules, schedules, merge)
        return stored

    async def drop(self, ids: Sequence[str]) -> int:
        dropped: int = await self._do(_drop, list(ids))
        return dropped

    async def schedules(
        self,
        *,
        job: str | None = None,
        ids: Sequence[str] | None = None,
        prefix: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Schedule]:
        wanted: list[tuple[str, Any]] = []
        if job is not None:
            wanted.append(("job = ?", job))
        if ids is not None:
            wanted.append(("id IN (SELECT value FROM json_each(?))", json.dumps(list(ids))))
        if prefix is not None:
            wanted.append(("id >= ?", prefix))
            wanted.append(("id < ?", prefix + "\U0010ffff"))
        if after is not None:
            wanted.append(("id > ?", after))
        where = " AND ".join(text for text, _ in wanted) or "1"
        rows = await self._read(
            _fetch,
            f"SELECT {','.join(SCHEDULE_COLUMNS)} FROM taskloop_schedules WHERE {where} ORDER BY id LIMIT ?",
            (*(value for _, value in wanted), limit),
        )
        return [read_schedule(row) for row in rows]

    async def coming(self, limit: int) -> Sequence[Schedule]:
        rows = await self._read(
            _fetch,
            f"SELECT {','.join(SCHEDULE_COLUMNS)} FROM taskloop_schedules WHERE next_due IS NOT NULL "
            "ORDER BY next_due LIMIT ?",
            (limit,),
        )
        return [read_schedule(row) for row in rows]

    async def next_dues(self, jobs: Sequence[str]) -> Mapping[str, datetime]:
        rows = await self._read(
            _fetch,
            "SELECT job, min(next_due) FROM taskloop_schedules WHERE next_due IS NOT NULL "
            "AND job IN (SELECT value FROM json_each(?)) GROUP BY job",
            (json.dumps(list(jobs)),),
        )
        return {row[0]: from_microseconds(row[1]) for row in rows}

    async def due(self, now: datetime, limit: int) -> Due:
        if self._writer is None:
            raise StoreUnavailable(f"store {self.url} is not open")
        try:
            rows, next_at = await self._run(self._writer, statements.due, now, limit)
        except sqlite3.Error as error:
            raise self._explained(error) from error
        return Due([read_schedule(row) for row in rows], instant(next_at))

    async def fire(self, firings: Sequence[Firing], worker: str, now: datetime, heed: Heed | None = None) -> Fired:
        fired: Fired = await self._do(statements.fire, firings, worker, now, heed=heed)
        return fired

    # -- runs

    async def submit(self, runs: Sequence[Run], heed: Heed | None = None) -> Sequence[Run]:
        written: Sequence[Run] = await self._write("submit", tuple(runs), heed)
        return written

    async def claim(self, worker: str, now: datetime, slots: int, heed: Heed | None = None) -> Claimed:
        claimed: Claimed = await self._do(statements.claim, worker, now, slots, self._terms, heed=heed)
        return claimed

    async def settle(self, settling: Settling) -> bool:
        done: bool = await self._write("settle", settling)
        return done

    async def progress(self, reports: Sequence[tuple[Run, Progress]]) -> None:
        await self._do(statements.progress, reports)

    async def cancel(self, run: RunId, *, actor: str | None, reason: str | None, now: datetime) -> Cancelling | None:
        done: Cancelling | None = await self._do(statements.cancel, run, actor, reason, now)
        return done

    async def wishes(self, worker: str) -> Sequence[Wish]:
        found: Sequence[Wish] = await self._do(_take_wishes, worker)
        return found

    async def run(self, run: RunId) -> Run | None:
        found = await self._runs("WHERE id = ?", (run,))
        return found[0] if found else None

    async def find(self, query: Query) -> Sequence[Run]:
        conditions, values = _conditions(query)
        return await self._runs(f"WHERE {conditions} ORDER BY id DESC LIMIT ?", (*values, query.limit))

    async def standing(self, jobs: Sequence[str]) -> Mapping[str, tuple[Run, datetime | None, int]]:
        rows = await self._read(_standing, list(jobs))
        return {row[1]: (read_run(row), instant(row[-2]), row[-1]) for row in rows}

    async def attempts(self, run: Run) -> Sequence[Attempt]:
        rows = await self._read(
            _fetch,
            "SELECT attempt, started_at, ended_at, outcome, worker, error, token FROM taskloop_attempts "
            "WHERE run = ? ORDER BY token",
            (run.id,),
        )
        ended = [Attempt(row[0], instant(row[1]), instant(row[2]), row[3], row[4], _error(row[5])) for row in rows]
        if run.attempt and run.state is not State.WAITING and run.token not in [row[6] for row in rows]:
            error = _error(write_failure(run.error))
            last = Attempt(run.attempt, run.attempt_started_at, run.ended_at, run.state.value, run.worker, error)
            ended.append(last)
        return ended

    async def counts(self) -> Mapping[State, int]:
        rows = await self._read(
            _fetch,
            "SELECT 'waiting', count(*) FROM taskloop_runs WHERE state = 'waiting' "
            "UNION ALL SELECT 'running', count(*) FROM taskloop_runs WHERE state = 'running'",
        )
        return {State(row[0]): row[1] for row in rows}

    async def prune(self, *, ended_before: datetime, limit: int = 1000) -> int:
        pruned: int = await self._do(_prune, microseconds(ended_before), limit)
        return pruned

    async def _runs(self, rest: str, values: Sequence[Any]) -> list[Run]:
        rows = await self._read(_fetch, f"SELECT {','.join(RUN_COLUMNS)} FROM taskloop_runs {rest}", values)
        return [read_run(row) for row in rows]

    # -- switches

    async def switch(self, switch: Switch) -> None:
        await self._do(_switch, switch)

    async def unswitch(
        self,
        job: str | None,
        kinds: Sequence[SwitchKind],
        now: datetime,
        *,
        actor: str | None = None,
        missed: str | None = None,
    ) -> int:
        ended: int = await self._do(_unswitch, job, kinds, now, actor, missed)
        return ended

    async def switches(self) -> Switches:
        rows = await self._read(
            _fetch,
            "SELECT kind, job, since, actor, reason, until, ended_at, ended_by, missed FROM taskloop_switches "
            "WHERE ended_at IS NULL OR id IN (SELECT max(id) FROM taskloop_switches "
            "WHERE kind = 'paused' AND ended_at IS NOT NULL GROUP BY job) ORDER BY id",
        )
        return Switches(
            Switch(
                row[0],
                row[1],
                from_microseconds(row[2]),
                row[3],
                row[4],
                instant(row[5]),
                instant(row[6]),
                row[7],
                row[8],
            )
            for row in rows
        )

    # -- keeping house

    async def check(self) -> Sequence[str]:
        """What SQLite's own check of the file finds wrong; empty: nothing."""
        rows = await self._read(_fetch, "PRAGMA integrity_check")
        return [row[0] for row in rows if row[0] != "ok"]

    async def backup(self, target: str | Path) -> None:
        """Copy the store to a new file while it is in use. Raises `BadStore` if the file exists."""
        await self._read(_backup, str(target))


async def _let_go(connection: aiosqlite.Connection) -> None:
    try:
        await asyncio.shield(asyncio.wait_for(connection.close(), CLOSE_SECONDS))
    except (TimeoutError, sqlite3.Error, ValueError):
        connection.stop()


# -- on the writing thread


def connect(path: str, create: bool) -> sqlite3.Connection:
    """A connection of this thread to a file that may be touched."""
    address = "file::memory:"
    if path != ":memory:":
        inspect(path, create)
        address = f"{Path(path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=512)


def inspect(path: str, create: bool) -> None:
    """Refuse what SQLite would not, or not at once: a folder, no file where one must be, a file that cannot be written.

    By looking at it only. To open and close the file would take away every lock this process has on it, and another
    process that comes and goes would then delete the log beneath our connections.
    """
    file = Path(path)
    if file.is_dir():
        raise BadStore(f"store {path} is a folder; name a file in it, such as {path.rstrip('/')}/taskloop.db")
    if file.exists():
        if not os.access(file, os.W_OK):
            raise PermissionError(13, "permission denied: this user may not write the file")
        if 0 < file.stat().st_size < 100:  # shorter than a header: SQLite would take it for an empty database
            raise BadStore(f"store {path} is not an SQLite database; it was left as it is, name another file")
        return
    if not create:
        raise FileNotFoundError(path)
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(2, f"folder {file.absolute().parent} does not exist")


def migrations() -> list[tuple[int, str]]:
    """Every schema change there is, by number: the files of `schema/sqlite`."""
    folder = resources.files("taskloop") / "schema" / "sqlite"
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".sql")), key=lambda one: one.name)
    return [(int(one.name[:3]), one.read_text("utf-8")) for one in files]


def version(db: sqlite3.Connection) -> int:
    """The number of the last schema change in the file; 0: none of ours. Raises `BadStore` for a foreign schema."""
    ours = {
        row[0]
        for row in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'taskloop\\_%' ESCAPE '\\'"
        )
    }
    if not ours:
        return 0
    if "taskloop_meta" not in ours:
        raise BadStore(
            "the file holds tables named taskloop_ that are not ours; it was left as it is, name another file"
        )
    row = db.execute("SELECT value FROM taskloop_meta WHERE key = 'schema'").fetchone()
    if row is None or not str(row[0]).isdecimal():
        raise BadStore("the file names no schema version; it was left as it is, restore a backup or name another file")
    return int(row[0])


def prepare(db: sqlite3.Connection, synchronous: str, memory: bool, path: str = "") -> None:
    """Bring a fresh writing connection and the file's schema into order; touches nothing it refuses."""
    newest = migrations()[-1][0]
    found = version(db)
    if found > newest:
        raise BadStore(
            f"store {path} has schema {found}, this taskloop knows up to {newest}; it was left as it is, "
            "install the newer taskloop that wrote it"
        )
    if not memory:
        _write_ahead(db)
    db.execute(f"PRAGMA synchronous = {'FULL' if synchronous == 'full' else 'NORMAL'}")
    db.execute("PRAGMA temp_store = MEMORY")
    if found < newest:
        _migrate(db, newest)
    _know(db, [])


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. SQLite does not wait for the lock this needs: processes that start at once do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _migrate(db: sqlite3.Connection, newest: int) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        found = version(db)  # asked again: another process may have migrated while this one waited for the lock
        for number, script in migrations():
            if number > found:
                for statement in _split(script):
                    db.execute(statement)
        if found < newest:
            db.execute("INSERT OR REPLACE INTO taskloop_meta (key, value) VALUES ('schema', ?)", (str(newest),))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _split(script: str) -> list[str]:
    """The statements of a script, one by one: executescript() would commit before the first."""
    statements_found, text = [], ""
    for line in script.splitlines():
        text += line.partition("--")[0] + "\n"
        if sqlite3.complete_statement(text):
            statements_found.append(text)
            text = ""
    return statements_found


def _reading(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA query_only = ON")


def transact(db: sqlite3.Connection, batch: Sequence[tuple[str, Any]]) -> list[Any]:
    """Carry out a batch as one transaction; gives an answer or an error for each part, in order."""
    try:
        return _transact(db, batch)
    except Exception as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if len(batch) == 1 or any(text in str(error) for text in _HOPELESS):
            return [error] * len(batch)
    return [transact(db, [part])[0] for part in batch]


_TOGETHER: Final = (("settle", statements.settle), ("submit", statements.submit))
"""Verbs whose calls are carried out as one list, in this order, before the others of a batch: ends free places."""


def _transact(db: sqlite3.Connection, batch: Sequence[tuple[str, Any]]) -> list[Any]:
    answers: list[Any] = [None] * len(batch)
    db.execute("BEGIN IMMEDIATE")
    for together, function in _TOGETHER:
        places = [place for place, (verb, _) in enumerate(batch) if verb == together]
        if places:
            for place, answer in zip(places, function(db, [batch[one][1] for one in places]), strict=True):
                answers[place] = answer
    for place, (verb, work) in enumerate(batch):
        if verb == "do":
            answers[place] = work.func(db, *work.args)
    db.execute("COMMIT")
    return answers


def _fetch(db: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    return db.execute(statement, values).fetchall()


def _one(db: sqlite3.Connection, statement: str) -> Any:
    return db.execute(statement).fetchone()[0]


def _change(db: sqlite3.Connection, statement: str, values: Sequence[Any]) -> int:
    return db.execute(statement, values).rowcount


def _enlist(db: sqlite3.Connection, worker: Worker) -> list[Worker]:
    others = _workers(db, "WHERE stopped_at IS NULL ORDER BY started_at LIMIT 10000")
    db.execute(
        "INSERT INTO taskloop_workers (id, name, host, pid, process, started_at, beat_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            worker.id,
            worker.name,
            worker.host,
            worker.pid,
            worker.process,
            microseconds(worker.started_at),
            microseconds(worker.beat_at),
        ),
    )
    return others


def _workers(db: sqlite3.Connection, rest: str) -> list[Worker]:
    rows = db.execute(
        f"SELECT id, name, host, pid, process, started_at, beat_at, stopped_at FROM taskloop_workers {rest}"
    ).fetchall()
    return [
        Worker(
            id=row[0],
            name=row[1],
            host=row[2],
            pid=row[3],
            process=row[4],
            started_at=from_microseconds(row[5]),
            beat_at=from_microseconds(row[6]),
            stopped_at=instant(row[7]),
        )
        for row in rows
    ]


def _know(db: sqlite3.Connection, terms: Sequence[Terms]) -> None:
    db.execute(
        "CREATE TEMP TABLE IF NOT EXISTS taskloop_known (job TEXT PRIMARY KEY, held INTEGER, gated INTEGER) WITHOUT ROWID"
    )
    db.execute("DELETE FROM temp.taskloop_known")
    db.executemany(
        "INSERT INTO temp.taskloop_known VALUES (?, ?, ?)", [(one.job, one.held, one.gated) for one in terms]
    )


def _define(db: sqlite3.Connection, rows: Sequence[Any]) -> None:
    db.executemany(
        "INSERT INTO taskloop_jobs (name, definition, origin, seen_at) VALUES (?, ?, ?, ?) ON CONFLICT (name) "
        "DO UPDATE SET definition = excluded.definition, origin = excluded.origin, seen_at = excluded.seen_at "
        "WHERE definition <> excluded.definition",
        rows,
    )


def _rename(db: sqlite3.Connection, pairs: Sequence[tuple[str, str]]) -> None:
    db.executemany("UPDATE taskloop_runs SET job = ? WHERE job = ? AND state = 'waiting'", pairs)
    db.executemany("UPDATE taskloop_schedules SET job = ? WHERE job = ? AND origin = 'stored'", pairs)
    db.executemany("UPDATE taskloop_switches SET job = ? WHERE job = ? AND ended_at IS NULL", pairs)


def _drop(db: sqlite3.Connection, ids: Sequence[str]) -> int:
    return db.execute(
        "DELETE FROM taskloop_schedules WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
    ).rowcount


def _take_wishes(db: sqlite3.Connection, worker: str) -> list[Wish]:
    rows = db.execute(
        "SELECT w.id, w.run, w.actor, w.reason FROM taskloop_wishes w LEFT JOIN taskloop_runs r ON r.id = w.run "
        "WHERE r.worker = ? OR r.id IS NULL OR r.state <> 'running' LIMIT 1000",
        (worker,),
    ).fetchall()
    db.executemany("DELETE FROM taskloop_wishes WHERE id = ?", [(row[0],) for row in rows])
    return [Wish(RunId(row[1]), row[2], row[3]) for row in rows]


def _conditions(query: Query) -> tuple[str, list[Any]]:
    wanted: list[tuple[str, Any]] = []
    if query.jobs is not None:
        names = list(query.jobs)
        wanted.append(
            ("job = ?", names[0]) if len(names) == 1 else ("job IN (SELECT value FROM json_each(?))", json.dumps(names))
        )
    if query.states is not None:
        inside = ",".join(f"'{State(one).value}'" for one in query.states)
        wanted.append((f"state IN ({inside}) AND ?", 1))
    elif not query.skipped:
        wanted.append(("state <> 'skipped' AND ?", 1))
    for text, value in (
        ("cause = ?", query.cause),
        ("schedule = ?", query.schedule),
        ("created_at >= ?", moment(query.since)),
        ("created_at < ?", moment(query.until)),
        ("id < ?", query.before),
    ):
        if value is not None:
            wanted.append((text, value))
    return " AND ".join(text for text, _ in wanted) or "1", [value for _, value in wanted]


def _standing(db: sqlite3.Connection, jobs: Sequence[str]) -> list[Any]:
    names = ",".join(f"r.{name}" for name in RUN_COLUMNS)
    return db.execute(
        f"SELECT {names}, (SELECT ended_at FROM taskloop_runs WHERE job = j.value AND state = 'succeeded' "
        "ORDER BY id DESC LIMIT 1), (SELECT count(*) FROM "
        "(SELECT id FROM taskloop_runs WHERE job = j.value AND state IN ('failed', 'interrupted') AND id > coalesce("
        "(SELECT max(id) FROM taskloop_runs WHERE job = j.value AND state = 'succeeded'), 0) LIMIT 100)) "
        "FROM json_each(?) j JOIN taskloop_runs r ON r.id = (SELECT id FROM taskloop_runs "
        "WHERE job = j.value AND state <> 'skipped' ORDER BY id DESC LIMIT 1)",
        (json.dumps(jobs),),
    ).fetchall()


def _prune(db: sqlite3.Connection, ended_before: int, limit: int) -> int:
    rows = db.execute(
        "SELECT id FROM taskloop_runs WHERE id < (SELECT max(id) FROM taskloop_runs) AND ended_at < ? "
        "AND state NOT IN ('waiting', 'running') ORDER BY id LIMIT ?",
        (ended_before, limit),
    ).fetchall()
    ids = json.dumps([row[0] for row in rows])
    db.execute(
        "DELETE FROM taskloop_workers WHERE stopped_at < ? AND id NOT IN "
        "(SELECT worker FROM taskloop_runs WHERE state = 'running' AND worker IS NOT NULL)",
        (ended_before,),
    )
    db.execute("DELETE FROM taskloop_attempts WHERE run IN (SELECT value FROM json_each(?))", (ids,))
    db.execute("DELETE FROM taskloop_runs WHERE id IN (SELECT value FROM json_each(?))", (ids,))
    return len(rows)


def _switch(db: sqlite3.Connection, switch: Switch) -> None:
    kinds = ("paused",) if switch.kind == "paused" else ("enabled", "disabled")
    since = microseconds(switch.since)
    if switch.kind == "paused":  # a pause laid over one in force goes on from its beginning: it holds its fires too
        (earlier,) = db.execute(
            "SELECT min(since) FROM taskloop_switches WHERE kind = 'paused' AND job IS ? AND ended_at IS NULL "
            "AND coalesce(until, ?) >= ?",
            (switch.job, since, since),
        ).fetchone()
        since = since if earlier is None else earlier
    _unswitch(db, switch.job, kinds, switch.since, switch.actor, None)
    db.execute(
        "INSERT INTO taskloop_switches (job, kind, actor, reason, since, until) VALUES (?, ?, ?, ?, ?, ?)",
        (switch.job, switch.kind, switch.actor, switch.reason, since, moment(switch.until)),
    )


def _unswitch(
    db: sqlite3.Connection, job: str | None, kinds: Sequence[str], now: datetime, actor: str | None, missed: str | None
) -> int:
    return db.execute(
        "UPDATE taskloop_switches SET ended_at = min(?, coalesce(until, ?)), ended_by = ?, missed = ? "
        "WHERE job IS ? AND ended_at IS NULL AND kind IN (SELECT value FROM json_each(?))",
        (microseconds(now), microseconds(now), actor, missed, job, json.dumps(list(kinds))),
    ).rowcount


def _error(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    kind, message, traceback, fingerprint = json.loads(text)
    return {"type": kind, "message": message, "traceback": traceback, "fingerprint": fingerprint}


def _backup(db: sqlite3.Connection, target: str) -> None:
    if Path(target).exists():
        raise BadStore(f"backup to {target}: the file exists; name a new one")
    copy = sqlite3.connect(target)
    try:
        db.backup(copy)
    finally:
        copy.close()
