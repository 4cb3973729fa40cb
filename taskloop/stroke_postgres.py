"""The way that nearly every run takes, in one statement of PostgreSQL: asked for by one, ended by another, all at once.

Level 5. A transaction of many statements costs a way to the server and back for each. Where a batch has nothing but runs
that are asked for without a key, and ends that are final, one statement does all of it, and is a transaction by itself.
What does not fit goes the long way (`statements_postgres`). Start at `fits` and `carry_out`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from taskloop.rows_postgres import RUN, RUN_TYPES, Db, arrays, run_row, unnested
from taskloop.runs import Run
from taskloop.statements_postgres import COUNT, SETTLED_TYPES, numbers, settled_row, stands
from taskloop.steps import FROM_STEP
from taskloop.store import Settling

__all__ = ["FIRST", "NEXT", "Stroke", "answers", "carry_out", "fits", "prepared"]


FIRST: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""From where a process counts how often it has written: a row that is put away, and made again, never has a number twice."""
NEXT: Final = f"greatest(w.writes + 1, {FIRST})"
"""How often after one more; a row that was only asked about has 0."""


def fits(batch: Sequence[tuple[str, Any]]) -> bool:
    """Whether a batch can be carried out by one statement."""
    return all(
        (verb == "settle" and _is_plain_end(work)) or (verb == "submit" and all(map(_is_plain, work)))
        for verb, work in batch
    )


def _is_plain(run: Run) -> bool:
    return run.key is None and (run.rerun_of is None or FROM_STEP not in run.data)


def _is_plain_end(one: Settling) -> bool:
    return one.after.final and not one.for_the_dead and not one.lines and one.breaker is None


class Stroke(NamedTuple):
    """A batch, ready to be carried out."""

    settlings: Sequence[Settling]
    rows: Sequence[tuple[Any, ...]]
    """As the settlings are written."""
    calls: Sequence[Sequence[Run]]
    """Runs with their ids: known before they are written, so that a lost answer is no loss."""


async def prepared(db: Db, batch: Sequence[tuple[str, Any]]) -> Stroke:
    settlings = [work for verb, work in batch if verb == "settle"]
    calls = [work for verb, work in batch if verb == "submit"]
    number = sum(map(len, calls))
    ids = iter(await numbers(db, number) if number else [])
    named = [[run.changed(id=next(ids)) for run in runs] for runs in calls]
    return Stroke(settlings, [settled_row(one) for one in settlings], named)


async def carry_out(db: Db, stroke: Stroke, name: str, newest: int) -> tuple[int | None, str, set[tuple[int, int]]]:
    """Write it all; gives how often `name` has written now (None: a newer schema is there, and nothing was written), the
    number of the schema, and the runs, by id and token, that were ended.
    """
    runs = [run for call in stroke.calls for run in call]
    given: list[Any] = [name, newest]
    if stroke.rows:
        firsts = {row[:2]: row for row in reversed(stroke.rows)}
        given += arrays(firsts.values(), len(SETTLED_TYPES))
    if runs:
        given += arrays(map(run_row, runs), len(RUN_TYPES))
    writes, schema, ended, tokens = await db.fetchrow(_text(bool(stroke.rows), bool(runs)), *given)
    return writes, schema, set(zip(ended or (), tokens or (), strict=True))


@cache
def _text(ends: bool, begins: bool) -> str:
    """The statement, with or without ends, with or without runs that are asked for."""
    parts = ["ok AS MATERIALIZED (SELECT value, value::int <= $2::int AS ok FROM taskloop.meta WHERE key = 'schema')"]
    first = 3
    if ends:
        changes = ",".join(f"{name} = v.{name}" for name in list(SETTLED_TYPES)[2:])
        parts.append(
            f"done AS (UPDATE taskloop.runs r SET {changes} FROM {unnested(SETTLED_TYPES, first=first)}, ok "
            "WHERE ok.ok AND r.id = v.id AND r.token = v.token AND r.state = 'running' "
            "RETURNING r.id, r.token, r.job, r.state, r.count, r.started_at, r.ended_at), "
            f"counted AS ({COUNT})"
        )
        first += len(SETTLED_TYPES)
    if begins:
        names = ",".join(f"v.{name}" for name in RUN_TYPES)
        parts.append(
            f"begun AS (INSERT INTO taskloop.runs ({RUN}) SELECT {names} FROM {unnested(RUN_TYPES, first=first)}, ok WHERE ok.ok)"
        )
    parts.append(
        f"mine AS (INSERT INTO taskloop.writers AS w (id, writes) SELECT $1, {FIRST} FROM ok WHERE ok.ok "
        f"ON CONFLICT (id) DO UPDATE SET writes = {NEXT}, at = now() RETURNING writes)"
    )
    ended = "(SELECT array_agg(id) FROM done), (SELECT array_agg(token) FROM done)" if ends else "NULL, NULL"
    return f"WITH {', '.join(parts)} SELECT (SELECT writes FROM mine), (SELECT value FROM ok), {ended}"


async def answers(
    db: Db, batch: Sequence[tuple[str, Any]], stroke: Stroke, done: set[tuple[int, int]] | None
) -> list[Any]:
    """The answer to each part of a batch that was carried out; `done` None: which ends it wrote is to be read back."""
    calls = iter(stroke.calls)
    ends = iter(zip(stroke.settlings, stroke.rows, strict=True))
    seen: set[tuple[int, int]] = set()
    found: list[Any] = []
    for verb, _ in batch:
        if verb == "submit":
            found.append(list(next(calls)))
            continue
        one, row = next(ends)
        which = (row[0], row[1])
        wrote = done is not None and which in done and which not in seen
        seen.add(which)
        found.append(one.after if wrote or await stands(db, row) else None)
    return found
