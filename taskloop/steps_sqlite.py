"""Steps and logs of runs in SQLite: written only while their run is still the writer's, and gone with it.

Level 5. Plain functions of a connection, called on its thread, like those of `statements_sqlite`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from taskloop.clock import microseconds
from taskloop.rows import Row, instant, moment, part_of, read_failure, read_lines, write_failure, write_result
from taskloop.rows_sqlite import many
from taskloop.runs import Run, RunId
from taskloop.steps import FROM_STEP, KEPT_ATTEMPTS, LogLine, Step, StepState

__all__ = ["copy_kept", "delete", "lines", "log", "logs", "put", "steps"]

STEP_COLUMNS: Final = (
    "run",
    "name",
    "place",
    "state",
    "attempt",
    "started_at",
    "ended_at",
    "result",
    "error",
    "kept",
)


def _put_steps(values: str) -> str:
    columns = ",".join(STEP_COLUMNS)
    taken = ",".join(f"v.column{place}" for place in range(1, len(STEP_COLUMNS) + 1))
    changes = ",".join(f"{name} = excluded.{name}" for name in STEP_COLUMNS[2:])
    return (
        f"INSERT INTO taskloop_steps ({columns}) SELECT {taken} FROM ({values}) AS v WHERE EXISTS "
        f"(SELECT 1 FROM taskloop_runs r WHERE r.id = v.column1 AND r.token = v.column{len(STEP_COLUMNS) + 1} "
        f"AND r.state = 'running') ON CONFLICT (run, name) DO UPDATE SET {changes}"
    )


def put(db: sqlite3.Connection, calls: Sequence[tuple[Run, Sequence[Step]]]) -> list[bool]:
    """Write how steps stand; gives for each call whether its run is still the caller's. If not, nothing is changed."""
    rows = [(*_row(run, step), run.token) for run, steps in calls for step in steps]
    if many(db, _put_steps, rows) == len(rows):
        return [True] * len(calls)
    return [_is_held(db, run) for run, _ in calls]


def _is_held(db: sqlite3.Connection, run: Run) -> bool:
    held = "SELECT 1 FROM taskloop_runs WHERE id = ? AND token = ? AND state = 'running'"
    return db.execute(held, (run.id, run.token)).fetchone() is not None


def _row(run: Run, step: Step) -> Row:
    return (
        run.id,
        step.name,
        step.place,
        step.state.value,
        step.attempt,
        moment(step.started_at),
        moment(step.ended_at),
        write_result(step.result),
        write_failure(step.error),
        int(step.kept),
    )


def steps(db: sqlite3.Connection, run: RunId) -> list[Step]:
    """The steps of a run, in their order."""
    rows = db.execute(
        f"SELECT {','.join(STEP_COLUMNS[1:])} FROM taskloop_steps WHERE run = ? ORDER BY place, name", (run,)
    ).fetchall()
    return [
        Step(
            name=row[0], place=row[1], state=StepState(row[2]), attempt=row[3], started_at=instant(row[4]),
            ended_at=instant(row[5]), result=json.loads(row[6]) if row[6] else None,
            error=read_failure(row[7]), kept=bool(row[8])
        )
        for row in rows
    ]  # fmt: skip


def copy_kept(db: sqlite3.Connection, runs: Iterable[Run]) -> None:
    """Give new runs the results of the runs they repeat, where they begin at a step."""
    columns = ",".join(STEP_COLUMNS[1:9])
    for run in runs:
        if run.rerun_of is not None and FROM_STEP in run.data and not run.existed:
            db.execute(
                f"INSERT INTO taskloop_steps (run, {columns}, kept) SELECT ?, {columns}, 1 FROM taskloop_steps "
                "WHERE run = ? AND state = 'succeeded'",
                (run.id, run.rerun_of),
            )


# -- logs


def logs(db: sqlite3.Connection, calls: Sequence[Sequence[tuple[Run, Sequence[LogLine]]]]) -> list[None]:
    """Keep what several callers have heard."""
    for reports in calls:
        log(db, reports)
    return [None] * len(calls)


def log(db: sqlite3.Connection, reports: Iterable[tuple[Run, Sequence[LogLine]]]) -> None:
    """Keep lines of runs that are the writer's, or were until just now, and of each the newest attempts."""
    for run, said in reports:
        text = json.dumps(
            [[microseconds(line.at), line.level, line.text, line.step] for line in said],
            separators=(",", ":"),
            ensure_ascii=False,
        )
        db.execute(
            "INSERT INTO taskloop_log (run, token, lines) SELECT id, token, ? FROM taskloop_runs "
            "WHERE id = ? AND token = ?",
            (text, run.id, run.token),
        )
        if run.token > KEPT_ATTEMPTS:
            db.execute("DELETE FROM taskloop_log WHERE run = ? AND token <= ?", (run.id, run.token - KEPT_ATTEMPTS))


def lines(db: sqlite3.Connection, run: RunId, after: int, limit: int) -> tuple[list[LogLine], int]:
    """Lines of a run from the place `after` on, `limit` at most, and the place of what follows them."""
    rows = db.execute(
        "SELECT id, lines FROM taskloop_log WHERE run = ? AND id >= ? ORDER BY id LIMIT ?", (run, part_of(after), limit)
    ).fetchall()
    return read_lines(rows, after, limit)


def delete(db: sqlite3.Connection, ids: str) -> None:
    """Delete what belongs to runs, given as a JSON list of their ids."""
    for table in ("taskloop_steps", "taskloop_log"):
        db.execute(f"DELETE FROM {table} WHERE run IN (SELECT value FROM json_each(?))", (ids,))
