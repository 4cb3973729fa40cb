"""The SQLite store: one writing connection with group commit, one for reading, each on a thread of aiosqlite's.

A verb that writes puts its work into one queue and waits. What has gathered there is carried out as one immediate
transaction on the writing thread, and the callers are answered after COMMIT; while it commits, the next batch gathers.
So a hundred callers cost one flush, and a caller's cancellation never reaches a transaction. If a batch fails, its parts
are tried singly, so that one bad row harms nobody.

`writing_sqlite` does this, `batches_sqlite` carries a batch out, what is done in it stands in `statements_sqlite` and
`claims_sqlite`. Start at `SqliteStore.open` and `_write`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from taskloop import audit_sqlite, steps_sqlite, tokens_sqlite, transfer_sqlite
from taskloop import claims_sqlite as claims
from taskloop import copying_sqlite as copying
from taskloop import history_sqlite as history
from taskloop import keeping_sqlite as keeping
from taskloop import past_sqlite as past
from taskloop import pruning_sqlite as pruning
from taskloop import statements_sqlite as statements
from taskloop.audit import Entry
from taskloop.batches_sqlite import SqliteBeater, submit_within, where_it_stood
from taskloop.clock import from_microseconds, later, microseconds
from taskloop.copying import Batch
from taskloop.errors import StoreUnavailable, TaskloopError, Unstorable
from taskloop.file_sqlite import FilePlace, explained, is_older, prepare
from taskloop.rows import (
    ATTEMPT_COLUMNS,
    RUN_COLUMNS,
    SPAN,
    attempts_of,
    briefs,
    instant,
    moment,
    newest_of,
    read_run,
    read_span,
    told,
)
from taskloop.runs import Progress, Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.steps import LogLine, Step
from taskloop.store import Beater, Choose, Heed, Merge, Rewind, Schema
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
    Terms,
    Window,
    Wish,
    Worker,
)
from taskloop.switches import Switch, Switches, SwitchKind
from taskloop.tasks import MadeOnce, refused
from taskloop.threads_sqlite import CLOSE_SECONDS, Connection, connected, hop, let_go
from taskloop.tokens import Token
from taskloop.writing_sqlite import Writing

__all__ = ["SqliteStore"]

CALL_SECONDS: Final = 30.0
"""How long a caller waits for an answer: a disk that hangs must not hang those who wait for it."""
TOGETHER: Final = 500
"""Schedules of one transaction, where all of them are gone through."""
_RUN: Final = ",".join(RUN_COLUMNS)
_1970: Final = date(1970, 1, 1).toordinal()


class _Opened(NamedTuple):
    writer: Connection
    reader: Connection
    place: FilePlace | None


async def _let_go(opened: _Opened) -> None:
    await let_go({opened.writer, opened.reader}, CLOSE_SECONDS)


class SqliteStore:
    """Runs, schedules and switches in one file; `:memory:` keeps them as long as the store is open."""

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Literal["full", "normal"] = "full",
        call_seconds: float = CALL_SECONDS,
        folder: str | None = None,
    ) -> None:
        self.path: str = str(path) if folder is None or str(path) == ":memory:" else os.path.join(folder, path)  # noqa: PTH118
        self._call_seconds = call_seconds
        self.url: str = f"sqlite:///{path}"
        self.synchronous = synchronous
        self.private: bool = self.path == ":memory:"
        self.remote: bool = False
        self._calls = 0
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._writing: Writing | None = None
        self._opening: MadeOnce[_Opened] = MadeOnce(self._move_in, _let_go, stops=False)
        self._terms: dict[str, Terms] = {}
        self._seen_version: int | None = None
        self._version_read: int | None = None
        """The version of the file when schedules were last read ahead."""
        self.upgraded_from: int | None = None
        self._place: FilePlace | None = None
        self._deleted = 0
        """Runs that pruning has deleted since it last moved the log into the file."""

    # -- opening and closing

    async def open(self, *, create: bool = True, schema: Schema = "upgrade") -> None:
        if self._writer is not None:
            return
        self._calls += 1
        try:
            await self._opening.make(partial(self._open, create, schema))
        finally:
            self._calls -= 1

    async def _open(self, create: bool, schema: Schema) -> _Opened:
        writer = await self._connect(create)
        reader, place = writer, None
        try:
            order = partial(prepare, create=create or self.private, schema=schema)
            older = await self._run(writer, is_older, self.path)
            work = self._hop if older else self._run  # to bring a large store up to date takes its time
            self.upgraded_from = await work(writer, order, self.synchronous, self.private, self.path)
            await self._run(writer, keeping.know, [])
            if not self.private:
                place = await self._run(writer, _place, self.path)
                reader = await self._connect(create=False)
                await self._run(reader, _reading)
        except BaseException as error:
            await let_go({writer, reader}, CLOSE_SECONDS)
            raise self._explained(error) from error
        return _Opened(writer, reader, place)

    def _move_in(self, opened: _Opened) -> None:
        self._writer, self._reader, self._place = opened
        self._seen_version = None
        self._writing = Writing(
            opened.writer, self._place, seconds=self._call_seconds, explained=self._explained, silent=self._silent,
            closed=self._closed
        )  # fmt: skip

    async def _connect(self, create: bool, path: str | None = None) -> Connection:
        try:
            return await connected(path or self.path, create)
        except Exception as error:
            raise self._explained(error) from error

    async def close(self, within: float = CLOSE_SECONDS) -> None:
        writer, reader, writing = self._writer, self._reader, self._writing
        if writer is None or reader is None or writing is None:
            return
        self._writer = self._reader = self._writing = None
        deadline = asyncio.get_running_loop().time() + within
        self._calls += 1
        try:
            try:
                await writing.close(within)
            finally:
                await let_go({writer, reader}, max(0.1, deadline - asyncio.get_running_loop().time()))
        finally:
            self._calls -= 1

    # -- on the threads of the connections

    @property
    def in_flight(self) -> int:
        return self._calls + (0 if self._writing is None else self._writing.in_flight)

    def _write(self, verb: str, work: Any, heed: Heed | None = None) -> Awaitable[Any]:
        """Have work written; gives what to wait for until it is committed. `heed` is told as `Writing.write` says."""
        if self._writing is None:
            if heed is not None:
                heed(self._not_open())
            raise self._not_open()
        return self._writing.write(verb, work, heed)

    def meanwhile(self, call: Callable[[], object]) -> None:
        if self._writing is not None:
            self._writing.meanwhile(call)
        else:
            asyncio.get_running_loop().call_soon(call)

    def _not_open(self) -> StoreUnavailable:
        return StoreUnavailable(f"store {self.url} is not open; start the scheduler, or open the store first")

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"store {self.url} is closed")

    def _silent(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"store {self.url} has not answered for {self._call_seconds:g} s: its disk hangs; see the machine's disk and mounts"
        )

    async def _do(self, function: Callable[..., Any], *args: Any, heed: Heed | None = None) -> Any:
        return await self._write("do", partial(function, *args), heed)

    async def _run(self, connection: Connection, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(sqlite3 connection, …)` on the connection's thread and wait for it, at most `call_seconds`."""
        answer = self._hop(connection, function, *args)
        patience = answer.get_loop().call_later(self._call_seconds, self._give_up, answer)
        try:
            return await answer
        finally:
            patience.cancel()

    def _give_up(self, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            answer.set_exception(self._silent())

    def _hop(self, connection: Connection, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Begin a call of `function(sqlite3 connection, …)` on the connection's thread."""
        answer = hop(connection, function, *args)
        self._calls += 1
        answer.add_done_callback(self._landed)
        return answer

    def _landed(self, _: asyncio.Future[Any]) -> None:
        self._calls -= 1

    async def _read(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._reader is None:
            raise self._not_open()
        try:
            if self._place is not None:
                return await self._run(self._reader, where_it_stood, self._place, function, *args)
            return await self._run(self._reader, function, *args)
        except (sqlite3.Error, ValueError) as error:
            raise self._explained(error) from error

    def _explained(self, error: BaseException) -> BaseException:
        if isinstance(error, OverflowError | ValueError | TypeError) and not isinstance(error, TaskloopError):
            return Unstorable(str(error))
        return explained(error, self.path)

    # -- workers

    async def enlist(self, worker: Worker) -> Sequence[Worker]:
        others: Sequence[Worker] = await self._do(keeping.enlist, worker)
        return others

    async def beat(self, worker: Worker, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        lives: bool = await self._do(keeping.beat, worker, microseconds(now), tick, told(dict(health)))
        return lives

    def beater(self, worker: Worker) -> Beater | None:
        return None if self._place is None else SqliteBeater(self._place, worker)

    async def leave(self, worker: str, now: datetime) -> None:
        await self._do(keeping.leave, worker, microseconds(now))

    async def has_jobs(self, worker: str, jobs: Iterable[str]) -> None:
        await self._do(keeping.has_jobs, worker, list(jobs))

    async def bury(self, worker: Worker) -> bool:
        buried: bool = await self._do(keeping.bury, worker)
        return buried

    async def workers(self, *, living: bool = False) -> Sequence[Worker]:
        rest = (
            "WHERE stopped_at IS NULL ORDER BY beat_at DESC"
            if living
            else "WHERE stopped_at IS NULL OR id IN (SELECT id FROM taskloop_workers WHERE stopped_at IS NOT NULL "
            "ORDER BY stopped_at DESC LIMIT 100) ORDER BY stopped_at IS NOT NULL, beat_at DESC"
        )
        found: Sequence[Worker] = await self._read(keeping.workers, f"{rest} LIMIT {10_000 if living else 100}")
        return found

    async def note(self, incidents: Sequence[Incident], heed: Heed | None = None) -> None:
        await self._do(keeping.note, list(incidents), heed=heed)

    async def incidents(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[Incident]:
        found: Sequence[Incident] = await self._read(keeping.incidents, microseconds(since), microseconds(until), limit)
        return found

    async def in_hand(self, worker: str) -> Mapping[RunId, int]:
        rows = await self._read(
            _fetch, "SELECT id, token FROM taskloop_runs WHERE state = 'running' AND worker = ?", (worker,)
        )
        return {RunId(row[0]): row[1] for row in rows}

    async def orphans(self) -> Sequence[Run]:
        rest = (  # the plus: by the small index of what runs, not by walking all ids
            "WHERE state = 'running' AND NOT EXISTS "
            "(SELECT 1 FROM taskloop_workers w WHERE w.id = worker AND w.stopped_at IS NULL) ORDER BY +id"
        )
        return await self._runs(rest, ())

    async def changed(self) -> bool:
        if self._writer is None:
            return False
        version = await self._run(self._writer, _one, "PRAGMA data_version")
        before, self._seen_version = self._seen_version, version
        return bool(before != version)

    def on_ended(self, heed: Callable[[Sequence[RunId]], None]) -> None: ...

    async def hint(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # -- jobs and schedules

    async def know(self, terms: Iterable[Terms]) -> None:
        self._terms = {one.job: one for one in terms}
        await self._do(keeping.know, list(self._terms.values()))

    async def define(self, definitions: Iterable[Definition]) -> None:
        rows = [(one.name, json.dumps(one.facts), one.origin, microseconds(one.seen_at)) for one in definitions]
        await self._do(keeping.define, rows)

    async def definitions(self, *, without: Collection[str] = ()) -> Sequence[Definition]:
        found: list[Definition] = await self._read(keeping.definitions, without)
        return found

    async def aliases(self) -> Mapping[str, str]:
        found: dict[str, str] = await self._read(keeping.aliases)
        return found

    async def rename(self, names: Mapping[str, str], now: datetime, limit: int) -> Renamed:
        renamed: Renamed = await self._do(keeping.rename, dict(names), microseconds(now), limit)
        return renamed

    async def relabel(self, names: Mapping[str, str], now: datetime) -> None:
        await self._do(keeping.relabel, dict(names), microseconds(now))

    async def put(
        self, schedules: Sequence[Schedule], merge: Merge, now: datetime, entry: Entry | None = None
    ) -> Sequence[Schedule]:
        stored: Sequence[Schedule] = await self._do(audit_sqlite.put, schedules, merge, microseconds(now), entry)
        return stored

    async def drop(self, ids: Sequence[str], now: datetime, entry: Entry | None = None) -> int:
        dropped: int = await self._do(audit_sqlite.drop, list(ids), microseconds(now), entry)
        return dropped

    async def declared_schedules(self) -> Sequence[tuple[str, str]]:
        rows = await self._read(_fetch, "SELECT id, job FROM taskloop_schedules WHERE origin <> 'stored' ORDER BY id")
        return [(row[0], row[1]) for row in rows]

    async def replan(self, decide: Rewind, rules: str) -> int:
        # Of each set of jobs: another program's schedules are moved by that one, which knows their policies.
        key = f"zone_rules {blake2b(json.dumps(sorted(self._terms)).encode(), digest_size=8).hexdigest()}"
        if not await self._do(keeping.rules_changed, rules, key):
            return 0
        moved = await self._move_cursors(decide)
        await self._do(keeping.note_rules, rules, key)
        return moved

    async def rewind(
        self, decide: Rewind, now: datetime, *, back: timedelta | None, boot: str, since: float, tick: float
    ) -> int:
        by = None if back is None else back // timedelta(microseconds=1)
        moved: int = await self._do(keeping.rewind, decide, microseconds(now), by, boot, since, tick)
        return moved

    async def _move_cursors(self, decide: Rewind) -> int:
        total: int = 0
        after: str | None = ""
        while after is not None:
            moved, after = await self._do(keeping.move_cursors, decide, None, after, TOGETHER)
            total += moved
        return total

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
        found: list[Schedule] = await self._read(
            keeping.schedules, f"WHERE {where} ORDER BY id LIMIT ?", (*(value for _, value in wanted), limit)
        )
        return found

    async def coming(self, limit: int, *, jobs: Sequence[str] | None = None) -> Sequence[Schedule]:
        found: list[Schedule] = await self._read(keeping.coming, limit, jobs)
        return found

    async def next_dues(self, jobs: Sequence[str]) -> Mapping[str, datetime]:
        found: dict[str, int] = await self._read(keeping.next_dues, jobs)
        return {job: from_microseconds(due) for job, due in found.items()}

    async def due(self, now: datetime, limit: int, without: Collection[str] = (), ahead_seconds: float = 0.0) -> Due:
        if self._writer is None:
            raise StoreUnavailable(f"store {self.url} is not open")
        try:
            found, next_at, version = await self._run(
                self._writer, statements.due, now, limit, list(without), later(now, timedelta(seconds=ahead_seconds))
            )
        except sqlite3.Error as error:
            raise self._explained(error) from error
        if ahead_seconds:
            self._version_read = version
        return Due(found, instant(next_at))

    async def fire(self, firings: Sequence[Firing], worker: str, now: datetime, heed: Heed | None = None) -> Fired:
        fired: Fired = await self._do(statements.fire, firings, worker, now, self._version_read, heed=heed)
        return fired

    # -- runs

    async def submit(self, runs: Sequence[Run], heed: Heed | None = None, entry: Entry | None = None) -> Sequence[Run]:
        written: Sequence[Run]
        if entry is None:
            written = await self._write("submit", tuple(runs), heed)
        else:
            written = await self._do(audit_sqlite.submit, tuple(runs), entry, heed=heed)
        return written

    async def submit_within(self, connection: Any, runs: Sequence[Run], entry: Entry | None = None) -> Sequence[Run]:
        if self._writer is None:
            raise self._not_open()
        try:
            return await submit_within(connection, self._place, runs, entry)
        except (sqlite3.Error, OverflowError, ValueError) as error:
            raise self._explained(error) from error

    async def claim(self, worker: str, now: datetime, slots: int, heed: Heed | None = None) -> Claimed:
        claimed: Claimed = await self._do(claims.claim, worker, now, slots, self._terms, heed=heed)
        return claimed

    def settle(self, settling: Settling) -> Awaitable[Run | None]:
        if self._writing is None:
            return refused(self._not_open())
        return self._writing.note("settle", settling, awaited=settling.awaited)

    async def progress(self, reports: Sequence[tuple[Run, Progress]]) -> None:
        await self._do(statements.progress, reports)

    async def step(self, run: Run, steps: Sequence[Step]) -> bool:
        done: bool = await self._write("step", (run, steps))
        return done

    async def steps(self, run: RunId) -> Sequence[Step]:
        found: Sequence[Step] = await self._read(steps_sqlite.steps, run)
        return found

    async def log(self, reports: Sequence[tuple[Run, Sequence[LogLine]]]) -> None:
        await self._write("log", reports)

    async def lines(self, run: RunId, after: int = 0, limit: int = 100) -> tuple[Sequence[LogLine], int]:
        found: tuple[Sequence[LogLine], int] = await self._read(steps_sqlite.lines, run, after, limit)
        return found

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
        asked = (run, actor, reason, now, waiting_only, entry)
        done: Cancelling | None = await self._do(audit_sqlite.cancel, *asked)
        return done

    async def wishes(self, worker: str, heed: Heed | None = None) -> Sequence[Wish]:
        found: Sequence[Wish] = await self._do(keeping.take_wishes, worker, heed=heed)
        return found

    async def run(self, run: RunId) -> Run | None:
        found = await self._runs("WHERE id = ?", (run,))
        return found[0] if found else None

    async def find(self, query: Query) -> Sequence[Run]:
        found: list[Run] = await self._read(_found(query, _RUN, read_run))
        return found

    async def spans(self, query: Query, *, each: bool = False) -> Sequence[Span]:
        found: list[Span] = await self._read(_found(query, SPAN, read_span, each=each))
        return found

    async def standing(self, jobs: Sequence[str]) -> Mapping[str, tuple[Run, datetime | None, int]]:
        found: dict[str, tuple[Run, datetime | None, int]] = await self._read(_standing, list(jobs))
        return found

    async def newest(self, jobs: Sequence[str]) -> Mapping[str, Newest]:
        found: dict[str, Newest] = await self._read(lambda db: newest_of(history.newest(db, jobs)))
        return found

    async def recent(self, jobs: Sequence[Sequence[str]], limit: int) -> Sequence[Sequence[Brief]]:
        return [briefs(rows) for rows in await self._read(history.recent, jobs, limit)]

    async def attempts(self, run: Run) -> Sequence[Attempt]:
        rows = await self._read(
            _fetch,
            f"SELECT {','.join(ATTEMPT_COLUMNS)} FROM taskloop_attempts WHERE run = ? ORDER BY token",
            (run.id,),
        )
        return attempts_of(run, rows)

    async def reruns(self, run: RunId) -> Sequence[Run]:
        return await self._runs("WHERE rerun_of = ? AND rerun_of IS NOT NULL ORDER BY id LIMIT 100", (run,))

    async def late(self, ready_before: datetime, each: int, most: int | None = None) -> Sequence[Run]:
        found: list[Run] = await self._read(_late, microseconds(ready_before), each, most)
        return found

    async def clock(self) -> datetime | None:
        return None

    async def counts(self) -> Mapping[State, int]:
        rows = await self._read(
            _fetch,
            "SELECT 'waiting', count(*) FROM taskloop_runs WHERE state = 'waiting' "
            "UNION ALL SELECT 'running', count(*) FROM taskloop_runs WHERE state = 'running'",
        )
        return {State(row[0]): row[1] for row in rows}

    async def usual(self, jobs: Sequence[str]) -> Mapping[str, Sequence[float]]:
        found: Mapping[str, Sequence[float]] = await self._read(history.usual, list(jobs))
        return found

    async def days(self, jobs: Sequence[str], first: date, last: date) -> Sequence[DayCount]:
        rows = await self._read(history.days, list(jobs), first.toordinal() - _1970, last.toordinal() - _1970)
        return [DayCount(date.fromordinal(row[0] + _1970), State(row[1]), row[2], row[3] / 1e6) for row in rows]

    async def evidence(
        self,
        jobs: Sequence[str],
        now: datetime,
        choose: Choose,
        *,
        window: Window | None = None,
        run: RunId | None = None,
    ) -> Evidence:
        found: Evidence = await self._read(past.evidence, list(jobs), now, choose, window, run)
        return found

    async def prune(
        self, keep: timedelta | None, *, now: datetime, after: object | None = None, limit: int = 25
    ) -> Pruned:
        found: pruning.Expired = await self._read(pruning.look, keep, now, after, limit)
        deleted: int = await self._do(pruning.delete, found.ids, now) if found.ids else 0
        self._deleted += deleted
        if self._deleted >= pruning.BETWEEN and not self.private:
            self._deleted = 0
            await self._read(pruning.checkpoint)
        place = found.after
        if place is None and keep is not None and await self._do(pruning.delete_the_rest, keep, now):
            place = pruning.RUNS_DONE
        return Pruned(deleted, place)

    async def _runs(self, rest: str, values: Sequence[Any]) -> list[Run]:
        rows = await self._read(_fetch, f"SELECT {_RUN} FROM taskloop_runs {rest}", values)
        return [read_run(row) for row in rows]

    # -- switches

    async def switch(self, switch: Switch, entry: Entry | None = None) -> None:
        await self._do(audit_sqlite.switch, switch, entry)

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
        ended: int = await self._do(audit_sqlite.unswitch, job, kinds, now, actor, reason, missed, entry)
        return ended

    async def switches(self) -> Switches:
        found: Switches = await self._read(
            keeping.switches,
            "WHERE id IN (SELECT id FROM taskloop_switches INDEXED BY taskloop_switches_open WHERE ended_at IS NULL UNION ALL "
            "SELECT max(id) FROM taskloop_switches INDEXED BY taskloop_switches_paused WHERE kind = 'paused' AND ended_at IS NOT NULL GROUP BY job UNION ALL "
            "SELECT id FROM taskloop_switches INDEXED BY taskloop_switches_paused WHERE kind = 'paused' AND ended_at IS NOT NULL "
            "AND ended_at > (SELECT min(next_due) FROM taskloop_schedules WHERE next_due IS NOT NULL)) ORDER BY id",
        )
        return found

    # -- who may come in

    async def add_token(self, token: Token, entry: Entry | None = None) -> None:
        await self._do(audit_sqlite.add_token, token, entry)

    async def tokens(
        self,
        *,
        live_at: datetime | None = None,
        named: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> Sequence[Token]:
        found: Sequence[Token] = await self._read(tokens_sqlite.tokens, moment(live_at), named, before, limit)
        return found

    async def revoke_tokens(
        self,
        which: str,
        now: datetime,
        *,
        actor: str | None = None,
        reason: str | None = None,
        entry: Entry | None = None,
    ) -> Sequence[Token]:
        asked = (which, microseconds(now), actor, reason, entry)
        revoked: Sequence[Token] = await self._do(audit_sqlite.revoke_tokens, *asked)
        return revoked

    async def use_token(self, token: str, now: datetime) -> None:
        await self._do(tokens_sqlite.use, token, microseconds(now))

    async def session_secret(self, new: bytes) -> bytes:
        found: bytes | None = await self._read(tokens_sqlite.session_secret, None)
        return found or await self._do(tokens_sqlite.session_secret, new)

    # -- who changed what

    async def record(self, entries: Sequence[Entry]) -> None:
        await self._do(audit_sqlite.record, list(entries))

    async def audit(
        self,
        *,
        actor: str | None = None,
        jobs: Sequence[str] | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Entry]:
        found: Sequence[Entry] = await self._read(audit_sqlite.entries, actor, jobs, before, limit)
        return found

    # -- keeping house

    async def check(self) -> Sequence[str]:
        """What SQLite's own check of the file finds wrong; empty: nothing. Takes as long as reading the file does."""
        rows = await self._apart(_fetch, "PRAGMA integrity_check")
        return [row[0] for row in rows if row[0] != "ok"]

    async def backup(self, target: str | Path) -> None:
        """Copy the store, while it is in use, to a new file that is there whole or not at all; takes as long as it takes.

        Raises `BadStore` if the file exists, `StoreUnavailable` if the copy cannot be made.
        """
        await self._apart(copying.backup, str(target))

    def export(self) -> AsyncGenerator[Batch, None]:
        """Every table, as `copying` has it."""
        return transfer_sqlite.export(self)

    async def take_in(self, batches: AsyncIterator[Batch]) -> None:
        """The tables of another store. Raises `Conflict` where this one is not empty."""
        await transfer_sqlite.take_in(self, batches)

    async def _apart(self, function: Callable[..., Any], *args: Any) -> Any:
        """Read for as long as it takes, on a connection of its own: other reads are not to wait for it."""
        if self._reader is None:
            raise self._not_open()
        try:
            if self._place is None:
                return await self._hop(self._reader, function, *args)
            connection = await self._connect(create=False, path=self._place.path)
            try:
                return await self._hop(connection, where_it_stood, self._place, function, *args)
            finally:
                await let_go([connection], CLOSE_SECONDS)
        except (sqlite3.Error, ValueError) as error:
            raise self._explained(error) from error


# -- on the threads of the connections


def _reading(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA query_only = ON")


def _place(_: sqlite3.Connection, path: str) -> FilePlace:
    return FilePlace.of(str(Path(path).absolute()))  # a job may change the current folder


def _standing(db: sqlite3.Connection, jobs: Sequence[str]) -> dict[str, tuple[Run, datetime | None, int]]:
    rows = history.standing(db, _RUN, jobs)
    return {row[1]: (read_run(row), instant(row[-2]), row[-1]) for row in rows}


def _fetch(db: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    return db.execute(statement, values).fetchall()


# Rows are made records on the reader's thread: a thousand of them would hold the loop for longer than a request may.


def _found(
    query: Query, columns: str, read: Callable[[Any], Any], *, each: bool = False
) -> Callable[[sqlite3.Connection], list[Any]]:
    conditions = {"schedule = ?": query.schedule, "id < ?": query.before}
    asked = partial(
        history.find,
        columns=columns,
        states=None if query.states is None else [State(one).value for one in query.states],
        skipped=query.skipped,
        cause=query.cause,
        conditions={text: value for text, value in conditions.items() if value is not None},
        limit=query.limit,
    )
    asked_of = [[job] for job in query.jobs or ()] if each else [query.jobs]

    def found(db: sqlite3.Connection) -> list[Any]:
        between = history.between(db, moment(query.since), moment(query.until))
        return [read(row) for jobs in asked_of for row in asked(db, jobs=jobs, between=between)]

    return found


def _late(db: sqlite3.Connection, before: int, each: int, most: int | None) -> list[Run]:
    return [read_run(row) for row in history.late(db, _RUN, before, each, most)]


def _one(db: sqlite3.Connection, statement: str) -> Any:
    return db.execute(statement).fetchone()[0]
