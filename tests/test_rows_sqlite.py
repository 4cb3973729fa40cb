"""Many rows in few steps come to the same as one after the other, whatever values they share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as some

from taskloop.rows_sqlite import many

VALUES = some.none() | some.integers(-2, 2) | some.sampled_from(["", "a", "é", "1"]) | some.binary(max_size=2)


@some.composite
def tables(draw: some.DrawFn) -> list[tuple[object, ...]]:
    """Rows of an id and three columns; in some columns all have the same."""
    number = draw(some.integers(1, 90))
    shared = [draw(some.booleans()) for _ in range(3)]
    columns = [
        [draw(VALUES)] * number if is_shared else draw(some.lists(VALUES, min_size=number, max_size=number))
        for is_shared in shared
    ]
    return [(place, *values) for place, values in enumerate(zip(*columns, strict=True))]


def insert(values: str) -> str:
    return f"INSERT INTO t {values} ON CONFLICT (id) DO UPDATE SET a = 'again'"


def change(values: str) -> str:
    return f"UPDATE t SET b = v.column3 FROM ({values}) AS v WHERE t.id = v.column1 AND t.a IS v.column2"


def drop(values: str) -> str:
    return f"DELETE FROM t WHERE id IN ({values})"


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c)")
        yield made


def stands(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    return db.execute("SELECT * FROM t ORDER BY id").fetchall()


@given(rows=tables())
def test_rows_are_inserted_changed_and_dropped_as_they_were_given(db, rows):
    db.execute("DELETE FROM t")
    assert many(db, insert, rows) == len(rows) and stands(db) == rows
    even = [(place, first, "new") for place, first, *_ in rows if place % 2 == 0]
    assert many(db, change, even) == len(even)
    assert stands(db) == [(place, a, b if place % 2 else "new", c) for place, a, b, c in rows]
    assert many(db, change, [(place, "another", 0) for place, *_ in rows]) == 0
    assert many(db, insert, rows) == len(rows) and {row[1] for row in stands(db)} == {"again"}
    assert many(db, drop, [row[:1] for row in even]) == len(even)
    assert [row[0] for row in stands(db)] == [place for place, *_ in rows if place % 2]
