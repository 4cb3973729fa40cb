"""The PostgreSQL store: two writing connections with group commit, three for reading, one for beats; for several hosts.

A verb that writes puts its work into a queue and waits; what has gathered is carried out as one transaction, and while
that is committed the next batch gathers (`gathering`, `batches_postgres`). What is rare and takes turns with all other
processes has a queue and a connection of its own, so that no run waits behind it; and so has what the engine reads, so that
no page is in its way. What a transaction does stands in `statements_postgres` and its neighbours; the tables in
`schema/postgres`. Start at `PostgresStore.open` and `_write`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from taskloop import audit_postgres as audit
from taskloop import claims_postgres as claims
from taskloop import history_postgres as history
from taskloop import keeping_postgres as keeping
from taskloop import past_postgres as past
from taskloop import pruning_postgres as pruning
from taskloop import statements_postgres as statements
from taskloop import steps_postgres, tokens_postgres, transfer_postgres
from taskloop.audit import Entry
from taskloop.batches_postgres import BEAT_SECONDS, FREELY, WHEREABOUTS, PostgresBeater, Writer, submit_within
from taskloop.clock import from_microseconds, microseconds
from taskloop.copying import Batch
from taskloop.errors import BadStore, StoreUnavailable
from taskloop.gathering import Gathering
from taskloop.hints_postgres import Hints
from taskloop.keys_postgres import insist
from taskloop.processes import lease_seconds
from taskloop.rows import ATTEMPT_COLUMNS, SPAN, attempts_of, briefs, instant, moment, newest_of, read_span, told
from taskloop.rows_postgres import RUN, SCHEDULE, Db, read_runs, read_schedules, run_of
from taskloop.runs import Progress, Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.server_postgres import (
    CONNECT_SECONDS,
    SNAPSHOT,
    Server,
    closed,
    is_crossed,
    is_lost,
    lacks,
    let_go,
    prepare,
    problems,
    transaction,
)
from taskloop.statements_postgres import Known
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
from taskloop.tasks import MadeOnce
from taskloop.tokens import Token

__all__ = ["PostgresStore"]

CALL_SECONDS: Final = 15.0
"""How long a caller waits for an answer: a server that hangs must not hang those who wait for it."""
LEAST_SECONDS: Final = 5.0
"""The same for a worker whose lease is shorter than `CALL_SECONDS`: its lease, but not less than this."""
LEAST_BEAT_SECONDS: Final = 2.0
"""And of its beats, a third of the lease: a dead line may cost one of them, and the next must still be in time."""
CLOSE_SECONDS: Final = 10.0
GOODBYE_SECONDS: Final = 1.0
READERS: Final = 2
"""Connections for what pages and callers ask; the engine's own is not among them."""
TOGETHER: Final = 500
"""Schedules of one transaction, where all of them are gone through."""
LIVING: Final = 10_000
"""Workers that are known to live, at most: with a hundred of two hundred, each look would take others for gone."""
_1970: Final = date(1970, 1, 1).toordinal()
AT_ONCE: Final = 100
"""Rows made records before the loop gets its turn: a thousand of them would hold it for longer than a request may."""


class PostgresStore:
    """Runs, schedules and switches in the schema `taskloop` of one database."""

    private: bool = False
    remote: bool = True

    def __init__(self, url: str, *, statement_cache_size: int = 100, call_seconds: float = CALL_SECONDS) -> None:
        self._server = Server(url, statement_cache_size=statement_cache_size, call_seconds=call_seconds)
        self.url: str = self._server.shown
        self.in_flight: int = 0
        self._name = secrets.token_hex(8)
        self._writer: Writer | None = None
        self._keeper: Writer | None = None
        """Writes what takes turns with all others; opened when first needed."""
        self._gathering: Gathering | None = None
        self._turns: Gathering | None = None
        """What gathers for the keeper."""
        self._hints: Hints | None = None
        self._readers: asyncio.Queue[Any] | None = None
        self._eyes: asyncio.Queue[Any] | None = None
        """The reading connection of the engine."""
        self._opening: MadeOnce[tuple[Writer, Hints]] = MadeOnce(self._move_in, self._let_go, stops=True)
        self.upgraded_from: int | None = None
        self._known = Known()
        self._seen: str | None = None
        self._whereabouts: tuple[Any, ...] | None = None

    # -- opening and closing

    async def open(self, *, create: bool = True, schema: Schema = "upgrade") -> None:
        if self._gathering is not None:
            return
        self.in_flight += 1
        try:
            await self._opening.make(partial(self._open, create, schema))
        finally:
            self.in_flight -= 1

    async def _open(self, create: bool, schema: Schema) -> tuple[Writer, Hints]:
        hints = Hints(self._server, self._name)
        writer = Writer(self._server, self._name, hints)
        try:
            self.upgraded_from = await prepare(await writer.open(), self.url, create=create, schema=schema)
        except BaseException as error:
            if not isinstance(error, Exception):  # nobody waits any more, and the server may say nothing
                await writer.give_up()
                raise
            if isinstance(error, TimeoutError) and await writer.give_up():
                raise self._server.held(CONNECT_SECONDS) from error
            await writer.close(CLOSE_SECONDS)
            raise self._server.explained(error) from error
        return writer, hints

    def _move_in(self, opened: tuple[Writer, Hints]) -> None:
        writer, hints = opened
        self._writer, self._seen, self._known = writer, None, Known()
        self._keeper = Writer(self._server, f"{self._name} keeps", hints)
        self._readers, self._eyes = _connections(READERS), _connections(1)
        self._hints = hints
        gathered = partial(Gathering, explained=self._server.explained, closed=self._not_open)
        self._gathering, self._turns = gathered(writer.carry_out), gathered(self._keeper.carry_out)

    async def _let_go(self, opened: tuple[Writer, Hints]) -> None:
        writer, _ = opened
        await writer.close(GOODBYE_SECONDS)

    async def close(self, within: float = CLOSE_SECONDS) -> None:
        writer, gathering, readers, hints = self._writer, self._gathering, self._readers, self._hints
        keeper, turns, eyes = self._keeper, self._turns, self._eyes
        if writer is None or gathering is None or readers is None or hints is None:
            return
        assert keeper is not None and turns is not None and eyes is not None
        self._writer = self._gathering = self._readers = self._hints = self._keeper = self._turns = self._eyes = None
        self.in_flight += 1
        try:
            await asyncio.gather(gathering.close(within), turns.close(within))
        finally:
            within = min(within, GOODBYE_SECONDS)
            goodbyes: list[Awaitable[object]] = [
                hints.close(within),
                writer.close(within),
                keeper.close(within),
                self._server.told(within),
            ]
            for pool in (readers, eyes):
                while not pool.empty():
                    if (connection := pool.get_nowait()) is not None:
                        goodbyes.append(let_go(connection, within))
            await asyncio.gather(*goodbyes)  # at once: a server that says nothing is waited for once
            self.in_flight -= 1

    def _not_open(self) -> StoreUnavailable:
        return StoreUnavailable(f"store {self.url} is not open; start the scheduler, or open the store first")

    async def _write(self, verb: str, work: Any, heed: Heed | None = None) -> Any:
        """Put work before the writer and wait until it is committed; `heed` is told as `Gathering.write` says."""
        gathering = self._turns if verb == "do" and work.func not in FREELY else self._gathering
        if gathering is None:
            refused = self._not_open()
            if heed is not None:
                heed(refused)
            raise refused
        self.in_flight += 1
        try:
            return await gathering.write(verb, work, heed)
        finally:
            self.in_flight -= 1

    async def _do(self, function: Callable[..., Any], *args: Any, heed: Heed | None = None) -> Any:
        return await self._write("do", partial(function, *args), heed)

    async def _read(self, function: Callable[..., Any], *args: Any, whole: bool = False) -> Any:
        """What `function(connection, …)` gives, by a connection for reading; with `whole` of one state throughout."""
        return await self._read_by(self._readers, function, args, whole)

    async def _see(self, function: Callable[..., Any], *args: Any) -> Any:
        """As `_read`, for the engine: whatever pages ask, and however long that takes, is not in the way."""
        return await self._read_by(self._eyes, function, args, False)

    async def _read_by(
        self, readers: asyncio.Queue[Any] | None, function: Callable[..., Any], args: Sequence[Any], whole: bool
    ) -> Any:
        if readers is None:
            raise self._not_open()
        self.in_flight += 1
        connection, has_turn = None, False
        try:
            async with asyncio.timeout(self._server.call_seconds):
                connection, has_turn = await readers.get(), True
                for last in (False, True):
                    if closed(connection):
                        connection = None
                    connection = await self._server.usable(connection)
                    try:
                        return await self._look(connection, function, args, whole)
                    except Exception as error:
                        # Where the database has it that a transaction sees one state throughout.
                        if is_crossed(error) and not last:
                            continue
                        if last or not is_lost(error) or isinstance(error, TimeoutError):
                            raise
                        connection.terminate()
        except BaseException as error:
            given_up, is_there = connection, False
            if connection is not None and isinstance(error, asyncio.CancelledError | TimeoutError):
                connection = None
                is_there = await self._server.give_up(given_up)
            elif connection is not None and (not isinstance(error, Exception) or is_lost(error)):
                connection.terminate()
                connection = None
            is_held = is_there and isinstance(error, TimeoutError)
            raise (
                self._server.held(self._server.call_seconds) if is_held else self._server.explained(error)
            ) from error
        finally:
            self.in_flight -= 1
            is_open = readers in (self._readers, self._eyes)
            if has_turn and is_open:  # whoever gave up waiting for one has none to give back
                readers.put_nowait(connection)
            elif connection is not None:
                connection.terminate()

    async def _look(self, connection: Any, function: Callable[..., Any], args: Sequence[Any], whole: bool) -> Any:
        if whole:
            async with transaction(connection, SNAPSHOT):
                return await function(connection, *args)
        if self._server.statement_cache_size == 0:  # a pooler may send each statement to another session, but for these
            async with transaction(connection):
                return await function(connection, *args)
        return await function(connection, *args)

    def meanwhile(self, call: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_soon(call)  # the server is asked in the next turn, too

    # -- workers

    async def enlist(self, worker: Worker) -> Sequence[Worker]:
        # A line that says nothing may be dead while others live, and what it holds up no other worker takes over.
        self._server.call_seconds = min(self._server.call_seconds, max(LEAST_SECONDS, lease_seconds(worker)))
        others: Sequence[Worker] = await self._do(keeping.enlist, worker)
        return others

    async def beat(self, worker: Worker, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        lives: bool = await self._do(keeping.beat, worker, microseconds(now), tick, told(dict(health)))
        return lives

    def beater(self, worker: Worker) -> Beater | None:
        seconds = min(BEAT_SECONDS, self._server.call_seconds, max(LEAST_BEAT_SECONDS, lease_seconds(worker) / 3))
        return PostgresBeater(self._server.twin(), self._name, worker, seconds=seconds)

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
            else "ORDER BY stopped_at IS NOT NULL, beat_at DESC"
        )
        found: Sequence[Worker] = await self._see(keeping.workers, f"{rest} LIMIT {LIVING if living else 100}")
        return found

    async def note(self, incidents: Sequence[Incident], heed: Heed | None = None) -> None:
        await self._do(keeping.note, list(incidents), heed=heed)

    async def incidents(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[Incident]:
        found: Sequence[Incident] = await self._read(keeping.incidents, microseconds(since), microseconds(until), limit)
        return found

    async def in_hand(self, worker: str) -> Mapping[RunId, int]:
        query = "SELECT id, token FROM taskloop.runs WHERE state = 'running' AND worker = $1"
        rows = await self._see(_fetched, query, worker)
        return {RunId(row[0]): row[1] for row in rows}

    async def orphans(self) -> Sequence[Run]:
        rows = await self._see(
            _fetched,
            f"SELECT {RUN} FROM taskloop.runs WHERE state = 'running' AND NOT EXISTS "
            "(SELECT 1 FROM taskloop.workers w WHERE w.id = worker AND w.stopped_at IS NULL) ORDER BY id",
        )
        return await _as_runs(rows)

    async def changed(self) -> bool:
        if self._gathering is None:
            return False
        # Beats are written all the time, and change nothing that is to be looked at at once.
        rows = await self._see(
            _fetched,
            "SELECT sum(writes)::text FROM taskloop.writers WHERE NOT starts_with(id, $1) AND id NOT LIKE '% beats'",
            self._name,
        )
        before, self._seen = self._seen, rows[0][0]
        return bool(before != self._seen)

    def on_ended(self, heed: Callable[[Sequence[RunId]], None]) -> None:
        if self._hints is not None:
            self._hints.heed = heed

    async def hint(self, seconds: float) -> None:
        if self._hints is None:
            await asyncio.sleep(seconds)
        else:
            await self._hints.wait(seconds)

    # -- jobs and schedules

    async def know(self, terms: Iterable[Terms]) -> None:
        if self._gathering is None:
            raise self._not_open()
        self._known = Known.of(terms)

    async def define(self, definitions: Iterable[Definition]) -> None:
        wanted = list(definitions)
        if not await self._see(keeping.are_defined, wanted):
            await self._do(keeping.define, wanted)

    async def definitions(self, *, without: Collection[str] = ()) -> Sequence[Definition]:
        found: list[Definition] = await self._read(keeping.definitions, list(without))
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
        if all(one.origin != "stored" for one in schedules):  # at each start, and hardly ever new
            as_before: Sequence[Schedule] | None = await self._see(keeping.unchanged, schedules, merge)
            if as_before is not None:
                return as_before
        stored: Sequence[Schedule] = await self._do(audit.put, schedules, merge, microseconds(now), entry)
        return stored

    async def drop(self, ids: Sequence[str], now: datetime, entry: Entry | None = None) -> int:
        dropped: int = await self._do(audit.drop, list(ids), microseconds(now), entry) if ids else 0
        return dropped

    async def declared_schedules(self) -> Sequence[tuple[str, str]]:
        rows = await self._fetch("SELECT id, job FROM taskloop.schedules WHERE origin <> 'stored' ORDER BY id")
        return [(row[0], row[1]) for row in rows]

    async def replan(self, decide: Rewind, rules: str) -> int:
        # Of each set of jobs: another program's schedules are moved by that one, which knows their policies.
        key = f"zone_rules {blake2b(json.dumps(sorted(self._known.terms)).encode(), digest_size=8).hexdigest()}"
        if await self._see(keeping.rules_of, key) == rules or not await self._do(keeping.rules_changed, rules, key):
            return 0
        total: int = 0
        after: str | None = ""
        while after is not None:
            moved, after = await self._do(keeping.move_cursors, self._known, decide, None, after, TOGETHER)
            total += moved
        await self._do(keeping.note_rules, rules, key)
        return total

    async def rewind(
        self, decide: Rewind, now: datetime, *, back: timedelta | None, boot: str, since: float, tick: float
    ) -> int:
        by = None if back is None else back // timedelta(microseconds=1)
        moved: int = await self._do(keeping.rewind, self._known, decide, microseconds(now), by, boot, since, tick)
        return moved

    async def schedules(
        self,
        *,
        job: str | None = None,
        ids: Sequence[str] | None = None,
        prefix: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Schedule]:
        wanted = {
            "job = {}": job,
            "id = ANY({}::text[])": None if ids is None else list(ids),
            "id >= {}": prefix,
            "id < {}": None if prefix is None else prefix + "\U0010ffff",
            "id > {}": after,
        }
        values = [limit, *(value for value in wanted.values() if value is not None)]
        texts = [text for text, value in wanted.items() if value is not None]
        where = " AND ".join(text.format(f"${place}") for place, text in enumerate(texts, 2)) or "true"
        rows = await self._fetch(
            f"SELECT {SCHEDULE} FROM taskloop.schedules WHERE {where} ORDER BY id LIMIT $1", *values
        )
        return read_schedules(rows)

    async def coming(self, limit: int, *, jobs: Sequence[str] | None = None) -> Sequence[Schedule]:
        rows = await self._fetch(
            f"SELECT {SCHEDULE} FROM taskloop.schedules WHERE next_due IS NOT NULL "
            "AND ($2::text[] IS NULL OR job = ANY($2)) ORDER BY next_due LIMIT $1",
            limit, None if jobs is None else list(jobs),
        )  # fmt: skip
        return read_schedules(rows)

    async def next_dues(self, jobs: Sequence[str]) -> Mapping[str, datetime]:
        found: dict[str, int] = await self._read(keeping.next_dues, jobs)
        return {job: from_microseconds(due) for job, due in found.items()}

    async def due(self, now: datetime, limit: int, without: Collection[str] = (), ahead_seconds: float = 0.0) -> Due:
        return Due(*await self._see(statements.due, self._known, now, limit, without))

    async def fire(self, firings: Sequence[Firing], worker: str, now: datetime, heed: Heed | None = None) -> Fired:
        fired: Fired = await self._do(statements.fire, firings, worker, now, heed=heed)
        return fired

    # -- runs

    async def submit(self, runs: Sequence[Run], heed: Heed | None = None, entry: Entry | None = None) -> Sequence[Run]:
        verb, work = ("submit", tuple(runs)) if entry is None else ("ask", (tuple(runs), entry))
        written: Sequence[Run]
        if any(run.key is not None for run in runs):
            written = await insist(partial(self._write, verb, work), heed)
        else:
            written = await self._write(verb, work, heed)
        return written

    async def submit_within(self, connection: Any, runs: Sequence[Run], entry: Entry | None = None) -> Sequence[Run]:
        if self._gathering is None:
            raise self._not_open()
        try:
            return await submit_within(connection, self._is_here, self.url, runs, entry)
        except Exception as error:
            # The transaction is the application's, and so is beginning it again, also for a key taken since it began.
            if is_crossed(error) or getattr(error, "sqlstate", None) == "23505":
                raise
            raise self._server.explained(error) from error

    async def _is_here(self, whereabouts: tuple[Any, ...]) -> bool:
        """Whether these are ours, which are asked for anew where they were others: the server may have been restarted."""
        if self._whereabouts != whereabouts:
            [found] = await self._fetch(WHEREABOUTS)
            self._whereabouts = tuple(found)
        return self._whereabouts == whereabouts

    async def claim(self, worker: str, now: datetime, slots: int, heed: Heed | None = None) -> Claimed:
        claimed: Claimed = await self._do(claims.claim, worker, now, slots, self._known, heed=heed)
        return claimed

    async def settle(self, settling: Settling) -> Run | None:
        stands: Run | None = await self._write("settle", settling)
        return stands

    async def progress(self, reports: Sequence[tuple[Run, Progress]]) -> None:
        await self._do(statements.progress, reports)

    async def step(self, run: Run, steps: Sequence[Step]) -> bool:
        done: bool = await self._write("step", (run, steps))
        return done

    async def steps(self, run: RunId) -> Sequence[Step]:
        found: Sequence[Step] = await self._read(steps_postgres.steps, run)
        return found

    async def log(self, reports: Sequence[tuple[Run, Sequence[LogLine]]]) -> None:
        await self._write("log", reports)

    async def lines(self, run: RunId, after: int = 0, limit: int = 100) -> tuple[Sequence[LogLine], int]:
        found: tuple[Sequence[LogLine], int] = await self._read(steps_postgres.lines, run, after, limit)
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
        done: Cancelling | None = await self._do(audit.cancel, *asked)
        return done

    async def wishes(self, worker: str, heed: Heed | None = None) -> Sequence[Wish]:
        found: Sequence[Wish] = await self._do(keeping.take_wishes, worker, heed=heed)
        return found

    async def run(self, run: RunId) -> Run | None:
        found = await self._runs("WHERE id = $1", run)
        return found[0] if found else None

    async def find(self, query: Query) -> Sequence[Run]:
        return await _as_runs(await self._read(_asked(query)))

    async def spans(self, query: Query, *, each: bool = False) -> Sequence[Span]:
        asked = [query._replace(jobs=[job]) for job in query.jobs or ()] if each else [query]
        return [read_span(row) for one in asked for row in await self._read(_asked(one, SPAN))]

    async def standing(self, jobs: Sequence[str]) -> Mapping[str, tuple[Run, datetime | None, int]]:
        rows = await self._read(history.standing, list(jobs))
        return {row["job"]: (run_of(row), instant(row["last_success"]), row["failures"]) for row in rows}

    async def newest(self, jobs: Sequence[str]) -> Mapping[str, Newest]:
        return newest_of(await self._read(history.newest, jobs))

    async def recent(self, jobs: Sequence[Sequence[str]], limit: int) -> Sequence[Sequence[Brief]]:
        return [briefs(rows) for rows in await self._read(history.recent, jobs, limit)]

    async def attempts(self, run: Run) -> Sequence[Attempt]:
        columns = ",".join(ATTEMPT_COLUMNS)
        rows = await self._fetch(f"SELECT {columns} FROM taskloop.attempts WHERE run = $1 ORDER BY token", run.id)
        return attempts_of(run, rows)

    async def reruns(self, run: RunId) -> Sequence[Run]:
        return await self._runs("WHERE rerun_of = $1 AND rerun_of IS NOT NULL ORDER BY id LIMIT 100", run)

    async def late(self, ready_before: datetime, each: int, most: int | None = None) -> Sequence[Run]:
        return await _as_runs(await self._read(history.late, microseconds(ready_before), each, most, whole=True))

    async def clock(self) -> datetime | None:
        [[now]] = await self._fetch("SELECT extract(epoch FROM clock_timestamp())::double precision")
        return datetime.fromtimestamp(now, UTC)

    async def counts(self) -> Mapping[State, int]:
        rows = await self._fetch(
            "SELECT 'waiting', count(*) FROM taskloop.runs WHERE state = 'waiting' "
            "UNION ALL SELECT 'running', count(*) FROM taskloop.runs WHERE state = 'running'"
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
        found: Evidence = await self._read(past.evidence, list(jobs), now, choose, window, run, whole=True)
        return found

    async def prune(
        self, keep: timedelta | None, *, now: datetime, after: object | None = None, limit: int = 25
    ) -> Pruned:
        found = await self._read(pruning.look, keep, now, after, limit)
        deleted: int = await self._do(pruning.delete, list(found.ids), now) if found.ids else 0
        place = found.after
        if (
            place is None
            and await self._see(pruning.has_more, self._known.terms, keep, now)
            and await self._do(pruning.delete_the_rest, self._known.terms, keep, now)
        ):
            place = pruning.RUNS_DONE
        return Pruned(deleted, place)

    async def _runs(self, rest: str, *values: Any) -> list[Run]:
        return await _as_runs(await self._fetch(f"SELECT {RUN} FROM taskloop.runs {rest}", *values))

    async def _fetch(self, query: str, *values: Any) -> Sequence[Any]:
        rows: Sequence[Any] = await self._read(_fetched, query, *values)
        return rows

    # -- switches

    async def switch(self, switch: Switch, entry: Entry | None = None) -> None:
        await self._do(audit.switch, switch, entry)

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
        ended: int = await self._do(audit.unswitch, job, kinds, now, actor, reason, missed, entry)
        return ended

    async def switches(self) -> Switches:
        found: Switches = await self._see(
            keeping.switches,
            "WHERE id IN (SELECT id FROM taskloop.switches WHERE ended_at IS NULL UNION ALL SELECT max(id) "
            "FROM taskloop.switches WHERE kind = 'paused' AND ended_at IS NOT NULL GROUP BY job UNION ALL SELECT id "
            "FROM taskloop.switches WHERE kind = 'paused' AND ended_at > (SELECT min(next_due) FROM taskloop.schedules)) "
            "ORDER BY id",
        )
        return found

    # -- who may come in

    async def add_token(self, token: Token, entry: Entry | None = None) -> None:
        await self._do(audit.add_token, token, entry)

    async def tokens(
        self,
        *,
        live_at: datetime | None = None,
        named: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> Sequence[Token]:
        found: Sequence[Token] = await self._read(tokens_postgres.tokens, moment(live_at), named, before, limit)
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
        revoked: Sequence[Token] = await self._do(audit.revoke_tokens, *asked)
        return revoked

    async def use_token(self, token: str, now: datetime) -> None:
        await self._do(tokens_postgres.use, token, microseconds(now))

    async def session_secret(self, new: bytes) -> bytes:
        found: bytes | None = await self._read(tokens_postgres.session_secret, None)
        return found or await self._do(tokens_postgres.session_secret, new)

    # -- who changed what

    async def record(self, entries: Sequence[Entry]) -> None:
        await self._do(audit.record, list(entries))

    async def audit(
        self,
        *,
        actor: str | None = None,
        jobs: Sequence[str] | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Entry]:
        found: Sequence[Entry] = await self._read(audit.entries, actor, jobs, before, limit)
        return found

    # -- keeping house

    async def check(self) -> Sequence[str]:
        """What stands in the way of a sound store; empty: nothing. What the server itself keeps sound is not read anew."""
        found: list[str] = await self._read(problems)
        return found

    async def lacks(self) -> Sequence[str]:
        """What a store needs and its user, or the database, does not give it, each with the mend; empty: nothing."""
        found: list[str] = await self._read(lacks)
        return found

    async def backup(self, target: object) -> None:
        """Raises `BadStore`, with the words that back it up: the server's own tools do it better."""
        raise BadStore(
            f"a store in PostgreSQL is backed up by its own tools; write `pg_dump --schema=taskloop --file={target}` and the "
            "address, or let the whole server be backed up"
        )

    def export(self) -> AsyncGenerator[Batch, None]:
        """Every table, as `copying` has it."""
        return transfer_postgres.export(self)

    async def take_in(self, batches: AsyncIterator[Batch]) -> None:
        """The tables of another store. Raises `Conflict` where this one is not empty."""
        await transfer_postgres.take_in(self, batches)


def _connections(number: int) -> asyncio.Queue[Any]:
    """So many places for connections, each made when it is needed."""
    places: asyncio.Queue[Any] = asyncio.LifoQueue()
    for _ in range(number):
        places.put_nowait(None)
    return places


async def _fetched(db: Db, query: str, *values: Any) -> Sequence[Any]:
    return await db.fetch(query, *values)


def _asked(query: Query, columns: str = RUN) -> partial[Any]:
    conditions = {"schedule = {}": query.schedule, "id < {}": query.before}
    return partial(
        history.find,
        columns=columns,
        jobs=query.jobs,
        states=None if query.states is None else [State(one).value for one in query.states],
        skipped=query.skipped,
        cause=query.cause,
        since=moment(query.since),
        until=moment(query.until),
        conditions={text: value for text, value in conditions.items() if value is not None},
        limit=query.limit,
    )


async def _as_runs(rows: Sequence[Any]) -> list[Run]:
    found: list[Run] = []
    for first in range(0, len(rows), AT_ONCE):
        if first:
            await asyncio.sleep(0)
        found += read_runs(rows[first : first + AT_ONCE])
    return found
