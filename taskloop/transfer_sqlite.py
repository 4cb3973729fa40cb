"""An SQLite store as `copying` sees it: its tables read in one look, or written in one transaction.

Level 5. Each copy has a connection of its own; what happens on it happens on its thread. Start at `export` and `take_in`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from taskloop.batches_sqlite import where_it_stood
from taskloop.copying import BATCH_CHARACTERS, BATCH_ROWS, OWN, TABLES, Batch, Row, not_empty
from taskloop.errors import BadStore
from taskloop.threads_sqlite import CLOSE_SECONDS, let_go

if TYPE_CHECKING:
    from taskloop.store_sqlite import SqliteStore

__all__ = ["export", "take_in"]

Hop = Callable[..., Any]
_OWN: Final = ",".join(f"'{key}'" for key in OWN)


async def export(store: SqliteStore) -> AsyncGenerator[Batch, None]:
    """Every table, by key; one consistent look."""
    async with _apart(store) as hop:
        await hop(_execute, "BEGIN")
        for table in TABLES:
            after: Row | None = None
            while rows := await hop(_rows, table, after):
                yield Batch(table, rows)
                after = rows[-1]


async def take_in(store: SqliteStore, batches: AsyncIterator[Batch]) -> None:
    """Write all rows in one transaction. Raises `Conflict` where there are some already."""
    async with _apart(store) as hop:
        await hop(_execute, "BEGIN IMMEDIATE")  # closing the connection before the COMMIT undoes all of it
        counts = await hop(_counts)
        if any(counts.values()):
            raise not_empty(store.url, counts)
        async for batch in batches:
            await hop(_insert, batch)
        await hop(_execute, "COMMIT")


@asynccontextmanager
async def _apart(store: SqliteStore) -> AsyncIterator[Hop]:
    """Calls on a connection of their own, closed at the end; errors are told as the store tells them."""
    if store._place is None:
        raise BadStore(f"store {store.url} is in memory, where nobody else can copy it; name a file")
    place = store._place
    connection = await store._connect(create=False, path=place.path)

    async def hop(function: Callable[..., Any], *args: Any) -> Any:
        try:
            return await store._hop(connection, where_it_stood, place, function, *args)
        except (sqlite3.Error, OSError) as error:
            raise store._explained(error) from error

    try:
        yield hop
    finally:
        await let_go([connection], CLOSE_SECONDS)  # which undoes what is not committed


def _execute(db: sqlite3.Connection, statement: str) -> None:
    db.execute(statement)


def _names(columns: Sequence[str]) -> str:
    return ",".join(f'"{column}"' for column in columns)


def _rows(db: sqlite3.Connection, table: str, after: Row | None) -> list[Row]:
    keys, columns = TABLES[table]
    key = _names(columns[:keys])
    conditions = [f"key NOT IN ({_OWN})"] if table == "meta" else []
    values: Row = ()
    if after is not None:
        conditions.append(f"({key}) > ({','.join('?' * keys)})")
        values = after[:keys]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    found: list[Row] = []
    size = 0
    for row in db.execute(
        f"SELECT {_names(columns)} FROM taskloop_{table} {where} ORDER BY {key} LIMIT {BATCH_ROWS}", values
    ):
        found.append(row)
        size += sum(len(value) for value in row if isinstance(value, str))
        if size > BATCH_CHARACTERS:
            break
    return found


def _counts(db: sqlite3.Connection) -> dict[str, int]:
    """How many rows each table has, those of the store itself left out."""
    return {
        table: db.execute(f"SELECT count(*) FROM taskloop_{table}").fetchone()[0] for table in TABLES if table != "meta"
    }


def _insert(db: sqlite3.Connection, batch: Batch) -> None:
    columns = TABLES[batch.table][1]
    verb = "INSERT OR REPLACE" if batch.table == "meta" else "INSERT"
    values = ",".join("?" * len(columns))
    db.executemany(f"{verb} INTO taskloop_{batch.table} ({_names(columns)}) VALUES ({values})", batch.rows)
