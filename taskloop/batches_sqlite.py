"""Transactions in SQLite, carried out on the threads of the connections: a batch of the writer's, and a beat.

Level 5. Each is begun and ended here, and refused where the file is not the one that was opened, or a newer program has
taken it over. What a verb does within one stands in `statements_sqlite` and its neighbours. Start at `transact`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, cast

from taskloop import audit_sqlite, steps_sqlite
from taskloop import keeping_sqlite as keeping
from taskloop import statements_sqlite as statements
from taskloop.audit import Entry
from taskloop.clock import microseconds
from taskloop.errors import BadStore, TakenOver
from taskloop.file_sqlite import FilePlace, connect, explained, newest
from taskloop.rows import told
from taskloop.runs import Run
from taskloop.store_data import Worker

__all__ = ["SqliteBeater", "submit_within", "transact", "where_it_stood"]

_OF_ALL: Final = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    )
)
"""Errors of SQLite that no part of a batch would escape by being tried alone: the disk is full, the file locked, …"""


def where_it_stood(db: sqlite3.Connection, place: FilePlace, function: Callable[..., Any], *args: Any) -> Any:
    """What `function` gives, if the files of the connection still stand where they were. Raises `StoreUnavailable`."""
    place.check()
    return function(db, *args)


def transact(
    db: sqlite3.Connection,
    place: FilePlace | None,
    verbs: Sequence[str],
    works: Sequence[Any],
    committing: Callable[[], object] | None = None,
) -> list[Any]:
    """Carry out a batch as one transaction; gives an answer or an error for each part, in order.

    Part for part: what is to be done (`verbs`), and with what (`works`). `committing` is called once all of it is done but
    the commit, if it comes to that; it raises nothing.
    """
    try:
        if place is not None:
            place.check()
        return _transact(db, place, verbs, works, committing)
    except Exception as error:
        if db.in_transaction:
            with suppress(sqlite3.Error):  # some errors have rolled back already
                db.execute("ROLLBACK")
        if len(verbs) == 1 or not _is_alone(error):
            return [error] * len(verbs)
    return [transact(db, place, [verb], [work])[0] for verb, work in zip(verbs, works, strict=True)]


def _is_alone(error: Exception) -> bool:
    """Whether an error is of one part of a batch, which the others escape without it.

    By what it is, never by its words: a call that is refused names what it was given, which may say anything.
    """
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _OF_ALL  # the low byte: the rest says where
    return not isinstance(error, OSError | BadStore)


_TOGETHER: Final = (
    ("step", steps_sqlite.put),
    ("log", steps_sqlite.logs),
    ("settle", statements.settle),
    ("submit", statements.submit),
)
"""Verbs whose calls are carried out as one list, in this order, before the others of a batch: a step is written while its run
runs, and ends free places."""


def _transact(
    db: sqlite3.Connection,
    file: FilePlace | None,
    verbs: Sequence[str],
    works: Sequence[Any],
    committing: Callable[[], object] | None = None,
) -> list[Any]:
    answers: list[Any] = [None] * len(verbs)
    db.execute("BEGIN IMMEDIATE")
    if file is not None:
        _refuse_newer(db, file.path)
    for together, function in _TOGETHER:
        places = [place for place, verb in enumerate(verbs) if verb == together]
        if places:
            for place, answer in zip(places, function(db, [works[one] for one in places]), strict=True):
                answers[place] = answer
    for place, (verb, work) in enumerate(zip(verbs, works, strict=True)):
        if verb == "do":
            answers[place] = work.func(db, *work.args)
    if committing is not None:
        committing()
    db.execute("COMMIT")
    return answers


async def submit_within(
    connection: Any, place: FilePlace | None, runs: Sequence[Run], entry: Entry | None
) -> Sequence[Run]:
    """Write runs by a connection of the application's (aiosqlite), within its transaction, on its thread."""
    if place is None:
        raise BadStore(
            "connection= was given, and the store is in memory, which no other connection reaches; use the file that the "
            'connection is to, in a test by virtual_time(scheduler, store="sqlite:///FILE"), or leave connection= out'
        )
    if not hasattr(connection, "_execute") or not hasattr(connection, "_conn"):
        raise BadStore(
            f"connection= is a {type(connection).__name__}; allowed is a connection of aiosqlite to {place.path}"
        )
    return cast("Sequence[Run]", await connection._execute(_submit_within, connection._conn, place, tuple(runs), entry))


def _submit_within(
    db: sqlite3.Connection, place: FilePlace, runs: tuple[Run, ...], entry: Entry | None
) -> Sequence[Run]:
    place.check()
    factories, db.row_factory, db.text_factory = (db.row_factory, db.text_factory), None, str
    try:
        [file] = [row[2] for row in db.execute("PRAGMA database_list") if row[1] == "main"]
        if not file or FilePlace.of(file)[1:3] != place[1:3]:
            raise BadStore(f"connection= is one to {file or 'a database in memory'}; allowed is one to {place.path}")
        alone = not db.in_transaction
        db.execute("BEGIN IMMEDIATE" if alone else "SAVEPOINT taskloop_submit")
        try:
            if not alone:  # to write before anything is read: who has read waits for no other writer, but is refused
                db.execute("DELETE FROM taskloop_runs WHERE false")
            answer = audit_sqlite.submit(db, runs, entry)
        except BaseException:
            with suppress(sqlite3.Error):  # some errors have rolled back already
                db.execute("ROLLBACK" if alone else "ROLLBACK TO taskloop_submit")
            raise
        if not alone:
            db.execute("RELEASE taskloop_submit")
        if alone and db.isolation_level is None:  # where the module begins transactions itself, the caller commits
            db.execute("COMMIT")
        return answer
    finally:
        db.row_factory, db.text_factory = factories


class SqliteBeater:
    """Beats from a thread of its own; each beat is one small transaction that no flush of the disk holds up."""

    def __init__(self, place: FilePlace, worker: Worker) -> None:
        self._place = place
        self._worker = worker
        self._db: sqlite3.Connection | None = None

    def beat(self, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        try:
            return self._beat(microseconds(now), tick, told(dict(health)))
        except (sqlite3.Error, OSError, ValueError) as error:
            self.close()
            raise explained(error, self._place.path) from error

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _beat(self, now: int, tick: float, health: str | None) -> bool:
        self._place.check()
        if self._db is None:
            self._db = connect(self._place.path, create=False)
            self._db.execute("PRAGMA synchronous = NORMAL")  # a beat that a power cut takes away is no loss
        self._db.execute("BEGIN IMMEDIATE")
        try:
            lives = keeping.beat(self._db, self._worker, now, tick, health)
            _refuse_newer(self._db, self._place.path)
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        return lives


def _refuse_newer(db: sqlite3.Connection, path: str) -> None:
    (found,) = db.execute("SELECT value FROM taskloop_meta WHERE key = 'schema'").fetchone()
    if int(found) > newest():
        raise TakenOver(f"sqlite:///{path}", int(found), newest())
