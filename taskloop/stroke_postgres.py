"""The way that nearly every run takes, in one statement of PostgreSQL: asked for by one, ended by another, all at once.

Level 5. A transaction of many statements costs a way to the server and back for each. Where a batch has nothing but runs
that are asked for without a key, and ends that are final, one statement does all of it, and is a transaction by itself.
What does not fit goes the long way (`statements_postgres`). Start at `fits` and `carry_out`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from taskloop.fates import PLAIN_COLUMNS, SETTLED_COLUMNS, is_plain
from taskloop.rows import Column, is_new
from taskloop.rows_postgres import (
    NEW_TYPES,
    RUN_TYPES,
    STILL_OWNED,
    Db,
    new_arrays,
    run_row,
    unnested,
)
from taskloop.runs import Run
from taskloop.statements_postgres import (
    COUNT,
    FORGET_WISHES,
    SETTLED_TYPES,
    numbers,
    plainly_settled_rows,
    settled_row,
    stands,
)
from taskloop.steps import FROM_STEP
from taskloop.store_data import Settling

__all__ = ["Ids", "Stroke", "answers", "carry_out", "fits", "prepared"]


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
    """As the settlings are written, of PLAIN_COLUMNS where they are `plain`, else of SETTLED_COLUMNS; and their owners."""
    calls: Sequence[Sequence[Run]]
    """Runs with their ids: known before they are written, so that a lost answer is no loss."""
    plain: bool
    """Whether all the settlings are plain ends."""


BUSY: Final = 4
"""Runs of a batch from which on the next is given its ids beforehand; a person who asks for one now and then sees no gaps."""
FRESH_SECONDS: Final = 0.1
"""For how long ids that were given beforehand are used: what is asked for later elsewhere is to have greater ones."""


class Ids:
    """Ids that a batch has brought along for the runs of the next, which so need not ask: a way to the server less."""

    def __init__(self) -> None:
        self._left: list[int] = []
        self._since = 0.0

    def keep(self, ids: Sequence[int]) -> None:
        self._left, self._since = [*ids], time.monotonic()

    async def take(self, db: Db, number: int) -> Iterator[int]:
        """So many, growing."""
        if time.monotonic() - self._since > FRESH_SECONDS or len(self._left) < number:
            self._left = []
            return iter(await numbers(db, number) if number else [])
        taken, self._left = self._left[:number], self._left[number:]
        return iter(taken)


async def prepared(db: Db, batch: Sequence[tuple[str, Any]], ids: Ids) -> Stroke:
    settlings = [work for verb, work in batch if verb == "settle"]
    calls = [work for verb, work in batch if verb == "submit"]
    given = await ids.take(db, sum(map(len, calls)))
    named = [[run.changed(id=next(given)) for run in runs] for runs in calls]
    plain = all(map(is_plain, settlings))
    rows = plainly_settled_rows(settlings) if plain else [settled_row(one) for one in settlings]
    return Stroke(settlings, rows, named, plain)


async def carry_out(
    db: Db, stroke: Stroke, name: str, writes: int | None, newest: int, ids: Ids
) -> tuple[int | None, str, set[tuple[int, int]]]:
    """Write it all, if `name` has written so often until now; gives how often it has then (None: it had not, or a newer
    schema is there, and nothing was written), the number of the schema, and the runs, by id and token, that were ended.
    `ids` are given what the next batch may need.
    """
    runs = [run for call in stroke.calls for run in call]
    firsts = {row[:2]: row for row in reversed(stroke.rows)}
    ends = _columns(_PLAIN_TYPES if stroke.plain else SETTLED_TYPES, zip(*firsts.values(), strict=True))
    new = all(map(is_new, runs))
    written = new_arrays(runs) if new else zip(*map(run_row, runs), strict=True)
    begins = _columns(NEW_TYPES if new else RUN_TYPES, written)
    given = (*ends.values(), *begins.values())
    ahead = len(runs) if len(runs) >= BUSY else 0
    text = _text(tuple(ends), tuple(begins), stroke.plain)
    now, schema, ended, tokens, more = await db.fetchrow(text, name, newest, writes, ahead, *given)
    if more:
        ids.keep(more)
    return now, schema, set(zip(ended or (), tokens or (), strict=True))


_PLAIN_TYPES: Final = {name: SETTLED_TYPES[name] for name in (*PLAIN_COLUMNS, "owner")}
_RARE: Final = frozenset(RUN_TYPES) - {
    "id", "job", "state", "cause", "params", "attempt", "attempts", "due_at", "ready_at", "created_at", "started_at",
    "attempt_started_at", "ended_at", "worker", "token", "priority", "summary", "result", "count",
}  # fmt: skip
"""Columns that most batches have nothing in; left out, all together, of one that has nothing in any of them."""


def _columns(types: Mapping[str, str], columns: Iterable[Column]) -> dict[str, Column]:
    """Columns by name; none of no rows."""
    found = dict(zip(types, columns, strict=False))
    rare = [name for name in found if name in _RARE]
    if all(found[name].count(None) == len(found[name]) for name in rare):
        for name in rare:
            del found[name]
    return found


@cache
def _text(ends: tuple[str, ...], begins: tuple[str, ...], plain: bool) -> str:
    """The statement for these columns of ends, and of runs that are asked for; none of either: it has nothing of that.

    `plain`: an end changes no other columns; else those that were left out have nothing in them.
    """
    schema = "(SELECT value FROM taskloop.meta WHERE key = 'schema')"
    parts = [  # which all others need a row of: without it they write nothing
        (
            "mine AS (UPDATE taskloop.writers SET writes = writes + 1, at = now() WHERE id = $1 AND writes = $3 "
            f"AND {schema}::int <= $2::int RETURNING writes)"
        )
    ]
    first = 5
    if ends:
        changes = ",".join(
            f"{name} = {f'v.{name}' if name in ends else 'NULL'}"
            for name in (PLAIN_COLUMNS if plain else SETTLED_COLUMNS)[2:]
        )
        given = {name: SETTLED_TYPES[name] for name in ends}
        parts.append(
            f"done AS (UPDATE taskloop.runs r SET {changes} FROM {unnested(given, first=first)}, mine "
            f"WHERE {STILL_OWNED} RETURNING r.id, r.token, r.job, r.state, r.count, r.started_at, r.ended_at), "
            f"counted AS ({COUNT}), forgotten AS ({FORGET_WISHES})"
        )
        first += len(ends)
    if begins:
        names = ",".join(f"v.{name}" for name in begins)
        given = {name: RUN_TYPES[name] for name in begins}
        parts.append(
            f"begun AS (INSERT INTO taskloop.runs ({','.join(begins)}) SELECT {names} FROM {unnested(given, first=first)}, mine)"
        )
    ended = "(SELECT array_agg(id) FROM done), (SELECT array_agg(token) FROM done)" if ends else "NULL, NULL"
    more = "(SELECT array_agg(nextval('taskloop.run_ids')) FROM generate_series(1, $4::int))"
    return f"WITH {', '.join(parts)} SELECT (SELECT writes FROM mine), {schema}, {ended}, {more}"


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
        which = row[:2]
        wrote = done is not None and which in done and which not in seen
        seen.add(which)
        found.append(one.after if wrote or await stands(db, settled_row(one)) else None)
    return found
