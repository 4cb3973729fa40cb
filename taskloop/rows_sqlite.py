"""Many rows in few steps of SQLite; what stands in them is said in `rows`.

Level 5. Plain functions of a connection, called on its thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from taskloop.rows import Row

__all__ = ["many"]

_CHUNKS: Final = (256, 64, 16, 4, 1)
"""Rows of one statement: few sizes, so that few statements are kept prepared."""


def many(db: sqlite3.Connection, statement: Callable[[str], str], rows: Sequence[Row]) -> int:
    """Run a statement over rows given as `VALUES`, in few steps; gives the number of rows changed."""
    changed, start = 0, 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            part = rows[start : start + size]
            text = _with_values(statement, size, len(part[0]))
            changed += db.execute(text, [value for row in part for value in row]).rowcount
            start += size
    return changed


@cache
def _with_values(statement: Callable[[str], str], rows: int, columns: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return statement("VALUES " + ",".join([row] * rows))
