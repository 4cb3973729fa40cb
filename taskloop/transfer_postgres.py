"""A PostgreSQL store as `copying` sees it: its tables read in one look, or written in one transaction.

Level 5. Each copy has a connection of its own. Start at `export` and `take_in`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from taskloop.copying import BATCH_CHARACTERS, BATCH_ROWS, OWN, TABLES, Batch, Row, not_empty
from taskloop.rows_postgres import heard, kept
from taskloop.server_postgres import let_go

if TYPE_CHECKING:
    from taskloop.store_postgres import PostgresStore

__all__ = ["export", "take_in"]

_COUNTED: Final = ("log", "switches", "wishes", "incidents", "audit")
"""Tables that number their rows themselves; the ids of runs come from a sequence of their own."""
_NOT_OWN: Final = " AND ".join(f"key <> '{key}' AND NOT starts_with(key, '{key} ')" for key in OWN)
"""Some have the name of what they are about behind them."""
_FREE: Final = {"actor", "reason", "key", "summary", "ended_by", "ended_because", "revoked_by", "revoked_because"}
"""Columns in which anybody may have said anything, NUL too, which is written in another way here; and names of steps."""
_LOCK: Final = "LOCK TABLE taskloop.runs, taskloop.schedules, taskloop.jobs IN EXCLUSIVE MODE"
_LASTS: Final = """
    SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN '14s' ELSE '0' END, true) FROM pg_settings
    WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'lock_timeout')
"""
"""Lets this transaction last as long as it takes, whatever the administrator gives others: while one store writes the other
is idle. A server that does not know one of these settings has no need of it. Who waits for a lock is told so all the same.
"""
CLOSE_SECONDS: Final = 5.0


async def export(store: PostgresStore) -> AsyncGenerator[Batch, None]:
    """Every table, by key; one consistent look."""
    async with _apart(store, isolation="repeatable_read", readonly=True) as connection:
        for table, (keys, columns) in TABLES.items():
            where = f"WHERE {_NOT_OWN}" if table == "meta" else ""
            rows: list[Row] = []
            size = 0
            async for row in connection.cursor(
                f"SELECT {_names(columns)} FROM taskloop.{table} {where} ORDER BY {_names(columns[:keys])}", prefetch=50
            ):
                rows.append(_changed(table, row, heard))
                size += sum(len(value) for value in row if isinstance(value, str))
                if len(rows) == BATCH_ROWS or size > BATCH_CHARACTERS:
                    yield Batch(table, rows)
                    rows, size = [], 0
            if rows:
                yield Batch(table, rows)


async def take_in(store: PostgresStore, batches: AsyncIterator[Batch]) -> None:
    """Write all rows in one transaction. Raises `Conflict` where there are some already."""
    async with _apart(store, isolation="read_committed") as connection:
        await connection.execute(_LOCK)  # nobody else begins while this goes on
        counts = {
            table: await connection.fetchval(f"SELECT count(*) FROM taskloop.{table}")
            for table in TABLES
            if table != "meta"
        }
        if any(counts.values()):
            raise not_empty(store.url, counts)
        async for batch in batches:
            await _insert(connection, batch)
        for table in _COUNTED:
            await connection.execute(
                f"SELECT setval(pg_get_serial_sequence('taskloop.{table}', 'id'), max(id)) FROM taskloop.{table} HAVING max(id) > 0"
            )
        await connection.execute("SELECT setval('taskloop.run_ids', max(id)) FROM taskloop.runs HAVING max(id) > 0")


async def _insert(connection: Any, batch: Batch) -> None:
    rows = [_changed(batch.table, row, kept) for row in batch.rows]
    columns = TABLES[batch.table][1]
    if batch.table == "meta":
        await connection.executemany(
            "INSERT INTO taskloop.meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", rows
        )
    elif batch.table == "daily":  # a view: the counters are kept in shards
        shard = [[*row, 0] for row in rows]
        await _copy(connection, "counters", (*columns, "shard"), shard)
    else:
        await _copy(connection, batch.table, columns, rows)


async def _copy(connection: Any, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    await connection.copy_records_to_table(table, schema_name="taskloop", columns=columns, records=rows)


@asynccontextmanager
async def _apart(store: PostgresStore, **kind: Any) -> AsyncIterator[Any]:
    """A transaction on a connection of its own, which is closed at the end; errors are told as the store tells them."""
    connection = await store._server.connect()
    try:
        around = connection.transaction(**kind)
        await around.start()
        await connection.execute(_LASTS)
        yield connection
        await around.commit()  # else the closing rolls it back; the driver's own fails where the connection is gone
    except Exception as error:
        told = store._server.explained(error)
        if told is error:
            raise
        raise told from error
    finally:
        await let_go(connection, CLOSE_SECONDS)


def _changed(table: str, row: Row, change: Callable[[str], str | None]) -> Row:
    return [
        change(value) if type(value) is str and (column in _FREE or (table, column) == ("steps", "name")) else value
        for column, value in zip(TABLES[table][1], row, strict=True)
    ]


def _names(columns: Sequence[str]) -> str:
    return ",".join(f'"{column}"' for column in columns)
