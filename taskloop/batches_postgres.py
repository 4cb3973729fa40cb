"""Transactions in PostgreSQL: a batch of the writer's, a beat, and what became of one whose answer was lost.

Level 5. Nothing lives longer than a transaction on the server: no session setting, no lock, no temporary table; so a
pooler may give each transaction another session. What a verb does within one stands in `statements_postgres` and its
neighbours. Start at `Writer.carry_out`.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from taskloop import audit_postgres as audit
from taskloop import claims_postgres as claims
from taskloop import keeping_postgres as keeping
from taskloop import pruning_postgres as pruning
from taskloop import statements_postgres as statements
from taskloop import steps_postgres as steps
from taskloop import stroke_postgres as stroke
from taskloop.audit import Entry
from taskloop.clock import microseconds
from taskloop.errors import BadStore, StoreUnavailable, TakenOver
from taskloop.hints_postgres import CHANNEL, NOTIFY, Hints, concerns_others
from taskloop.rows import told
from taskloop.runs import Run, State
from taskloop.server_postgres import (
    BEAT,
    BEGIN,
    GIVE_UP_SECONDS,
    TRIES,
    Server,
    closed,
    is_alone,
    is_crossed,
    is_lost,
    let_go,
    newest,
    transaction,
)
from taskloop.store_data import Claimed, Fired, Worker
from taskloop.tasks import outlast

__all__ = ["BEAT_SECONDS", "FREELY", "WHEREABOUTS", "PostgresBeater", "Writer", "submit_within"]

BEAT_SECONDS: Final = 5.0
"""How long a beat may take: the next one is not to wait behind it for ever."""
_TOGETHER: Final[Sequence[tuple[str, Callable[..., Any]]]] = (
    ("step", steps.put),
    ("log", steps.logs),
    ("settle", statements.settle),
    ("submit", statements.submit),
    ("ask", audit.ask),
)
"""Verbs whose calls are carried out as one list, in this order, before the others of a batch: a step is written while its run
runs, and ends free places."""
FREELY: Final = frozenset(
    {
        statements.fire,
        claims.claim,
        statements.progress,
        audit.cancel,
        audit.record,
        keeping.take_wishes,
        keeping.note,
        keeping.beat,
        keeping.bury,
        keeping.has_jobs,
        keeping.leave,
        pruning.delete,
    }
)
"""What may be done beside anything that others do; all else takes turns, and has a writer of its own for it.

Those that come and go by the hundred at one moment, as at a deploy, are here as far as they can: a turn lasts as long as its
process takes to go on three times, which on a busy machine is a tenth of a second.
"""
FENCE: Final = 2**20
"""What a reading back adds to the number of a writer; a transaction adds one."""
_SIGN_IN: Final = (
    "INSERT INTO taskloop.writers AS w (id, writes) VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) "
    "ON CONFLICT (id) DO UPDATE SET writes = w.writes + 1, at = now() "
    "RETURNING writes, (SELECT value FROM taskloop.meta WHERE key = 'schema')"
)
"""Begins the count of a name at an instant: one that is put away, and begun again, never has a number twice."""
_COUNT_IT: Final = (
    "UPDATE taskloop.writers SET writes = writes + 1, at = now() WHERE id = $1 "
    "RETURNING writes, (SELECT value FROM taskloop.meta WHERE key = 'schema')"
)
"""Others see by this that somebody has written; and we, by the number, whether we have, if the answer is lost."""
_READ_BACK: Final = (
    f"UPDATE taskloop.writers SET writes = writes + {FENCE}, at = now() WHERE id = $1 RETURNING writes - {FENCE}"
)
"""Waits for a session of ours whose line was cut, and which does not know it yet; a statement that such a one has still to
begin finds another number than it was given, and does nothing."""
_COUNT_THEIRS: Final = (
    "UPDATE taskloop.writers SET writes = writes + 1, at = now() WHERE id = (SELECT id FROM taskloop.writers "
    "WHERE id LIKE 'within %' LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING true"
)
"""As `_COUNT_IT` within transactions of applications: each takes a row that no other has just now."""


_WITHIN: Final = (
    "SAVEPOINT taskloop_submit",
    "RELEASE SAVEPOINT taskloop_submit",
    "ROLLBACK TO SAVEPOINT taskloop_submit",
)
_ALONE: Final = ("BEGIN", "COMMIT", "ROLLBACK")
"""Begin, end and take back what is asked for by a connection of the application's: in its transaction, or without one."""
WHEREABOUTS: Final = (
    "SELECT (SELECT value FROM taskloop.meta WHERE key = 'store'), "
    "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text, "
    "(SELECT oid::text FROM pg_database WHERE datname = current_database())"
)
"""What tells a store from every other: its name, which a copy of it has too, the server that is running, and the database.

All as text: an application's connection may read other types in ways of its own.
"""
IsHere = Callable[[tuple[Any, ...]], Awaitable[bool]]


class Transaction:
    """A connection within a transaction, which notices whether anything was changed."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.wrote: bool = False

    async def fetch(self, query: str, *args: Any) -> Sequence[Any]:
        rows: Sequence[Any] = await self._connection.fetch(query, *args)
        self.wrote |= bool(rows) and _changes(query)
        return rows

    async def fetchrow(self, query: str, *args: Any) -> Any:
        row = await self._connection.fetchrow(query, *args)
        self.wrote |= row is not None and _changes(query)
        return row

    async def fetchval(self, query: str, *args: Any) -> Any:
        row = await self.fetchrow(query, *args)
        return None if row is None else row[0]

    async def execute(self, query: str, *args: Any) -> str:
        status: str = await self._connection.execute(query, *args)
        self.wrote |= not status.endswith(" 0") and status.startswith(("INSERT", "UPDATE", "DELETE"))
        return status


@lru_cache(512)
def _changes(query: str) -> bool:
    return re.search(r"UPDATE taskloop|INSERT INTO|DELETE FROM", query) is not None


class Doubt(NamedTuple):
    """A transaction that is being committed: until the server has answered, only it knows whether it is."""

    batch: Sequence[tuple[str, Any]]
    answers: list[Any] | None
    """None: to be read back, as `stroke` has it."""
    stroke: stroke.Stroke | None = None
    done: set[tuple[int, int]] | None = None
    """The ends that the stroke wrote, where the server has said so."""
    is_committed: bool = False
    """Known by now; how its ends stand may still have to be read."""


class Apart(NamedTuple):
    """A batch whose parts are tried singly, and how far that is."""

    batch: Sequence[tuple[str, Any]]
    parts: Sequence[Sequence[tuple[str, Any]]]
    answers: list[Any]


class Writer:
    """The connection that writes, made anew when it is lost."""

    def __init__(self, server: Server, name: str, hints: Hints) -> None:
        self._server = server
        self._name = name
        self._hints = hints
        self._connection: Any = None
        self._doubt: Doubt | None = None
        self._apart: Apart | None = None
        self._ids = stroke.Ids()
        self._writes: int | None = None
        """How often we have written, as the server counted it last; None: we are not in its list."""

    async def open(self) -> Any:
        """The connection."""
        self._connection = await self._server.usable(self._connection)
        return self._connection

    def drop(self) -> None:
        """Let go of a connection at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.terminate()

    async def give_up(self) -> bool:
        """Let go of a connection whose answer is not awaited any more; gives whether the server has heard of that."""
        connection, self._connection = self._connection, None
        return connection is not None and await self._server.give_up(connection)

    async def close(self, within: float) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await let_go(connection, within)

    async def carry_out(self, batch: Sequence[tuple[str, Any]]) -> list[Any]:
        """Carry out a batch as one transaction; gives an answer or an error for each part, in order.

        If it fails its parts are tried singly, so that one bad row harms nobody. Called again for a batch in which it
        was cancelled, it finds out first what became of it.
        """
        if self._apart is None or self._apart.batch is not batch:
            self._apart = None
            try:
                return await self._surely(batch)
            except Exception as error:
                if len(batch) == 1 or not is_alone(error):
                    return [error] * len(batch)
            self._apart = Apart(batch, [[part] for part in batch], [])
        _, parts, answers = self._apart
        while len(answers) < len(parts):
            try:
                answers += await self._surely(parts[len(answers)])
            except Exception as error:
                answers.append(error)
        self._apart = None
        return answers

    async def _surely(self, batch: Sequence[tuple[str, Any]]) -> list[Any]:
        """Carry out a batch once, however often others cross it or the connection is cut."""
        until = time.monotonic() + self._server.call_seconds
        left = TRIES
        while True:
            doubt = self._doubt
            # Also of a batch that was given up, to know again how often we have written.
            if doubt is not None and not doubt.is_committed:  # or, were we stopped below, it would be done again
                doubt = self._doubt = doubt._replace(is_committed=True) if await self._is_committed(until) else None
            left -= 1
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + until - time.monotonic()):
                    if doubt is not None and doubt.batch is batch:
                        return await self._answers(doubt)
                    if doubt is not None:
                        await self._take_back(doubt)
                    if self._writes is None:
                        await self._sign_in()
                    return await (self._at_a_stroke(batch) if stroke.fits(batch) else self._transact(batch))
            except BaseException as error:
                is_there = isinstance(error, asyncio.CancelledError | TimeoutError) and await self.give_up()
                if isinstance(error, TimeoutError):
                    raise self._silent(is_there) from error
                if is_lost(error):
                    self.drop()
                if not left or not (is_lost(error) or is_crossed(error) or isinstance(error, _PutAwayError)):
                    raise
                if isinstance(error, _PutAwayError):
                    self._writes = None
                if is_crossed(error):
                    await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311 - so that the two do not meet again

    async def _sign_in(self) -> None:
        connection = await self.open()
        self._writes, schema = await connection.fetchrow(_SIGN_IN, self._name)
        refuse_newer(schema, self._server.shown)

    async def _transact(self, batch: Sequence[tuple[str, Any]]) -> list[Any]:
        connection = await self.open()
        await connection.execute(BEGIN)
        try:
            db = Transaction(connection)
            answers = await _done(db, batch)
            writes = self._writes
            if db.wrote:
                counted = await connection.fetchrow(_COUNT_IT, self._name)
                if counted is None:
                    raise _PutAwayError
                writes, schema = counted
                refuse_newer(schema, self._server.shown)
                self._doubt = Doubt(batch, answers)
            others_may_act = db.wrote and any(map(concerns_others, batch, answers))
            if others_may_act and not self._hints.listening:
                await connection.execute(NOTIFY, CHANNEL, self._hints.look)
            await connection.execute("COMMIT")
            self._writes = writes
        except Exception as error:
            if not is_lost(error) and not closed(connection):
                self._doubt = None  # the server has said that it is not committed
                with suppress(Exception):
                    await connection.execute("ROLLBACK")
            raise
        self._doubt = None
        if self._hints.listening:
            self._hints.noted(batch, answers)
        return answers

    async def _at_a_stroke(self, batch: Sequence[tuple[str, Any]]) -> list[Any]:
        """Carry out a batch by one statement, which is a transaction by itself."""
        connection = await self.open()
        ready = await stroke.prepared(connection, batch, self._ids)
        doubt = self._doubt = Doubt(batch, None, ready)
        try:
            writes, schema, done = await stroke.carry_out(
                connection, ready, self._name, self._writes, newest(), self._ids
            )
        except Exception as error:
            if not is_lost(error) and not closed(connection):
                self._doubt = None  # the server has said that it is not committed
            raise
        if writes is None:
            self._doubt = None
            refuse_newer(schema, self._server.shown)
            raise _PutAwayError
        self._writes = writes
        self._doubt = doubt._replace(done=done, is_committed=True)  # whatever happens to us before all is answered
        answers = await stroke.answers(connection, batch, ready, done)
        if self._hints.listening:
            self._hints.noted(batch, answers)
        elif any(map(concerns_others, batch, answers)):
            with suppress(Exception):  # a hint, no more: what it is about is committed
                await connection.execute(NOTIFY, CHANNEL, self._hints.look)
        self._doubt = None
        return answers

    async def _answers(self, doubt: Doubt) -> list[Any]:
        """The answers to a batch that turned out to be committed."""
        answers = doubt.answers
        if answers is None:
            assert doubt.stroke is not None
            answers = await stroke.answers(await self.open(), doubt.batch, doubt.stroke, doubt.done)
        self._doubt = None
        return answers

    async def _take_back(self, doubt: Doubt) -> None:
        """What was handed out by a batch that was given up, and is committed nevertheless: nobody here has heard of it.

        Runs wait again, their attempt given back, and wishes are there again; else they would be nobody's while we live.
        """
        connection = await self.open()
        handed = doubt.answers if doubt.stroke is None else doubt.stroke.calls
        await claims.unclaim(connection, [run for answer in handed or () for run in _started(answer)])
        for (verb, work), answer in zip(doubt.batch, doubt.answers or (), strict=False):
            if verb == "do" and work.func is keeping.take_wishes:
                await keeping.wish_again(connection, answer)
        self._doubt = None

    async def _is_committed(self, until: float) -> bool:
        """What became of a transaction whose COMMIT was not answered: nobody but us counts by our name.

        Raises `StoreUnavailable` where nobody can say.
        """
        wait = 0.05
        while True:
            try:
                async with asyncio.timeout(max(0.1, until - time.monotonic())):
                    written: int | None = await (await self.open()).fetchval(_READ_BACK, self._name)
                if written is None or self._writes is None:  # so long ago that it was put away
                    self._writes = None
                    return False
                added, self._writes = written - self._writes, written + FENCE
                return added % FENCE == 1
            except Exception as error:
                is_there = await self.give_up()
                if time.monotonic() > until:
                    is_silent = isinstance(error, TimeoutError)
                    raise (self._silent(is_there) if is_silent else self._server.explained(error)) from error
            await asyncio.sleep(wait)
            wait = min(1.0, 2 * wait)  # each try takes a new connection, of a standby that is not the server yet too

    def _silent(self, is_there: bool) -> StoreUnavailable:
        if is_there:
            return self._server.held(self._server.call_seconds)
        return StoreUnavailable(
            f"store {self._server.shown} has not answered for {self._server.call_seconds:g} s; see whether the server runs and can "
            "be reached, and pg_stat_activity for who holds it"
        )


class _PutAwayError(Exception):
    """Our row among the writers was put away: we had not written for long."""


def _started(answer: Any) -> Sequence[Run]:
    """The runs that are the asker's by an answer."""
    runs = answer.started if isinstance(answer, Claimed | Fired) else answer if isinstance(answer, list) else ()
    return [run for run in runs if isinstance(run, Run) and run.state is State.RUNNING and not run.existed]


def refuse_newer(schema: str, shown: str) -> None:
    if int(schema) > newest():
        raise TakenOver(shown, int(schema), newest())


async def _done(db: Transaction, batch: Sequence[tuple[str, Any]]) -> list[Any]:
    """The answer to each part of a batch."""
    answers: list[Any] = [None] * len(batch)
    if any(verb == "do" and work.func not in FREELY for verb, work in batch):
        await statements.lock(db, statements.KEEPING)
    for together, function in _TOGETHER:
        places = [place for place, (verb, _) in enumerate(batch) if verb == together]
        if places:
            for place, answer in zip(places, await function(db, [batch[one][1] for one in places]), strict=True):
                answers[place] = answer
    for place, (verb, work) in enumerate(batch):
        if verb == "do":
            answers[place] = await work.func(db, *work.args)
    return answers


async def submit_within(
    connection: Any, is_here: IsHere, shown: str, runs: Sequence[Run], entry: Entry | None
) -> Sequence[Run]:
    """Write runs by a connection of the application's (asyncpg), within its transaction. `is_here`: whether its
    WHEREABOUTS are those of the store.
    """
    if not all(hasattr(connection, name) for name in ("fetchrow", "fetchval", "transaction", "is_in_transaction")):
        raise BadStore(
            f"connection= is a {type(connection).__name__}; allowed is a connection of asyncpg to {shown}, or one of "
            "SQLAlchemy's create_async_engine on asyncpg: await session.connection(). See docs/postgresql.md for other drivers"
        )
    if closed(connection):
        raise BadStore(f"connection= is closed; allowed is one that is open, to {shown}")
    # By hand: a transaction that was begun so takes no other kind, and the driver's own waits for ever to roll back.
    begin, end, undo = _WITHIN if connection.is_in_transaction() else _ALONE
    await connection.execute(begin)
    try:
        answer = await _submit_within(connection, is_here, shown, runs, entry)
    except BaseException:
        # In a task of its own: a scope of anyio that was given up cancels each await, and the connection would be given back
        # in the middle of a transaction that its owner knows nothing of.
        await outlast({asyncio.create_task(_undone(connection, undo))})
        raise
    await connection.execute(end)
    return answer


async def _undone(connection: Any, undo: str) -> None:
    with suppress(Exception):
        async with asyncio.timeout(GIVE_UP_SECONDS):  # on a line that has gone silent nothing answers who gave up
            await connection.execute(undo)


async def _submit_within(
    connection: Any, is_here: IsHere, shown: str, runs: Sequence[Run], entry: Entry | None
) -> Sequence[Run]:
    theirs = None
    if await connection.fetchval("SELECT to_regclass('taskloop.meta')") is not None:
        theirs = tuple(await connection.fetchrow(WHEREABOUTS))
    if theirs is None or not await is_here(theirs):
        raise BadStore(f"connection= is one to another database; allowed is one to {shown}")
    if entry is None:
        [answer] = await statements.submit(connection, [tuple(runs)], patient=True)
    else:
        [answer] = await audit.ask(connection, [(tuple(runs), entry)], patient=True)
    if isinstance(answer, Exception):
        raise answer
    # One that sees one state throughout would be refused a row that another has counted in since it began.
    sees_others = await connection.fetchval("SELECT current_setting('transaction_isolation')") == "read committed"
    if not (sees_others and await connection.fetchval(_COUNT_THEIRS)):
        await connection.execute(_SIGN_IN, f"within {secrets.token_hex(8)}")
    await connection.execute(NOTIFY, CHANNEL, "within")
    return cast("Sequence[Run]", answer)


class PostgresBeater:
    """Beats from a thread of its own, by a loop and a connection of its own: no job and no other call is in their way."""

    def __init__(self, server: Server, name: str, worker: Worker, *, seconds: float = BEAT_SECONDS) -> None:
        self._server = server
        self._name = name
        self._worker = worker
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None
        self._began = 0.0
        """When the beat in hand began, by the steady clock."""

    def beat(self, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        self._began = time.monotonic()
        try:
            return self._loop.run_until_complete(self._in_time(now, tick, health))
        except Exception as error:
            self._drop()
            raise self._server.explained(error) from error

    def close(self) -> None:
        if self._loop is None:
            return
        with suppress(Exception):
            if not closed(self._connection):
                self._loop.run_until_complete(let_go(self._connection, 1.0))
        self._drop()
        left = asyncio.all_tasks(self._loop)  # the driver's, which wait to tell a silent server that we have given up
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        self._loop.run_until_complete(asyncio.sleep(0))  # for what was dropped to be closed
        self._loop.close()
        self._loop = None

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.terminate()

    async def _in_time(self, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        async with asyncio.timeout(self._seconds):
            try:
                return await self._beat(now, tick, health)
            except Exception as error:
                if not is_lost(error) or isinstance(error, TimeoutError):
                    raise
                self._drop()  # cut since the last beat: once more, by a new one
                return await self._beat(now, tick, health)

    async def _beat(self, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        if closed(self._connection):
            self._connection = await self._server.connect()
        async with transaction(self._connection, BEAT):
            # First, for by this others judge how old the beat is.
            theirs = await self._connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::double precision")
            ahead = theirs - (now.timestamp() + time.monotonic() - self._began)
            said = told({**health, "skew_ms": round(ahead * 1000, 1)})
            lives = await keeping.beat(self._connection, self._worker, microseconds(now), tick, said)
            _, schema = await self._connection.fetchrow(_SIGN_IN, f"{self._name} beats")
            refuse_newer(schema, self._server.shown)
        return lives
