"""Steps and logs of runs in PostgreSQL: written only while their run is still the writer's, and gone with it.

Level 5. Plain functions of a connection, each a part of a transaction, like those of `statements_postgres`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

from taskloop.clock import microseconds
from taskloop.rows import Row, instant, moment, part_of, read_failure, read_lines, write_failure, write_result
from taskloop.rows_postgres import ONE_BY_ONE, STILL_OWNED, Db, arrays, heard, kept, unnested
from taskloop.runs import Run, RunId
from taskloop.steps import FROM_STEP, KEPT_ATTEMPTS, LogLine, Step, StepState

__all__ = ["copy_kept", "delete", "lines", "log", "logs", "put", "steps"]

STEP_TYPES: Final = {
    "run": "bigint",
    "name": "text",
    "place": "bigint",
    "state": "text",
    "attempt": "bigint",
    "started_at": "bigint",
    "ended_at": "bigint",
    "result": "text",
    "error": "text",
    "kept": "smallint",
}
_COLUMNS: Final = ",".join(STEP_TYPES)
_PUT: Final = (
    f"INSERT INTO taskloop.steps ({_COLUMNS}) SELECT {','.join('v.' + name for name in STEP_TYPES)} "
    f"FROM {unnested({**STEP_TYPES, 'token': 'bigint'})} JOIN taskloop.runs r ON r.id = v.run AND r.token = v.token "
    "AND r.state = 'running' ON CONFLICT (run, name) DO UPDATE SET "
    + ",".join(f"{name} = excluded.{name}" for name in STEP_TYPES if name not in ("run", "name"))
)


async def put(db: Db, calls: Sequence[tuple[Run, Sequence[Step]]]) -> list[bool]:
    """Write how steps stand; gives for each call whether its run is still the caller's. If not, nothing is changed."""
    runs = {(run.id, run.token, run.worker) for run, steps in calls}
    held = {
        (row[0], row[1])  # held until we commit: nobody takes the run over between the look and the writing
        for row in await db.fetch(
            "SELECT r.id, r.token FROM taskloop.runs r JOIN unnest($1::bigint[], $2::bigint[], $3::text[]) v(id, token, owner) "
            f"ON {STILL_OWNED} ORDER BY r.id FOR NO KEY UPDATE OF r",
            *arrays(runs, 3),
        )
    }
    last = {
        (run.id, step.name): (*_row(run, step), run.token)
        for run, steps in calls
        for step in steps
        if (run.id, run.token) in held
    }
    if last:
        await db.execute(_PUT, *arrays(last.values(), len(STEP_TYPES) + 1))
    return [(run.id, run.token) in held for run, _ in calls]


def _row(run: Run, step: Step) -> Row:
    return (
        run.id,
        kept(step.name),
        step.place,
        step.state.value,
        step.attempt,
        moment(step.started_at),
        moment(step.ended_at),
        write_result(step.result),
        write_failure(step.error),
        int(step.kept),
    )


async def steps(db: Db, run: RunId) -> list[Step]:
    """The steps of a run, in their order."""
    rows = await db.fetch(f"SELECT {_COLUMNS} FROM taskloop.steps WHERE run = $1 ORDER BY place, name", run)
    return [
        Step(
            name=str(heard(row[1])), place=row[2], state=StepState(row[3]), attempt=row[4], started_at=instant(row[5]),
            ended_at=instant(row[6]), result=json.loads(row[7]) if row[7] else None,
            error=read_failure(row[8]), kept=bool(row[9])
        )
        for row in rows
    ]  # fmt: skip


async def copy_kept(db: Db, runs: Iterable[Run]) -> None:
    """Give new runs the results of the runs they repeat, where they begin at a step."""
    columns = ",".join(name for name in STEP_TYPES if name not in ("run", "kept"))
    for run in runs:
        if run.rerun_of is not None and FROM_STEP in run.data and not run.existed:
            await db.execute(
                f"INSERT INTO taskloop.steps (run, {columns}, kept) SELECT $1, {columns}, 1 FROM taskloop.steps "
                "WHERE run = $2 AND state = 'succeeded'",
                run.id, run.rerun_of,
            )  # fmt: skip


# -- logs


async def logs(db: Db, calls: Sequence[Sequence[tuple[Run, Sequence[LogLine]]]]) -> list[None]:
    """Keep what several callers have heard."""
    await log(db, [report for reports in calls for report in reports])
    return [None] * len(calls)


async def log(db: Db, reports: Sequence[tuple[Run, Sequence[LogLine]]]) -> None:
    """Keep lines of runs that are the writer's, or were until just now, and of each the newest attempts."""
    if not reports:
        return
    rows = [
        (
            place,
            run.id,
            run.token,
            json.dumps(
                [[microseconds(line.at), line.level, line.text, line.step] for line in said],
                separators=(",", ":"),
                ensure_ascii=False,
            ),
        )
        for place, (run, said) in enumerate(reports)
    ]
    await db.execute(
        "INSERT INTO taskloop.log (run, token, lines) SELECT v.id, v.token, v.lines "
        "FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) v(place, id, token, lines) "
        f"JOIN taskloop.runs r ON r.id = v.id AND r.token = v.token WHERE {ONE_BY_ONE} ORDER BY v.place",
        *arrays(rows, 4),
    )
    old = {(run.id, run.token - KEPT_ATTEMPTS) for run, _ in reports if run.token > KEPT_ATTEMPTS}
    if old:
        await db.execute(
            "DELETE FROM taskloop.log l USING unnest($1::bigint[], $2::bigint[]) v(run, token) "
            "WHERE l.run = v.run AND l.token <= v.token",
            *arrays(old, 2),
        )


async def lines(db: Db, run: RunId, after: int, limit: int) -> tuple[list[LogLine], int]:
    """Lines of a run from the place `after` on, `limit` at most, and the place of what follows them."""
    query = "SELECT id, lines FROM taskloop.log WHERE run = $1 AND id >= $2 ORDER BY id LIMIT $3"
    rows = await db.fetch(query, run, part_of(after), limit)
    return read_lines(rows, after, limit)


async def delete(db: Db, ids: Sequence[int]) -> None:
    """Delete what belongs to runs."""
    for table in ("steps", "log"):
        await db.execute(f"DELETE FROM taskloop.{table} WHERE run = ANY($1::bigint[])", ids)
