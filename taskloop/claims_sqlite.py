"""Which waiting runs a worker is given: by priority, then by how long they are ready, within the limits of jobs and groups.

Level 5. Plain functions of a connection, parts of a transaction, like those of `statements_sqlite`. What waits may be a
million runs of a job that is at its limit: as many are looked through as a start may need, and beyond them each job is
asked for its own. Start at `claim`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from taskloop.clock import microseconds
from taskloop.fates import MOST_EXPIRED, Fullness, claimed, regrouped, take
from taskloop.rows import RUN_COLUMNS, instant, read_run
from taskloop.rows_sqlite import fetched
from taskloop.runs import Reason, Run
from taskloop.statements_sqlite import count_days
from taskloop.store_data import Claimed, Terms

__all__ = ["claim"]


def claim(db: sqlite3.Connection, worker: str, now: datetime, slots: int, terms: Mapping[str, Terms]) -> Claimed:
    """Give `worker` at most `slots` waiting runs that may start: by priority, then by how long they are ready."""
    at = microseconds(now)
    expires = any(one.expires for one in terms.values())
    full = Fullness(terms, _running(db, terms))
    expired = _expire(db, now, full) if expires else []
    if len(expired) == MOST_EXPIRED:  # others may be too late as well, and none of them is to begin
        return Claimed([], expired, now, more=True)
    chosen: list[list[Any]] = []
    next_at = _next_expiry(db) if expires else None
    priority = _next_priority(db, None)
    while priority is not None and len(chosen) < slots:
        _choose(db, priority, at, slots, full, chosen)
        if len(chosen) < slots:
            later = _ready_after(db, priority, at)
            next_at = min(next_at or later, later) if later is not None else next_at
            priority = _next_priority(db, priority)
    db.executemany('UPDATE taskloop_runs SET "group" = ? WHERE id = ?', regrouped(chosen, terms))
    started = [claimed(row, worker, now) for row in chosen]
    if started:
        db.execute(
            "UPDATE taskloop_runs SET state = 'running', worker = ?, token = token + 1, attempt = attempt + 1, "
            "started_at = coalesce(started_at, ?), attempt_started_at = ?, expires_at = NULL, progress = NULL, error = NULL "
            "WHERE id IN (SELECT value FROM json_each(?))",
            (worker, at, at, json.dumps([run.id for run in started])),
        )
    left = bool(db.execute("SELECT EXISTS (SELECT 1 FROM taskloop_runs WHERE state = 'waiting')").fetchone()[0])
    return Claimed(started, expired, instant(next_at), len(chosen) == slots, left)


def _next_priority(db: sqlite3.Connection, below: int | None) -> int | None:
    """The highest priority among the waiting, below another one: one look-up in the index."""
    rest, values = ("", ()) if below is None else (" AND priority < ?", (below,))
    found: int | None = db.execute(
        f"SELECT max(priority) FROM taskloop_runs WHERE state = 'waiting'{rest}", values
    ).fetchone()[0]
    return found


def _next_expiry(db: sqlite3.Connection) -> int | None:
    """The first moment at which a waiting fire is too late."""
    soonest = db.execute(
        "SELECT min(expires_at) FROM taskloop_runs WHERE state = 'waiting' AND expires_at IS NOT NULL"
    ).fetchone()[0]
    return None if soonest is None else soonest + 1


def _ready_after(db: sqlite3.Connection, priority: int, at: int) -> int | None:
    found: int | None = db.execute(
        "SELECT min(ready_at) FROM taskloop_runs WHERE state = 'waiting' AND priority = ? AND ready_at > ?",
        (priority, at),
    ).fetchone()[0]
    return found


def _running(db: sqlite3.Connection, terms: Mapping[str, Terms]) -> list[Any]:
    """How many runs of each job and group run, where anybody has a limit."""
    if not any(one.group or one.max_running for one in terms.values()):
        return []
    return db.execute(
        'SELECT job, "group", count(*) FROM taskloop_runs WHERE state = \'running\' GROUP BY job, "group"'
    ).fetchall()


LOOKED_AT: Final = 1_000
"""Runs that wait, the first in their order, which are looked through for what may start: those of a job that is at its limit,
or held, may be a million. Beyond them each job is asked for its own first.
"""
_MAY_START: Final = (
    "AND (r.schedule IS NULL OR k.gated = 0 OR NOT EXISTS (SELECT 1 FROM taskloop_runs a "
    "WHERE a.schedule = r.schedule AND a.schedule IS NOT NULL AND a.state IN ('waiting', 'running') "
    "AND a.state = 'running'))"
)
_IS_FREE: Final = " AND k.job NOT IN (SELECT value FROM json_each(:full))"
_NEITHER: Final = (
    " AND r.id NOT IN (SELECT value FROM json_each(:chosen))"
    " AND (r.schedule IS NULL OR k.gated = 0 OR r.schedule NOT IN (SELECT value FROM json_each(:schedules)))"
)
_FIRST: Final = " ORDER BY r.ready_at, r.id LIMIT :wanted"
_ROWS: Final = f"SELECT json_group_array(json_array({','.join(RUN_COLUMNS)})) FROM (SELECT {','.join('r.' + n for n in RUN_COLUMNS)} "
_READY: Final = (
    "FROM taskloop_runs WHERE state = 'waiting' AND priority = :priority AND ready_at <= :at ORDER BY ready_at, id"
)
# They come in the order of the inner statement, for a CROSS JOIN is carried out as it is written. Sorted once more, all of
# a thousand would be read; and a bound in the place of the inner LIMIT is none where all were asked for at one instant.
_OF_ALL: Final = (
    f"{_ROWS} FROM (SELECT id {_READY} LIMIT {LOOKED_AT}) q CROSS JOIN taskloop_runs r ON r.id = q.id "
    f"CROSS JOIN temp.taskloop_known k ON k.job = r.job WHERE k.held = 0 {_MAY_START}"
)
_ARE_MANY: Final = f"SELECT EXISTS (SELECT 1 {_READY} LIMIT 1 OFFSET {LOOKED_AT})"
_OF_EACH: Final = (
    f"{_ROWS} FROM temp.taskloop_known k CROSS JOIN taskloop_runs r ON r.id IN (SELECT r.id FROM taskloop_runs r INDEXED BY "
    f"taskloop_runs_next WHERE r.state = 'waiting' AND r.job = k.job AND r.priority = :priority AND r.ready_at <= :at "
    f"{_MAY_START}{_NEITHER}{_FIRST}) WHERE k.held = 0{_IS_FREE}{_FIRST})"
)


def _choose(
    db: sqlite3.Connection, priority: int, at: int, slots: int, full: Fullness, chosen: list[list[Any]]
) -> None:
    """Add runs of one priority to `chosen`, up to `slots`; asks again where a limit refused some."""
    values: dict[str, Any] = {"priority": priority, "at": at}
    of_each = False
    while (wanted := slots - len(chosen)) > 0:
        values["wanted"] = wanted
        if without := bool(chosen or full.jobs or of_each):
            values["full"] = json.dumps(sorted(full.jobs))
            values["chosen"] = json.dumps([row[0] for row in chosen])
            values["schedules"] = json.dumps([row[2] for row in chosen if row[2] is not None])
        text = _OF_EACH if of_each else f"{_OF_ALL}{_IS_FREE + _NEITHER if without else ''} LIMIT :wanted)"
        rows = json.loads(db.execute(text, values).fetchone()[0])
        if take(rows, full, chosen) == len(rows) or not rows:
            if of_each or len(chosen) == slots or not db.execute(_ARE_MANY, values).fetchone()[0]:
                return
            of_each = True


def _expire(db: sqlite3.Connection, now: datetime, full: Fullness) -> list[Run]:
    """Skip fires that waited beyond `max_late`: as `group_full` if their group has no place, else as `too_late`."""
    rows = fetched(
        db,
        RUN_COLUMNS,
        "FROM taskloop_runs WHERE state = 'waiting' AND expires_at IS NOT NULL AND expires_at < ? "
        f"LIMIT {MOST_EXPIRED}",
        (microseconds(now),),
    )
    runs = []
    for row in rows:
        reason = Reason.GROUP_FULL if full.waits_for_group(row[1]) else Reason.TOO_LATE
        row[3], row[4] = "skipped", reason.value
        row[18] = microseconds(now)
        row[28] = json.dumps({"late_seconds": (row[18] - row[11]) / 1e6})
        db.execute(
            "UPDATE taskloop_runs SET state = ?, reason = ?, ended_at = ?, data = ? WHERE id = ?",
            (row[3], row[4], row[18], row[28], row[0]),
        )
        runs.append(read_run(row))
    count_days(db, runs)
    return runs
