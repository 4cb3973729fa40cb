"""Many rows in few steps of SQLite; what stands in them is said in `rows`.

Level 5. Plain functions of a connection, called on its thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain, compress, count
from typing import Any, Final

from taskloop.rows import Column, Row

__all__ = ["fetched", "many", "many_by_columns"]

_CHUNKS: Final = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one statement: few sizes, so that few statements are kept prepared; and each number is made of few."""
_WORTH_A_LOOK: Final = 16
"""Rows from which on a value that all of them share is given once: of 23 values a run, 17 are those of the run before."""


def many(db: sqlite3.Connection, statement: Callable[[str], str], rows: Sequence[Row]) -> int:
    """Run a statement over rows given as `VALUES`, in few steps; gives the number of rows changed."""
    return many_by_columns(db, statement, list(zip(*rows, strict=True)))


def many_by_columns(db: sqlite3.Connection, statement: Callable[[str], str], columns: Sequence[Column]) -> int:
    """`many` of rows that are given as their columns; none: there are no rows."""
    number = len(columns[0]) if columns else 0
    changed, start = 0, 0
    for size in _CHUNKS:
        while number - start >= size:
            text, values = _given(statement, [column[start : start + size] for column in columns], size)
            changed += db.execute(text, values).rowcount
            start += size
    return changed


def _given(statement: Callable[[str], str], columns: Sequence[Column], rows: int) -> tuple[str, list[Any]]:
    """The text of a statement over these rows, and the values to put in."""
    if rows < _WORTH_A_LOOK:
        return _with_values(statement, rows, len(columns)), list(chain.from_iterable(zip(*columns, strict=True)))
    own = tuple(not place or column.count(column[0]) < rows for place, column in enumerate(columns))
    values = [column[0] for column, differs in zip(columns, own, strict=True) if not differs]
    values += chain.from_iterable(zip(*compress(columns, own), strict=True))
    return _with_shared_values(statement, rows, own), values


@lru_cache(256)
def _with_values(statement: Callable[[str], str], rows: int, columns: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return statement("VALUES " + ",".join([row] * rows))


@lru_cache(256)
def _with_shared_values(statement: Callable[[str], str], rows: int, own: tuple[bool, ...]) -> str:
    """`own`: which columns each row has a value of its own in; those of the others come first, once.

    The columns are named as those of VALUES are.
    """
    numbers = count(1)
    columns = (
        f"{f'w.column{next(numbers)}' if differs else '?'} AS column{place}" for place, differs in enumerate(own, 1)
    )
    row = "(" + ",".join("?" * sum(own)) + ")"
    # Without a WHERE the words ON CONFLICT, which may follow, would be read as part of a join.
    return statement(f"SELECT {','.join(columns)} FROM (VALUES {','.join([row] * rows)}) AS w WHERE true")


def fetched(db: sqlite3.Connection, columns: Sequence[str], rest: str, values: Iterable[Any] = ()) -> list[list[Any]]:
    """Rows of a SELECT in one step: `rest` is what follows the columns."""
    select = f"SELECT json_group_array(json_array({','.join(columns)})) FROM (SELECT {','.join(columns)} {rest})"
    found: list[list[Any]] = json.loads(db.execute(select, list(values)).fetchone()[0])
    return found
