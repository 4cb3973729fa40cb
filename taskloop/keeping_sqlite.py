"""The rooms around the runs, in SQLite: workers, switches, incidents, schedules, and other names.

Plain functions of a connection, like `statements_sqlite`, which has the way of a run. Those that change something are
parts of a transaction that somebody else began; those that read are called on the reading thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from taskloop.clock import from_microseconds, microseconds
from taskloop.rows import (
    RUN_COLUMNS,
    SCHEDULE_COLUMNS,
    WORKER_COLUMNS,
    instant,
    moment,
    read_run,
    read_schedule,
    read_worker,
    told,
    worker_values,
)
from taskloop.runs import Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.statements_sqlite import count_days, put_schedules
from taskloop.store import Rewind
from taskloop.store_data import Definition, Incident, Renamed, Terms, Wish, Worker
from taskloop.switches import Switch, Switches, kinds_of

FOR_EVER: Final = 2**62
"""An instant after all others."""
ALL: Final = -1
"""No limit, as SQLite has it."""
FACTS_SINCE: Final = "facts_since"
"""Under this key the store says how old what it still has of workers, switches, incidents and former schedules is."""
SOONEST: Final = 5_000
"""Schedules, the soonest of all, that are looked through for those of some jobs."""
_RUN: Final = ",".join(RUN_COLUMNS)
_THEIRS: Final = "job IN (SELECT value FROM json_each(?))"


# -- workers

_WORKER: Final = ",".join(WORKER_COLUMNS)


def enlist(db: sqlite3.Connection, worker: Worker) -> list[Worker]:
    """Record a worker; gives the others not known to have stopped."""
    others = workers(db, "WHERE stopped_at IS NULL ORDER BY started_at LIMIT 10000")
    _insert(db, worker)
    return [one for one in others if one.id != worker.id]


def _insert(db: sqlite3.Connection, worker: Worker) -> None:
    places = ",".join("?" * len(WORKER_COLUMNS))
    db.execute(f"INSERT OR REPLACE INTO taskloop_workers ({_WORKER}) VALUES ({places})", worker_values(worker))


def beat(db: sqlite3.Connection, worker: Worker, now: int, tick: float, health: str | None) -> bool:
    """Say that a worker lives; False: it was taken for dead meanwhile."""
    row = db.execute("SELECT stopped_at, ended FROM taskloop_workers WHERE id = ?", (worker.id,)).fetchone()
    if row is None:  # buried so long ago that its row is pruned
        _insert(db, worker)
    elif row[1] == "stopped":  # it has left, and this beat was under way
        return True
    db.execute(
        "UPDATE taskloop_workers SET beat_at = ?, beat_tick = ?, health = ?, stopped_at = NULL, ended = NULL WHERE id = ?",
        (now, tick, health, worker.id),
    )
    return row is not None and row[0] is None


def has_jobs(db: sqlite3.Connection, worker: str, jobs: Sequence[str]) -> None:
    db.execute("UPDATE taskloop_workers SET jobs = ? WHERE id = ?", (json.dumps(sorted(jobs)), worker))


def leave(db: sqlite3.Connection, worker: str, at: int) -> None:
    db.execute("UPDATE taskloop_workers SET stopped_at = ?, ended = 'stopped' WHERE id = ?", (at, worker))


def bury(db: sqlite3.Connection, worker: Worker) -> bool:
    """Record the death of a worker, at its last beat; whoever has beaten since it was read lives."""
    beat_at = microseconds(worker.beat_at)
    return bool(
        db.execute(
            "UPDATE taskloop_workers SET stopped_at = ?, ended = 'died' WHERE id = ? AND stopped_at IS NULL "
            "AND beat_at = ? AND beat_tick IS ?",
            (beat_at, worker.id, beat_at, worker.beat_tick),
        ).rowcount
    )


def workers(db: sqlite3.Connection, rest: str, values: Sequence[Any] = ()) -> list[Worker]:
    rows = db.execute(f"SELECT {_WORKER} FROM taskloop_workers {rest}", values).fetchall()
    return [read_worker(row) for row in rows]


def take_wishes(db: sqlite3.Connection, worker: str) -> list[Wish]:
    rows = db.execute(
        "SELECT w.id, w.run, w.actor, w.reason FROM taskloop_wishes w LEFT JOIN taskloop_runs r ON r.id = w.run "
        "WHERE r.worker = ? OR r.id IS NULL OR r.state <> 'running' LIMIT 1000",
        (worker,),
    ).fetchall()
    db.executemany("DELETE FROM taskloop_wishes WHERE id = ?", [(row[0],) for row in rows])
    return [Wish(RunId(row[1]), row[2], row[3]) for row in rows]


def note(db: sqlite3.Connection, incidents: Sequence[Incident]) -> None:
    db.executemany(
        "INSERT INTO taskloop_incidents (worker, kind, since, until, data) VALUES (?, ?, ?, ?, ?)",
        [
            (one.worker, one.kind, microseconds(one.since), microseconds(one.until), told(dict(one.data)))
            for one in incidents
        ],
    )


def incidents(db: sqlite3.Connection, since: int, until: int, limit: int = 1000) -> list[Incident]:
    """What disturbed any worker between two instants, newest first."""
    rows = db.execute(
        "SELECT worker, kind, since, until, data FROM taskloop_incidents WHERE until >= ? AND since <= ? "
        "ORDER BY until DESC LIMIT ?",
        (since, until, limit),
    ).fetchall()
    return [
        Incident(row[0], row[1], from_microseconds(row[2]), from_microseconds(row[3]), json.loads(row[4] or "{}"))
        for row in rows
    ]


# -- jobs and schedules


def know(db: sqlite3.Connection, terms: Sequence[Terms]) -> None:
    """From now on this connection hands out fires and runs of exactly these jobs."""
    db.execute(
        "CREATE TEMP TABLE IF NOT EXISTS taskloop_known (job TEXT PRIMARY KEY, held INTEGER, gated INTEGER) WITHOUT ROWID"
    )
    db.execute("DELETE FROM temp.taskloop_known")
    db.executemany(
        "INSERT INTO temp.taskloop_known VALUES (?, ?, ?)", [(one.job, one.held, one.gated) for one in terms]
    )


def define(db: sqlite3.Connection, rows: Sequence[Any]) -> None:
    db.executemany(
        "INSERT INTO taskloop_jobs (name, definition, origin, seen_at) VALUES (?, ?, ?, ?) ON CONFLICT (name) "
        "DO UPDATE SET definition = excluded.definition, origin = excluded.origin, seen_at = excluded.seen_at "
        "WHERE definition <> excluded.definition",
        rows,
    )


def schedules(db: sqlite3.Connection, rest: str, values: Sequence[Any]) -> list[Schedule]:
    """Schedules, as the rest of their statement says. They are read here, not on the loop: there may be thousands."""
    rows = db.execute(f"SELECT {','.join(SCHEDULE_COLUMNS)} FROM taskloop_schedules {rest}", values).fetchall()
    return [read_schedule(row) for row in rows]


def coming(db: sqlite3.Connection, limit: int, jobs: Sequence[str] | None) -> list[Schedule]:
    """The schedules that are due next, of these jobs; None: of all."""
    if jobs is None:
        return schedules(db, "WHERE next_due IS NOT NULL ORDER BY next_due LIMIT ?", (limit,))
    names, few = json.dumps(list(jobs)), max(limit, SOONEST)
    counted = f"SELECT count(*) FROM (SELECT 1 FROM taskloop_schedules WHERE {_THEIRS} LIMIT ?)"
    (number,) = db.execute(counted, (names, few + 1)).fetchone()
    # A few are all read and sorted; of a million the first are soon found among all that come due.
    index = "job" if number <= few else "due"
    by = f"INDEXED BY taskloop_schedules_{index} WHERE next_due IS NOT NULL AND {_THEIRS} ORDER BY next_due LIMIT ?"
    return schedules(db, by, (names, limit))


def next_dues(db: sqlite3.Connection, jobs: Sequence[str]) -> dict[str, int]:
    """When each of these jobs is due next, those that are.

    The soonest of all schedules are looked through first: a job with a million of them is nearly always among these. Of a
    job that is not all of its own are.
    """
    soonest = db.execute(
        "SELECT job, min(next_due), count(*) FROM (SELECT job, next_due FROM taskloop_schedules "
        "WHERE next_due IS NOT NULL ORDER BY next_due LIMIT ?) GROUP BY job",
        (SOONEST,),
    ).fetchall()
    found = {job: due for job, due, _ in soonest}
    left = [job for job in jobs if job not in found]
    if left and sum(row[2] for row in soonest) == SOONEST:
        found |= db.execute(
            f"SELECT job, min(next_due) FROM taskloop_schedules WHERE next_due IS NOT NULL AND {_THEIRS} GROUP BY job",
            (json.dumps(left),),
        ).fetchall()
    return {job: found[job] for job in jobs if job in found}


def definitions(db: sqlite3.Connection, without: Collection[str]) -> list[Definition]:
    """What was declared of all jobs but some, by name."""
    rows = db.execute(
        "SELECT name, definition, origin, seen_at FROM taskloop_jobs WHERE name NOT IN (SELECT value FROM json_each(?)) "
        "ORDER BY name",
        (json.dumps(list(without)),),
    ).fetchall()
    return [Definition(row[0], _declared(row[1]), row[2], from_microseconds(row[3])) for row in rows]


@lru_cache(4096)
def _declared(text: str) -> Any:
    """What a job declares, read once: a page asks for all jobs, and they hardly ever change."""
    return json.loads(text)


def aliases(db: sqlite3.Connection) -> dict[str, str]:
    """Every alias that a stored definition names, and the job that has it."""
    found = "SELECT a.value, j.name FROM taskloop_jobs j, json_each(j.definition, '$.aliases') a ORDER BY j.name DESC"
    return dict(db.execute(found).fetchall())


_TAKEN: Final = "(SELECT 1 FROM taskloop_runs n WHERE n.job = ? AND n.key = r.key AND n.key IS NOT NULL "
_TAKEN_KEY: Final = f"{_TAKEN}AND n.state NOT IN ('failed', 'cancelled', 'interrupted', 'skipped'))"


def rename(db: sqlite3.Connection, names: Mapping[str, str], now: int, limit: int) -> Renamed:
    """Give what stands under old job names to the new ones: all that is to come, and `limit` records of each history.

    A declared schedule goes on under its new id, cursor and all, unless that id has one already. The newest records go
    first, since a clock that is set back asks what was decided of late.
    """
    moved: list[str] = []
    ended: list[Run] = []
    active = more = False
    for old, new in names.items():
        here = "WHERE id = ? AND job = ? AND origin <> 'stored'"
        if db.execute(f"UPDATE OR IGNORE taskloop_schedules SET id = ?, job = ? {here}", (new, new, old, old)).rowcount:
            moved.append(old)
        db.execute(  # where both have fired, as in a roll-out that was taken back for a while, the later cursor counts
            "UPDATE taskloop_schedules AS n SET next_due = o.next_due, last_due = o.last_due, anchor = o.anchor "
            "FROM taskloop_schedules o WHERE n.id = ? AND o.id = ? AND o.job = ? AND o.origin <> 'stored' "
            "AND n.trigger = o.trigger AND coalesce(n.last_due, 0) < coalesce(o.last_due, 0)",
            (new, old, old),
        )
        drop(db, [row[0] for row in db.execute(f"SELECT id FROM taskloop_schedules {here}", (old, old))], now)
        db.execute("UPDATE taskloop_schedules SET job = ? WHERE job = ? AND origin = 'stored'", (new, old))
        db.execute("UPDATE taskloop_switches SET job = ? WHERE job = ?", (new, old))
        ids = "id = CASE id WHEN ? THEN ? ELSE id END"
        db.execute(f"UPDATE OR IGNORE taskloop_former SET {ids}, job = ? WHERE job = ?", (old, new, new, old))
        known = db.execute("DELETE FROM taskloop_jobs WHERE name = ?", (old,)).rowcount
        ended += _supersede(db, old, new, now)
        runs = _runs_of(db, old, "= 'waiting'", FOR_EVER) + _runs_of(db, old, "= 'running'", FOR_EVER)
        past = _runs_of(db, old, "NOT IN ('waiting', 'running')", limit + 1)
        _rename_runs(db, old, new, [*runs, *past[:limit]])
        relabel(db, {old: new}, now)
        active |= bool(runs)
        if len(past) > limit:
            more = True
        elif known or runs or past:
            db.execute(
                "INSERT INTO taskloop_daily (day, job, state, runs, took) SELECT day, ?, state, runs, took "
                "FROM taskloop_daily WHERE job = ? ON CONFLICT (day, job, state) "
                "DO UPDATE SET runs = runs + excluded.runs, took = took + excluded.took",
                (new, old),
            )
            db.execute("DELETE FROM taskloop_daily WHERE job = ?", (old,))
    return Renamed(moved, active, ended, more)


RELABELLED: Final = 86_400_000_000
"""How far back records go over with a schedule's id: as long as a clock that is set back may ask for them."""


def relabel(db: sqlite3.Connection, names: Mapping[str, str], now: int) -> None:
    """Give declared schedules, and what was decided of them of late, or of what is to come, to new ids (old: new): what is
    on record under one name is not fired under the other.
    """
    db.executemany(
        "UPDATE OR IGNORE taskloop_schedules SET id = ?, job = ? WHERE id = ? AND job = ? AND origin <> 'stored'",
        [(new, new, old, old) for old, new in names.items()],
    )
    db.executemany(
        "UPDATE OR IGNORE taskloop_runs SET schedule = ? WHERE schedule = ? AND schedule IS NOT NULL AND due_at >= ?",
        [(new, old, now - RELABELLED) for old, new in names.items()],
    )


def _supersede(db: sqlite3.Connection, old: str, new: str, now: int) -> list[Run]:
    """A run that waits under the old name gives way to one of the same key under the new: it was asked for once."""
    twice = db.execute(
        f"SELECT {_RUN} FROM taskloop_runs r WHERE job = ? AND state = 'waiting' AND EXISTS {_TAKEN_KEY}", (old, new)
    ).fetchall()
    ended = [
        read_run(row).changed(state=State.CANCELLED, reason="superseded", ended_at=from_microseconds(now))
        for row in twice
    ]
    db.executemany(
        "UPDATE taskloop_runs SET state = 'cancelled', reason = 'superseded', ended_at = ? WHERE id = ?",
        [(now, run.id) for run in ended],
    )
    count_days(db, ended)
    return [run.changed(job=new) for run in ended]


def _runs_of(db: sqlite3.Connection, job: str, states: str, limit: int) -> list[int]:
    rows = db.execute(
        f"SELECT id FROM taskloop_runs WHERE job = ? AND state {states} ORDER BY id DESC LIMIT ?", (job, limit)
    )
    return [row[0] for row in rows]


def _rename_runs(db: sqlite3.Connection, old: str, new: str, ids: Sequence[int]) -> None:
    """Give records a new job; a due instant or a key that the new one has used already stays with that."""
    these = "id IN (SELECT value FROM json_each(?))"
    db.execute(
        f"UPDATE taskloop_runs AS r SET key = NULL WHERE {these} AND EXISTS {_TAKEN_KEY}", (json.dumps(ids), new)
    )
    db.execute(
        f"UPDATE OR IGNORE taskloop_runs SET schedule = ? WHERE {these} AND schedule = ?", (new, json.dumps(ids), old)
    )
    db.execute(f"UPDATE taskloop_runs SET job = ? WHERE {these}", (new, json.dumps(ids)))


def put(db: sqlite3.Connection, schedules: Sequence[Schedule], merge: Any, now: int) -> list[Schedule]:
    """Store schedules, and keep those that they replace among the former ones."""
    merged, replaced = put_schedules(db, schedules, merge)
    _note_former(db, [(one, now) for one in replaced])
    return merged


def _note_former(db: sqlite3.Connection, schedules: Iterable[tuple[Schedule, int]]) -> None:
    """Keep schedules that stood so until an instant."""
    db.executemany(
        "INSERT OR REPLACE INTO taskloop_former (id, until, job, trigger, anchor, seen_at, origin) VALUES (?,?,?,?,?,?,?)",
        [
            (one.id, until, one.job, str(one.trigger), moment(one.anchor), microseconds(one.seen_at), one.origin)
            for one, until in schedules
        ],
    )


def drop(db: sqlite3.Connection, ids: Sequence[str], now: int) -> int:
    these = "WHERE id IN (SELECT value FROM json_each(?))"
    db.execute(
        "INSERT OR REPLACE INTO taskloop_former (id, until, job, trigger, anchor, seen_at, origin) "
        f"SELECT id, ?, job, trigger, anchor, seen_at, origin FROM taskloop_schedules {these}",
        (now, json.dumps(ids)),
    )
    return db.execute(f"DELETE FROM taskloop_schedules {these}", (json.dumps(ids),)).rowcount


def rewind(
    db: sqlite3.Connection, decide: Rewind, now: int, back: int | None, boot: str, since: float, tick: float
) -> int:
    """Move the cursors of known jobs for a step of this machine's clock; gives how many. All in one transaction.

    Those that were moved for this step already, by the first of this machine that knew the job, stay.
    """
    row = db.execute("SELECT value FROM taskloop_meta WHERE key = 'clock_step'").fetchone()
    there, until, moved = json.loads(row[0]) if row else (None, 0.0, [])
    if there != boot or until <= since:
        until, moved = tick, []
        _hasten(db, now, back)
    ours = {job for (job,) in db.execute("SELECT job FROM temp.taskloop_known")} - set(moved)
    if not ours:
        return 0
    value = json.dumps([boot, until, sorted({*moved, *ours})])
    db.execute("INSERT OR REPLACE INTO taskloop_meta VALUES ('clock_step', ?)", (value,))

    def ours_alone(schedule: Schedule, decided: Sequence[tuple[datetime, datetime]]) -> Schedule:
        return decide(schedule, decided) if schedule.job in ours else schedule

    return move_cursors(db, ours_alone, now, "", ALL)[0]


_ELAPSED: Final = "(attempt > 0 OR created_at >= ready_at OR ready_at <> due_at)"
"""Waits for a retry, a place or a slot; a run that was asked for at an instant is ready when it is due, and not before."""
_LATER: Final = "(SELECT max(a.ended_at) FROM taskloop_attempts a WHERE a.run = taskloop_runs.id)"
"""When an attempt of a run ended last: of one that was asked for before the clock went ahead this tells that it did."""


def _hasten(db: sqlite3.Connection, now: int, back: int | None) -> None:
    """Let what waits since, or until, an instant that a clock set back by `back` has still to come to wait no longer,
    and what is switched since such an instant be switched since now.

    `back` None: nobody knows by how much; what was written in the future is ready now, or tripped since now. A run that was asked for at an
    instant of the wall clock keeps it.
    """
    waits = "UPDATE taskloop_runs SET ready_at = {} WHERE state = 'waiting' AND ready_at > ? AND {}"
    if back is None:
        db.execute(waits.format("?", f"(created_at > ? OR {_LATER} > ?) AND {_ELAPSED}"), (now,) * 4)
        db.execute(
            "UPDATE taskloop_switches SET until = ? + until - since WHERE kind = 'tripped' AND ended_at IS NULL AND since > ?",
            (now, now),
        )
    else:
        db.execute(waits.format("max(?, ready_at - ?)", _ELAPSED), (now, back, now))
        db.execute(
            "UPDATE taskloop_switches SET until = max(?, until - ?) WHERE kind = 'tripped' AND ended_at IS NULL AND until > ?",
            (now, back, now),
        )
    db.execute("UPDATE taskloop_switches SET since = ? WHERE ended_at IS NULL AND since > ?", (now, now))


def rules_changed(db: sqlite3.Connection, rules: str, key: str) -> bool:
    """Whether the cursors were set by other rules of the time zones than these; where nothing is noted, by these."""
    row = db.execute("SELECT value FROM taskloop_meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        note_rules(db, rules, key)
    return row is not None and row[0] != rules


def note_rules(db: sqlite3.Connection, rules: str, key: str) -> None:
    db.execute("INSERT OR REPLACE INTO taskloop_meta VALUES (?, ?)", (key, rules))


def move_cursors(
    db: sqlite3.Connection, decide: Rewind, now: int | None, after: str, limit: int
) -> tuple[int, str | None]:
    """Move cursors of known jobs, `limit` schedules by id; gives how many moved, and the id to go on with.

    `now` None: what is decided already does not matter. An interval whose grid moves stays as it stood among the former
    ones: what was due before is asked of that.
    """
    names = ",".join(f"s.{name}" for name in SCHEDULE_COLUMNS)
    rows = db.execute(
        f"SELECT {names} FROM taskloop_schedules s CROSS JOIN temp.taskloop_known k ON k.job = s.job "
        "WHERE s.id > ? ORDER BY s.id LIMIT ?",
        (after, limit),
    ).fetchall()
    moved, shifted = [], []
    for row in rows:
        old = read_schedule(row)
        new = decide(old, () if now is None else _decided(db, old.id, now))
        if new != old:
            moved.append((moment(new.next_due), moment(new.last_due), moment(new.anchor), old.id, row[4]))
        if now is not None and new.anchor != old.anchor:
            shifted.append((old, max(now, 1 + (moment(new.last_due) or 0))))
    _note_former(db, shifted)
    db.executemany(
        "UPDATE taskloop_schedules SET next_due = ?, last_due = ?, anchor = ? WHERE id = ? AND next_due IS ?", moved
    )
    return len(moved), rows[-1][0] if len(rows) == limit else None


def _decided(db: sqlite3.Connection, schedule: str, now: int) -> list[tuple[datetime, datetime]]:
    """Spans of later due instants of a schedule that have a record. What was missed was never lived through."""
    rows = db.execute(
        "SELECT due_at, coalesce(until_at, due_at) FROM taskloop_runs WHERE schedule = ? AND schedule IS NOT NULL "
        "AND due_at >= coalesce((SELECT max(due_at) FROM taskloop_runs WHERE schedule = ? AND due_at <= ?), 0) "
        "AND coalesce(until_at, due_at) > ? AND reason IS NOT 'missed' ORDER BY due_at LIMIT 10000",
        (schedule, schedule, now, now),
    ).fetchall()
    return [(from_microseconds(first), from_microseconds(last)) for first, last in rows]


# -- switches

_SWITCH: Final = "kind, job, since, actor, reason, until, ended_at, ended_by, missed, ended_because"


def switches(db: sqlite3.Connection, rest: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Switches:
    rows = db.execute(f"SELECT {_SWITCH} FROM taskloop_switches {rest}", values).fetchall()
    return Switches(
        Switch(
            row[0],
            row[1],
            from_microseconds(row[2]),
            row[3],
            row[4],
            instant(row[5]),
            instant(row[6]),
            row[7],
            row[8],
            row[9],
        )
        for row in rows
    )


def switch(db: sqlite3.Connection, new: Switch) -> None:
    """Begin an interval; one of the same subject that is open ends."""
    since = microseconds(new.since)
    if new.kind == "paused":  # a pause laid over one in force goes on from its beginning: it holds its fires too
        (earlier,) = db.execute(
            "SELECT min(since) FROM taskloop_switches WHERE kind = 'paused' AND job IS ? AND ended_at IS NULL "
            "AND coalesce(until, ?) >= ?",
            (new.job, since, since),
        ).fetchone()
        since = since if earlier is None else earlier
    unswitch(db, new.job, kinds_of(new.kind), new.since, new.actor, new.reason, None)
    db.execute(
        "INSERT INTO taskloop_switches (job, kind, actor, reason, since, until) VALUES (?, ?, ?, ?, ?, ?)",
        (new.job, new.kind, new.actor, new.reason, since, moment(new.until)),
    )


def unswitch(
    db: sqlite3.Connection,
    job: str | None,
    kinds: Sequence[str],
    now: datetime,
    actor: str | None,
    reason: str | None,
    missed: str | None,
) -> int:
    at = microseconds(now)
    return db.execute(
        "UPDATE taskloop_switches SET ended_at = CASE kind WHEN 'tripped' THEN ? ELSE min(?, coalesce(until, ?)) END, "
        "ended_by = ?, ended_because = ?, missed = ? "
        "WHERE job IS ? AND ended_at IS NULL AND kind IN (SELECT value FROM json_each(?))",
        (at, at, at, actor, reason, missed, job, json.dumps(list(kinds))),
    ).rowcount
