"""Many rows in one statement of PostgreSQL, as one array a column; what stands in them is said in `rows`.

Level 5. A text of PostgreSQL holds every sign but NUL: what people and jobs say freely is written with that one sign
escaped. Start at `unnested`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from taskloop.rows import (
    NEW_COLUMNS,
    RUN_COLUMNS,
    SCHEDULE_COLUMNS,
    Column,
    Row,
    new_columns,
    read_run,
    read_schedule,
    write_run,
)
from taskloop.runs import Run
from taskloop.schedules import Schedule

__all__ = [
    "NEW_TYPES",
    "ONE_BY_ONE",
    "RUN",
    "RUN_TYPES",
    "SCHEDULE",
    "SCHEDULE_TYPES",
    "STILL_OWNED",
    "STILL_RUNNING",
    "Db",
    "arrays",
    "changed",
    "heard",
    "kept",
    "kept_column",
    "new_arrays",
    "read_runs",
    "read_schedules",
    "run_of",
    "run_row",
    "unnested",
]


class Db(Protocol):
    """What these rooms ask of a connection: the driver stands in `server_postgres` alone."""

    async def fetch(self, query: str, *args: Any) -> Sequence[Any]: ...

    async def fetchrow(self, query: str, *args: Any) -> Any: ...

    async def fetchval(self, query: str, *args: Any) -> Any: ...

    async def execute(self, query: str, *args: Any) -> str: ...


_NUMBERS: Final = {
    "id", "attempt", "attempts", "due_at", "until_at", "ready_at", "expires_at", "created_at", "started_at",
    "attempt_started_at", "ended_at", "token", "priority", "rerun_of", "count",
}  # fmt: skip
RUN_TYPES: Final = {name: "bigint" if name in _NUMBERS else "text" for name in RUN_COLUMNS}
NEW_TYPES: Final = {name: RUN_TYPES[name] for name in NEW_COLUMNS}
SCHEDULE_TYPES: Final = {
    name: {"enabled": "smallint"}.get(
        name, "bigint" if name in ("next_due", "last_due", "anchor", "seen_at") else "text"
    )
    for name in SCHEDULE_COLUMNS
}
RUN: Final = ",".join(RUN_COLUMNS)
ONE_BY_ONE: Final = "v.id BETWEEN 0 AND 9223372036854775807"
"""True of every row; makes the server believe that `v` has one, so that it looks up each by its id. It keeps the plan that it
once made, often while the table was empty, and then went through all runs, or for each end through all that run: a batch
of a hundred ends took three times as long.
"""
STILL_RUNNING: Final = "r.state = (SELECT 'running')"
"""As `r.state = 'running'`, but nothing to find runs by: those of a batch are found by their ids."""
STILL_OWNED: Final = f"r.id = v.id AND r.token = v.token AND r.worker = v.owner AND {STILL_RUNNING} AND {ONE_BY_ONE}"
"""That a run is still the `owner`'s who has claimed it. By its token alone it is told from its later claims; but a standby that
took over without the last that was written gives an id again, and another worker claims that run with the same token.
"""
SCHEDULE: Final = ",".join(SCHEDULE_COLUMNS)


def unnested(types: Mapping[str, str], *, first: int = 1) -> str:
    """Rows named `v` of one array a column, whose parameters are numbered from `first` on.

    In a list of columns the server takes the arrays side by side as it goes; `unnest` of many in FROM writes each into a
    store of its own first, and a tenth of the time of a batch was spent there.
    """
    columns = (f"unnest(${first + place}::{kind}[]) AS {name}" for place, (name, kind) in enumerate(types.items()))
    return f"(SELECT {', '.join(columns)}) AS v"


def arrays(rows: Iterable[Row], columns: int) -> list[list[Any]]:
    """The columns of rows, as the parameters of `unnested`."""
    return [list(one) for one in zip(*rows, strict=True)] or [[] for _ in range(columns)]


def changed(status: str) -> int:
    """How many rows a statement has changed, by what the server said of it."""
    return int(status.rpartition(" ")[2])


# -- texts

_ESCAPE: Final = "\x1a"


def kept(text: str | None) -> str | None:
    """A text as it is written: no two are written alike."""
    if text is None or ("\0" not in text and _ESCAPE not in text):
        return text
    return text.replace(_ESCAPE, _ESCAPE + "1").replace("\0", _ESCAPE + "0")


def heard(text: str | None) -> str | None:
    """What `kept` was given."""
    if text is None or _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE + "0", "\0").replace(_ESCAPE + "1", _ESCAPE)


_FREE: Final = tuple(RUN_COLUMNS.index(name) for name in ("reason", "actor", "key", "summary"))
"""Columns of runs in which anybody may have said anything."""
_FREE_OF_NEW: Final = tuple(NEW_COLUMNS.index(name) for name in ("actor", "key"))


def run_row(run: Run) -> Row:
    """The values of RUN_COLUMNS, as they are written."""
    return _kept(write_run(run), _FREE)


def new_arrays(runs: Sequence[Run]) -> list[Column]:
    """The columns of NEW_COLUMNS, as they are written; of no runs no columns."""
    columns = new_columns(runs)
    for place in _FREE_OF_NEW if columns else ():
        columns[place] = kept_column(columns[place])
    return columns


def kept_column(texts: Column) -> Column:
    return texts if texts.count(None) == len(texts) else tuple(map(kept, texts))


def _kept(row: Row, free: Sequence[int]) -> Row:
    if all(kept(row[place]) is row[place] for place in free):
        return row
    values = list(row)
    for place in free:
        values[place] = kept(values[place])
    return tuple(values)


def run_of(row: Any) -> Run:
    """The run of a row of RUN_COLUMNS."""
    values = row
    for place in _FREE:
        text = row[place]
        if text is not None and _ESCAPE in text:
            values = list(row) if values is row else values
            values[place] = heard(text)
    return read_run(values)


def read_runs(rows: Iterable[Any]) -> list[Run]:
    return [run_of(row) for row in rows]


def read_schedules(rows: Iterable[Any]) -> list[Schedule]:
    return [read_schedule(row) for row in rows]
