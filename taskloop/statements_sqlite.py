"""The statements of the SQLite store on the way of a run, but for its claim: asked for, fired, settled, cancelled.

Level 5. Plain functions of a connection, called on the store's writing thread, each a part of a transaction that somebody else
began and will commit; several callers' worth of work come as one list. Rows go in as one statement with many VALUES and come
out as one JSON text, because each step of a statement gives up the interpreter lock and has to win it back: 100 rows by
`executemany` beside a busy loop took seconds where one statement took a millisecond.
"""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from taskloop import steps_sqlite
from taskloop.clock import from_microseconds, later, microseconds
from taskloop.fates import (
    PLAIN_COLUMNS,
    SETTLED_COLUMNS,
    Made,
    admitted,
    attempted,
    cancelled,
    counted,
    is_plain,
    lengthens,
    numbered,
    outcome,
    plainly_settled,
    settled,
    too_many,
    tried,
)
from taskloop.history_sqlite import failed_in_a_row, newest_active
from taskloop.rows import (
    NEW_COLUMNS,
    RUN_COLUMNS,
    SCHEDULE_COLUMNS,
    Column,
    Row,
    columns_of,
    encode,
    is_new,
    moment,
    new_columns,
    read_run,
    read_schedule,
    schedule_columns,
    write_moments,
    write_progress,
    write_run,
)
from taskloop.rows_sqlite import fetched, many, many_by_columns
from taskloop.runs import ACTIVE, Progress, Reason, Run, RunId, State, cancelled_by, given_up
from taskloop.schedules import Schedule, cut
from taskloop.store_data import Cancelling, Fired, Firing, Settling

__all__ = [
    "cancel",
    "due",
    "fire",
    "next_id",
    "progress",
    "put_schedules",
    "settle",
    "submit",
]


PORTION: Final = 500
"""Schedules that one statement reads: its text holds the interpreter for half a millisecond."""
_NEXT_DUE: Final = SCHEDULE_COLUMNS.index("next_due")
_BEFORE_ALL: Final[Row] = (-(1 << 63), "")

# -- statements over many rows


def _insert_runs(values: str) -> str:
    return f"INSERT INTO taskloop_runs ({','.join(RUN_COLUMNS)}) {values}"


def _insert_new_runs(values: str) -> str:
    return f"INSERT INTO taskloop_runs ({','.join(NEW_COLUMNS)}) {values}"


def _insert_fires(values: str) -> str:
    return _insert_runs(values) + " ON CONFLICT DO NOTHING"


def _insert_new_fires(values: str) -> str:
    return _insert_new_runs(values) + " ON CONFLICT DO NOTHING"


def _upsert_schedules(values: str) -> str:
    changes = ",".join(f"{name}=excluded.{name}" for name in SCHEDULE_COLUMNS[1:])
    return f"INSERT INTO taskloop_schedules ({','.join(SCHEDULE_COLUMNS)}) {values} ON CONFLICT (id) DO UPDATE SET {changes}"


# Python 3.11 tells no row count of a statement that begins with WITH: hence `FROM (VALUES …) AS v` and its own names.


def _settle_runs(values: str) -> str:
    return _settle(values, SETTLED_COLUMNS)


def _settle_plainly(values: str) -> str:
    return _settle(values, PLAIN_COLUMNS)


def _settle(values: str, columns: Sequence[str]) -> str:
    changes = ",".join(f"{name} = v.column{place}" for place, name in enumerate(columns, 1) if place > 2)
    return (
        f"UPDATE taskloop_runs SET {changes} FROM ({values}) AS v "
        "WHERE taskloop_runs.id = v.column1 AND taskloop_runs.token = v.column2 AND taskloop_runs.state = 'running'"
    )


def _move_cursors(values: str) -> str:
    return (
        f"UPDATE taskloop_schedules SET next_due = v.column3, last_due = v.column4 FROM ({values}) AS v "
        "WHERE taskloop_schedules.id = v.column1 AND taskloop_schedules.next_due = v.column2"
    )


def _drop_schedules(values: str) -> str:
    return f"DELETE FROM taskloop_schedules WHERE id IN ({values})"


def _count_days(values: str) -> str:
    return (
        f"INSERT INTO taskloop_daily (day, job, state, runs, took) {values} "
        "ON CONFLICT DO UPDATE SET runs = runs + excluded.runs, took = took + excluded.took"
    )


def _insert_attempts(values: str) -> str:
    return (
        "INSERT OR REPLACE INTO taskloop_attempts (run, attempt, token, worker, started_at, ended_at, outcome, error) "
        + values
    )


def _report_progress(values: str) -> str:
    return (
        f"UPDATE taskloop_runs SET progress = v.column3 FROM ({values}) AS v "
        "WHERE taskloop_runs.id = v.column1 AND taskloop_runs.token = v.column2 AND taskloop_runs.state = 'running'"
    )


def next_id(db: sqlite3.Connection) -> int:
    """The id the next run gets. The newest run is never pruned, so no id comes twice."""
    newest: int = db.execute("SELECT coalesce(max(id), 0) FROM taskloop_runs").fetchone()[0]
    return newest + 1


def _each(db: sqlite3.Connection, statement: Callable[[str], str], columns: Sequence[Column]) -> Sequence[bool]:
    """Change a row by each of these, all in one go where nothing stands in the way; gives which were changed."""
    number = len(columns[0]) if columns else 0
    if number == 1:
        return [bool(many_by_columns(db, statement, columns))]
    db.execute("SAVEPOINT each")
    done = [True] * number
    if many_by_columns(db, statement, columns) != number:
        db.execute("ROLLBACK TO each")
        done = [bool(many(db, statement, [row])) for row in zip(*columns, strict=True)]
    db.execute("RELEASE each")
    return done


def count_days(db: sqlite3.Connection, ended: Iterable[Run]) -> None:
    """Add final runs to the counters of their day."""
    many(db, _count_days, counted(ended))


# -- runs asked for


def submit(db: sqlite3.Connection, calls: Sequence[tuple[Run, ...]]) -> list[Any]:
    """Write the runs of each call; gives per call its runs with their ids (an earlier one, with `existed`, where a key
    is taken), or the error that refuses the whole call.
    """
    keyed = {(run.job, run.key) for runs in calls for run in runs if run.key is not None}
    earlier = {key: found for key in keyed if (found := _earlier(db, *key)) is not None}
    repeats = [run for runs in calls for run in runs if run.is_only_repeat]
    earlier |= {(run.job, str(run.key)): found for run in repeats if (found := _repeat(db, run)) is not None}
    answers, fresh = admitted(calls, earlier, partial(operator.add, next_id(db)))
    _insert(db, _insert_new_runs, _insert_runs, fresh)
    steps_sqlite.copy_kept(db, fresh)
    return list(answers)


def _insert(db: sqlite3.Connection, new: Callable[[str], str], other: Callable[[str], str], runs: Sequence[Run]) -> int:
    """Insert runs, by the short statement where that says all of each; gives how many were inserted."""
    if all(map(is_new, runs)):
        return many_by_columns(db, new, new_columns(runs))
    return many(db, other, [write_run(run) for run in runs])


def _earlier(db: sqlite3.Connection, job: str, key: str) -> Run | None:
    rows = fetched(
        db,
        RUN_COLUMNS,
        "FROM taskloop_runs WHERE job = ? AND key = ? AND key IS NOT NULL "
        "AND state NOT IN ('failed', 'cancelled', 'interrupted', 'skipped')",
        (job, key),
    )
    return read_run(rows[0]) if rows else None


def _repeat(db: sqlite3.Connection, run: Run) -> Run | None:
    """The first run that repeats the one which this is to repeat."""
    rest = "FROM taskloop_runs WHERE rerun_of = ? AND rerun_of IS NOT NULL ORDER BY id LIMIT 1"
    rows = fetched(db, RUN_COLUMNS, rest, (run.rerun_of,))
    return read_run(rows[0]) if rows else None


# -- fires


def due(
    db: sqlite3.Connection, now: datetime, limit: int, without: Sequence[str], until: datetime
) -> tuple[list[Schedule], int | None, int]:
    """The schedules that are due `until` then, of jobs this worker knows and may fire, the next instant after them, and
    the version of the file as it was read.
    """
    version = _version(db)
    found: list[Schedule] = []
    last, is_all = _BEFORE_ALL, False
    while len(found) < limit and not is_all:
        rows = _due(db, until, size := min(PORTION, limit - len(found)), without, last)
        if found and _version(db) != version:  # those read first may have changed since: they alone are told
            break
        found += map(read_schedule, rows)  # here, on the thread: a zone may have to be read
        is_all = len(rows) < size
        last = (rows[-1][_NEXT_DUE], rows[-1][0]) if rows else last
    if not is_all or (found and until <= now):
        return found, None, version
    after = db.execute(
        "SELECT s.next_due FROM taskloop_schedules s CROSS JOIN temp.taskloop_known k ON k.job = s.job "
        "WHERE s.next_due > ? AND s.next_due IS NOT NULL AND k.held = 0 ORDER BY s.next_due LIMIT 1",
        (microseconds(until),),
    ).fetchone()
    return found, after[0] if after else None, version


def _due(db: sqlite3.Connection, until: datetime, limit: int, without: Sequence[str], last: Row) -> list[list[Any]]:
    """Rows of what is due until then and comes after the instant and the id of the last."""
    columns = [f"s.{name}" for name in SCHEDULE_COLUMNS]
    less = "AND s.id NOT IN (SELECT value FROM json_each(?))" if without else ""
    names = [json.dumps(without)] if without else []
    found: list[list[Any]] = json.loads(
        db.execute(
            f"SELECT json_group_array(json_array({','.join(SCHEDULE_COLUMNS)})) FROM (SELECT {','.join(columns)} "
            "FROM taskloop_schedules s CROSS JOIN temp.taskloop_known k ON k.job = s.job "
            f"WHERE s.next_due <= ? AND s.next_due IS NOT NULL AND k.held = 0 {less} AND (s.next_due, s.id) > (?, ?) "
            "ORDER BY s.next_due, s.id LIMIT ?)",
            (microseconds(until), *names, *last, limit),
        ).fetchone()[0]
    )
    return found


def _version(db: sqlite3.Connection) -> int:
    """Another number whenever another connection, here or elsewhere, has changed the file."""
    found: int = db.execute("PRAGMA data_version").fetchone()[0]
    return found


def fire(
    db: sqlite3.Connection, firings: Sequence[Firing], worker: str, now: datetime, version: int | None = None
) -> Fired:
    """Move the cursors and write what the fires became; `version`: that of the file when the schedules were read."""
    won = [_cut(db, one) for one in _won(db, _unchanged(db, firings, version))]
    active = _active(db, [one.plan.schedule.id for one in won if one.policy.overlap != "allow"])
    tried_jobs = {one.plan.schedule.job for one in won if one.trial}
    trials = {job: newest_active(db, job, microseconds(now)) for job in tried_jobs}
    number = next_id(db)
    runs: list[Run] = []
    made_before: Made = {}
    replaced: list[RunId] = []
    gave_way: list[Run] = []
    for firing in won:
        standing = active.get(firing.plan.schedule.id, [])
        made, gone, asked = outcome(
            tried(firing, trials) if firing.trial else firing, standing, worker, now, made_before
        )
        replaced += asked
        gave_way += gone
        begun = len(runs)
        for run in made:
            if run.reason == Reason.DISABLED and len(runs) == begun and _lengthened(db, run):
                continue
            runs.append(numbered(run, number))
            number += 1
        if firing.trial and made and made[-1].state in ACTIVE:
            trials[firing.plan.schedule.job] = runs[-1].id
    _end_waiting(db, gave_way)
    db.executemany(  # our own too, though they are asked by what this returns: their end may be on its way to us
        "INSERT INTO taskloop_wishes (run, kind, reason, at) VALUES (?, 'cancel', ?, ?)",
        [(run_id, Reason.SUPERSEDED.value, microseconds(now)) for run_id in replaced],
    )
    runs = _written(db, runs)
    skipped = [run for run in runs if run.state is State.SKIPPED]
    count_days(db, [*skipped, *gave_way])
    return Fired(
        started=[run for run in runs if run.state is State.RUNNING],
        waiting=sum(run.state is State.WAITING for run in runs),
        skipped=skipped,
        gave_way=gave_way,
        replaced=replaced,
        lost=len(firings) - len(won),
    )


def _cut(db: sqlite3.Connection, firing: Firing) -> Firing:
    """The firing without those of its counted instants that have a record already."""
    counted = [one for one in firing.plan.fires if one.until_at is not None]
    if not counted:
        return firing
    schedule, first, last = firing.plan.schedule.id, counted[0].due_at, counted[-1].until_at
    rows = db.execute(
        "SELECT due_at, coalesce(until_at, due_at) FROM taskloop_runs WHERE schedule = ? AND schedule IS NOT NULL "
        "AND due_at >= coalesce((SELECT max(due_at) FROM taskloop_runs WHERE schedule = ? AND schedule IS NOT NULL "
        "AND due_at <= ?), 0) AND due_at <= ? AND coalesce(until_at, due_at) >= ? ORDER BY due_at LIMIT 10000",
        (schedule, schedule, microseconds(first), moment(last), microseconds(first)),
    ).fetchall()
    if not rows:
        return firing
    decided = [(from_microseconds(one), from_microseconds(until)) for one, until in rows]
    return firing._replace(plan=cut(firing.plan, firing.policy, decided))


def _unchanged(db: sqlite3.Connection, firings: Sequence[Firing], version: int | None) -> Sequence[Firing]:
    """Without those whose schedule somebody else has changed since it was read, ahead of its instant."""
    if version is None or _version(db) == version:
        return firings
    ids = json.dumps([one.plan.schedule.id for one in firings])
    rest = "FROM taskloop_schedules WHERE id IN (SELECT value FROM json_each(?))"
    stands = {row[0]: read_schedule(row) for row in fetched(db, SCHEDULE_COLUMNS, rest, (ids,))}
    return [one for one in firings if stands.get(one.plan.schedule.id) == one.plan.schedule]


_cursors: Final = operator.attrgetter("plan.schedule.id", "plan.schedule.next_due", "plan.next_due", "plan.last_due")
_CURSORS: Final = (None, write_moments, write_moments, write_moments)


def _won(db: sqlite3.Connection, firings: Sequence[Firing]) -> Sequence[Firing]:
    """Move each cursor that still stands where the plan saw it; gives the firings this worker thereby owns."""
    moved = _each(db, _move_cursors, columns_of(firings, _cursors, _CURSORS))
    firings = firings if all(moved) else [one for one, is_moved in zip(firings, moved, strict=True) if is_moved]
    ended = [
        (one.plan.schedule.id,)
        for one in firings
        # One that recurs comes to its end only by a clock that stands in the year 9999, and will be set back.
        if one.plan.next_due is None
        and one.plan.schedule.origin == "stored"
        and not one.plan.schedule.trigger.recurring
    ]
    many(db, _drop_schedules, ended)
    return firings


def _active(db: sqlite3.Connection, schedules: Sequence[str]) -> dict[str, list[Run]]:
    """The active runs of these schedules."""
    if not schedules:
        return {}
    rows = fetched(
        db,
        RUN_COLUMNS,
        "FROM taskloop_runs WHERE schedule IS NOT NULL AND state IN ('waiting', 'running') "
        "AND schedule IN (SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(schedules),),
    )
    found: dict[str, list[Run]] = {}
    for row in rows:
        found.setdefault(row[2], []).append(read_run(row))
    return found


def _lengthened(db: sqlite3.Connection, run: Run) -> bool:
    """Count a disabled fire into the row before it, where it goes on with that."""
    last = db.execute(
        "SELECT id, reason, state, coalesce(until_at, due_at), data FROM taskloop_runs WHERE schedule = ? AND schedule IS NOT NULL "
        "ORDER BY due_at DESC LIMIT 1",
        (run.schedule,),
    ).fetchone()
    if last is None or not lengthens(run, last[1:]):
        return False
    db.execute(
        "UPDATE taskloop_runs SET count = count + ?, until_at = ?, ended_at = ? WHERE id = ?",
        (run.count, moment(run.until_at or run.due_at), moment(run.ended_at), last[0]),
    )
    count_days(db, [run])
    return True


def _written(db: sqlite3.Connection, runs: Sequence[Run]) -> list[Run]:
    """Insert the rows of fires; gives those written. A due instant that has its record already gets no other."""
    if not runs:
        return []
    if _insert(db, _insert_new_fires, _insert_fires, runs) == len(runs):
        return list(runs)
    kept = {
        row[0]
        for row in db.execute(
            "SELECT id FROM taskloop_runs WHERE id BETWEEN ? AND ?", (runs[0].id, runs[-1].id)
        ).fetchall()
    }
    return [run for run in runs if run.id in kept]


def _end_waiting(db: sqlite3.Connection, runs: Sequence[Run]) -> None:
    for run in runs:
        db.execute(
            "UPDATE taskloop_runs SET state = ?, reason = ?, data = ?, ended_at = ? WHERE id = ? AND state = 'waiting'",
            (run.state.value, run.reason, encode(run.data), moment(run.ended_at), run.id),
        )


# -- ends


def settle(db: sqlite3.Connection, settlings: Sequence[Settling]) -> list[Run | None]:
    """Write how attempts ended, each only while its worker still has it by the token it was claimed with.

    Gives each run as it stands now. A settling that was written before, and whose answer was lost, is as good as written.
    """
    back = [place for place, one in enumerate(settlings) if one.for_the_dead and _is_back(db, one.before)]
    if back:
        answers = iter(settle(db, [one for place, one in enumerate(settlings) if place not in back]))
        return [None if place in back else next(answers) for place in range(len(settlings))]
    settlings = _with_wishes(db, settlings)
    if all(map(is_plain, settlings)):
        done = _each(db, _settle_plainly, plainly_settled(settlings))
    else:
        done = _each(db, _settle_runs, list(zip(*map(settled, settlings), strict=True)))
    kept = [one for one, wrote in zip(settlings, done, strict=True) if wrote]
    _forget_wishes(db, kept)
    again = [attempted(one) for one in kept if one.after.state is State.WAITING]
    many(db, _insert_attempts, again)
    count_days(db, [one.after for one in kept if one.after.final])
    steps_sqlite.log(db, [(one.before, one.lines) for one in kept if one.lines])
    for one in kept:
        if one.breaker is not None and one.after.final:
            trip(db, one.after, *one.breaker)
    return [
        one.after if wrote or _stands(db, settled(one)) else None for one, wrote in zip(settlings, done, strict=True)
    ]


def _with_wishes(db: sqlite3.Connection, settlings: Sequence[Settling]) -> Sequence[Settling]:
    """Of runs that were to wait for another attempt those are cancelled instead whose end somebody has asked for.

    Their worker has not heard of it, and once the run waits nobody would.
    """
    ids = [one.after.id for one in settlings if one.after.state is State.WAITING]
    if not ids:
        return settlings
    wished = {
        run: (actor, reason, at)
        for run, actor, reason, at in db.execute(
            "SELECT run, actor, reason, at FROM taskloop_wishes WHERE kind = 'cancel' "
            "AND run IN (SELECT value FROM json_each(?)) ORDER BY id DESC",
            (json.dumps(ids),),
        )
    }
    return [cancelled(one, *wished[one.after.id]) if one.after.id in wished else one for one in settlings]


def _forget_wishes(db: sqlite3.Connection, settlings: Sequence[Settling]) -> None:
    """What was wished of attempts that have ended is granted, or came too late."""
    if db.execute("SELECT EXISTS (SELECT 1 FROM taskloop_wishes)").fetchone()[0]:
        ids = json.dumps([one.after.id for one in settlings])
        db.execute("DELETE FROM taskloop_wishes WHERE run IN (SELECT value FROM json_each(?))", (ids,))


def _is_back(db: sqlite3.Connection, run: Run) -> bool:
    """Whether the worker of a run that was taken for dead lives after all."""
    alive = "SELECT 1 FROM taskloop_workers WHERE id = ? AND stopped_at IS NULL"
    return db.execute(alive, (run.worker,)).fetchone() is not None


def _stands(db: sqlite3.Connection, row: Row) -> bool:
    """Whether a run stands just as this settling would have it."""
    return bool(
        db.execute(
            "SELECT 1 FROM taskloop_runs WHERE id = ? AND token = ? AND token > 0 AND state = ? AND ready_at = ? AND ended_at IS ? "
            "AND worker IS ? AND summary IS ? AND result IS ? AND error IS ?",
            (*row[:3], *row[6:9], *row[10:13]),
        ).fetchone()
    )


def trip(db: sqlite3.Connection, run: Run, failures: int, trial_after: timedelta) -> None:
    """Move the circuit breaker of a job after one of its runs has ended: off, on again, or off once more."""
    if run.state is State.CANCELLED or run.reason == Reason.SHUTTING_DOWN or run.ended_at is None:
        return
    at = microseconds(run.ended_at)
    tripped = db.execute(
        "SELECT id, until, reason FROM taskloop_switches WHERE kind = 'tripped' AND job = ? AND ended_at IS NULL",
        (run.job,),
    ).fetchone()
    if run.state is State.SUCCEEDED:
        if tripped:
            db.execute(
                "UPDATE taskloop_switches SET ended_at = ?, ended_by = 'taskloop', ended_because = ? WHERE id = ?",
                (at, f"run {run.id} succeeded", tripped[0]),
            )
        return
    said = f"run {run.id}: {run.error.told(run.summary)}" if run.error else f"run {run.id}: {run.reason}"
    until = microseconds(later(run.ended_at, trial_after))
    if tripped:
        if at >= tripped[1]:  # the trial itself, not one that was running when the breaker opened
            db.execute(
                "UPDATE taskloop_switches SET ended_at = ?, ended_by = 'taskloop', ended_because = ? WHERE id = ?",
                (at, f"the trial failed, {said}", tripped[0]),
            )
            _open_breaker(
                db, run.job, f"{tripped[2].partition('; the trial')[0]}; the trial failed too, {said}", at, until
            )
    elif _fails(db, run.job, failures):
        _open_breaker(db, run.job, too_many(failures, said), at, until)


def _open_breaker(db: sqlite3.Connection, job: str, reason: str, since: int, until: int) -> None:
    """An interval of its own each time, so that the past is told as it was known then."""
    db.execute(
        "INSERT INTO taskloop_switches (job, kind, actor, reason, since, until) VALUES (?, 'tripped', 'taskloop', ?, ?, ?)",
        (job, reason, since, until),
    )


def _fails(db: sqlite3.Connection, job: str, failures: int) -> bool:
    """Whether the newest runs of a job, so many, all failed since it was last switched by anybody."""
    since = db.execute(
        "SELECT max(coalesce(ended_at, since)) FROM taskloop_switches WHERE job = ? AND kind IN ('enabled', 'tripped')",
        (job,),
    ).fetchone()[0]
    return failed_in_a_row(db, job, failures, since or 0)


def progress(db: sqlite3.Connection, reports: Sequence[tuple[Run, Progress]]) -> None:
    """Keep what running runs last said of themselves."""
    many(db, _report_progress, [(run.id, run.token, write_progress(one)) for run, one in reports])


def cancel(
    db: sqlite3.Connection, run_id: RunId, actor: str | None, reason: str | None, now: datetime, waiting_only: bool
) -> Cancelling | None:
    """End a waiting run; ask for the end of a running one, unless `waiting_only`; leave a final one as it is."""
    rows = fetched(db, RUN_COLUMNS, "FROM taskloop_runs WHERE id = ?", (run_id,))
    if not rows:
        return None
    run = read_run(rows[0])
    if run.state not in ACTIVE or (waiting_only and run.state is State.RUNNING):
        return Cancelling(run)
    if run.state is State.RUNNING:
        db.execute(
            "INSERT INTO taskloop_wishes (run, kind, actor, reason, at) VALUES (?, 'cancel', ?, ?, ?)",
            (run_id, actor, reason, microseconds(now)),
        )
        return Cancelling(run, wished=True)

    ended = given_up(run, reason, now, actor) if waiting_only else cancelled_by(actor, run, reason, now)
    _end_waiting(db, [ended])
    count_days(db, [ended])
    return Cancelling(ended, ended=True)


def put_schedules(
    db: sqlite3.Connection, schedules: Sequence[Schedule], merge: Callable[[Schedule | None, Schedule], Schedule]
) -> tuple[list[Schedule], list[Schedule]]:
    """Store each schedule as `merge` has it beside what stands there; gives what stands now, and what gave way."""
    rows = fetched(
        db,
        SCHEDULE_COLUMNS,
        "FROM taskloop_schedules WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps([one.id for one in schedules]),),
    )
    old = {row[0]: read_schedule(row) for row in rows}
    merged = [merge(old.get(one.id), one) for one in schedules]
    changed = [one for one in merged if one != old.get(one.id)]
    many_by_columns(db, _upsert_schedules, schedule_columns(changed))
    gone = [
        old[one.id]
        for one in merged
        if one.id in old and (one.trigger, one.job) != (old[one.id].trigger, old[one.id].job)
    ]
    return merged, gone
