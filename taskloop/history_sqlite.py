"""What jobs did, newest first, in SQLite: statements that cost the same however long the history is.

A run that waits or runs stands in a small index of its state, a final one in `taskloop_runs_final`, by job and state;
so each is written to the history once, when it ends. A question over several states merges them by id. The indexes are
named, because SQLite is easily lured to go through the whole table by id, where an index would find the few.
Imports nothing heavy: `taskloop list` reads its statements here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = [
    "FINAL",
    "between",
    "days",
    "failed_in_a_row",
    "find",
    "first_since",
    "ids_of_job",
    "landmarks",
    "late",
    "newest",
    "newest_active",
    "of_job",
    "recent",
    "standing",
    "usual",
]

FINAL: Final = "state NOT IN ('waiting', 'running')"
"""What tells the rows of `taskloop_runs_final`; a statement has to repeat it, or SQLite does not see that it fits."""
_TROUBLED: Final = ("failed", "interrupted", "cancelled", "skipped")
_LASTING: Final = ("waiting", "running", "succeeded", "failed", "cancelled", "interrupted")
"""All states but `skipped`."""
SLACK: Final = 600_000_000
"""Ten minutes: of a span no run is missed though a clock was wrong by up to five for a while."""
_MERGED: Final = 400
"""Jobs times states that a question merges; with more it goes by the states alone."""


def of_job(job: str, state: str) -> str:
    """FROM and WHERE of a job's runs in one state; `job` is SQL: a column, or a parameter."""
    if state == "waiting":
        return f"FROM taskloop_runs INDEXED BY taskloop_runs_queued WHERE job = {job} AND state = 'waiting'"
    if state == "running":
        return f"FROM taskloop_runs INDEXED BY taskloop_runs_running WHERE job = {job} AND state = 'running'"
    return f"FROM taskloop_runs INDEXED BY taskloop_runs_final WHERE job = {job} AND state = '{state}' AND {FINAL}"


def ids_of_job(job: str, further: str, *, newest: bool, limit: str) -> str:
    """A SELECT of the ids of a job's runs in any state, oldest or newest first. All but `newest` is SQL, `limit` too."""
    parts = " UNION ALL ".join(f"SELECT id {of_job(job, state)}{further}" for state in (*_LASTING, "skipped"))
    return f"SELECT id FROM ({parts} ORDER BY id{' DESC' if newest else ''} LIMIT {limit})"


def _of_all(state: str) -> str:
    """FROM and WHERE of all runs in one state."""
    if state in _TROUBLED:
        these = ", ".join(f"'{one}'" for one in _TROUBLED)
        return f"FROM taskloop_runs INDEXED BY taskloop_runs_troubled WHERE state = '{state}' AND state IN ({these})"
    index = {"waiting": "INDEXED BY taskloop_runs_queued", "running": "INDEXED BY taskloop_runs_running"}
    return f"FROM taskloop_runs {index.get(state, 'NOT INDEXED')} WHERE state = '{state}'"


def first_since(db: sqlite3.Connection, at: int) -> int:
    """The id of about the first run that was put on record at an instant or later.

    Ids grow as time does, so it is found by halves, in some thirty steps through the table itself; an index by time
    would cost each run that is written. Where a clock was set back the order is not quite that: hence `SLACK`.
    """
    low, high = 0, db.execute("SELECT coalesce(max(id), 0) + 1 FROM taskloop_runs").fetchone()[0]
    while low < high:
        middle = (low + high) // 2
        row = db.execute(
            "SELECT id, created_at FROM taskloop_runs WHERE id >= ? ORDER BY id LIMIT 1", (middle,)
        ).fetchone()
        if row is None or row[1] >= at:
            high = middle
        else:
            low = row[0] + 1
    return low


def between(db: sqlite3.Connection, since: int | None, until: int | None) -> dict[str, Any]:
    """Conditions for what was put on record in a span: on the ids, by which rows are found, and on the instant itself."""
    found: dict[str, Any] = {}
    if since is not None:
        found |= {"id >= ?": first_since(db, since - SLACK), "created_at >= ?": since}
    if until is not None:
        found |= {"id <= ?": first_since(db, until + SLACK), "created_at < ?": until}
    return found


def _asked_for(
    db: sqlite3.Connection, columns: str, jobs: Any, states: Any, further: str, values: Sequence[Any]
) -> list[Any]:
    """Runs that came about otherwise than by their schedule: few among many, in an index of their own."""
    among = ["cause <> 'schedule'", "state IN (SELECT value FROM json_each(?))"]
    if jobs is not None:
        among.append("job IN (SELECT value FROM json_each(?))")
    given = [json.dumps(one) for one in (states, jobs) if one is not None]
    return db.execute(
        f"SELECT {columns} FROM taskloop_runs INDEXED BY taskloop_runs_asked WHERE {' AND '.join(among)}{further} "
        "ORDER BY id DESC LIMIT ?",
        (*given, *values),
    ).fetchall()


def find(
    db: sqlite3.Connection,
    columns: str,
    *,
    jobs: Sequence[str] | None,
    states: Sequence[str] | None,
    skipped: bool,
    cause: str | None = None,
    between: Mapping[str, Any],
    conditions: Mapping[str, Any],
    limit: int,
) -> list[Any]:
    """Runs, newest first. `between`: what `between` gave for the span of time; `conditions`: further ones, each a text with
    one `?`, and its value.
    """
    conditions = {**conditions, **between, **({} if cause is None else {"cause = ?": cause})}
    further = "".join(f" AND {text}" for text in conditions)
    values = list(conditions.values())
    wanted = (*_LASTING, *(["skipped"] if skipped else [])) if states is None else list(dict.fromkeys(states))
    if cause not in (None, "schedule") and "succeeded" in wanted:
        return _asked_for(db, columns, jobs, wanted, further, [*values, limit])
    if jobs is None and (states is None or len(wanted) > len(_LASTING)):
        where = "state <> 'skipped'" if states is None and not skipped else "1"
        rest = f"FROM taskloop_runs WHERE {where}{further} ORDER BY id DESC LIMIT ?"
        return db.execute(f"SELECT {columns} {rest}", (*values, limit)).fetchall()
    names = None if jobs is None else list(dict.fromkeys(jobs))
    if names is not None and len(names) * len(wanted) > _MERGED:
        further, values = f" AND job IN (SELECT value FROM json_each(?)){further}", [json.dumps(names), *values]
        names = None
    merged: list[tuple[str, list[str]]] = []
    for state in wanted:
        these = _queued(db) if state == "waiting" and jobs is None else names
        merged += [(_of_all(state), [])] if these is None else [(of_job("?", state), [name]) for name in these]
    parts = [f"SELECT id {rest}{further}" for rest, _ in merged]
    given = [value for _, named in merged for value in (*named, *values)]
    if not parts:
        return []
    return db.execute(
        f"SELECT {columns} FROM taskloop_runs WHERE id IN "
        f"(SELECT id FROM ({' UNION ALL '.join(parts)} ORDER BY id DESC LIMIT ?)) ORDER BY id DESC",
        (*given, limit),
    ).fetchall()


# -- what waits

_IN_LINE: Final = "FROM taskloop_runs INDEXED BY taskloop_runs_next WHERE state = 'waiting'"
_QUEUED: Final = (
    f"queued(job) AS (SELECT min(job) {_IN_LINE} UNION ALL "
    f"SELECT (SELECT min(job) {_IN_LINE} AND job > q.job) FROM queued q WHERE q.job NOT NULL)"
)
"""The jobs of which runs wait, and at the end NULL: each is found by one look into the index, however many wait."""
_QUEUES: Final = (
    f"WITH RECURSIVE {_QUEUED}, queue(job, priority) AS ("
    f"SELECT job, (SELECT min(priority) {_IN_LINE} AND job = q.job) FROM queued q WHERE q.job NOT NULL UNION ALL "
    f"SELECT job, (SELECT min(priority) {_IN_LINE} AND job = q.job AND priority > q.priority) FROM queue q "
    "WHERE q.priority NOT NULL) SELECT job, priority FROM queue WHERE priority NOT NULL"
)


def _queued(db: sqlite3.Connection) -> list[str] | None:
    """The jobs of which runs wait: there may be many, and by id they stand in order only within a job. None: too many jobs."""
    names = [row[0] for row in db.execute(f"WITH RECURSIVE {_QUEUED} SELECT job FROM queued WHERE job NOT NULL")]
    return names if len(names) <= _MERGED else None


def late(db: sqlite3.Connection, columns: str, before: int, each: int, most: int | None = None) -> list[Any]:
    """Runs that wait though they were ready before then, the oldest first, at most `each` of a job; held ones left out."""
    held = {
        row[0]
        for row in db.execute(
            "SELECT job FROM taskloop_switches WHERE kind = 'paused' AND ended_at IS NULL "
            "AND (until IS NULL OR until > ?)",
            (before,),
        )
    }
    oldest: dict[str, list[tuple[int, int]]] = {}
    for job, priority in () if None in held else db.execute(_QUEUES).fetchall():
        if job not in held:
            oldest.setdefault(job, []).extend(
                db.execute(
                    f"SELECT ready_at, id {_IN_LINE} AND job = ? AND priority = ? AND ready_at < ? "
                    "ORDER BY ready_at LIMIT ?",
                    (job, priority, before, each),
                )
            )
    chosen = sorted((place, *one) for of_job in oldest.values() for place, one in enumerate(sorted(of_job)[:each]))
    ids = [run for _, _, run in chosen[:most]]
    return db.execute(
        f"SELECT {columns} FROM taskloop_runs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY ready_at",
        (json.dumps(ids),),
    ).fetchall()


# -- how a job stands


def _newest(job: str, state: str) -> str:
    return f"(SELECT max(id) {of_job(job, state)})"


def _failures(job: str, after: str, columns: str) -> str:
    """The failures of a job with an id above `after`, those left out that a stop of the program caused."""
    return " UNION ALL ".join(
        f"SELECT {columns} {of_job(job, state)} AND id > {after} AND reason IS NOT 'shutting_down'"
        for state in ("failed", "interrupted")
    )


TOLD_BY: Final = ("state", "reason", "summary", "substr(error, 1, 2500)")
"""What a failure says of itself: of its error, which is long, the beginning: its type stands there."""


def _first_failure(job: str, after: str, otherwise: str) -> str:
    """The id of the first of those failures; `otherwise` where there is none but what a stop caused."""
    ids = (
        f"(SELECT id {of_job(job, state)} AND id > {after} AND reason IS NOT 'shutting_down' ORDER BY id LIMIT 1)"
        for state in ("failed", "interrupted")
    )
    return f"min({', '.join(f'coalesce({one}, {otherwise})' for one in ids)})"


def _stands(jobs: str) -> str:
    """WITH of each job that ever ran: its newest run, skips not counted, and its newest success and failure, 0: none."""
    states = ", ".join(f"coalesce({_newest('j.value', state)}, 0) AS {state}" for state in _LASTING)
    # Materialized, else each of these ids is looked for wherever it is named.
    return (
        f"WITH ids AS MATERIALIZED (SELECT j.value AS name, {states} FROM json_each({jobs}) j), s AS (SELECT *, "
        f"max({', '.join(_LASTING)}) AS newest, max(failed, interrupted) AS trouble FROM ids) "
    )


_SINCE_SUCCESS: Final = (
    "CASE WHEN s.succeeded THEN (SELECT ended_at FROM taskloop_runs WHERE id = s.succeeded) END AS last_success, "
    "CASE WHEN s.trouble > s.succeeded THEN (SELECT count(*) FROM "
    f"({_failures('s.name', 's.succeeded', '1')} LIMIT 100)) ELSE 0 END AS failures "
)


def standing(db: sqlite3.Connection, columns: str, jobs: Sequence[str]) -> list[Any]:
    """Of each job that ever ran its newest run, skips not counted; then its last success, and its failures since, counted to 100."""
    return db.execute(
        f"{_stands('?')} SELECT {columns}, {_SINCE_SUCCESS} FROM s CROSS JOIN taskloop_runs r ON r.id = s.newest",
        (json.dumps(list(jobs)),),
    ).fetchall()


def newest(db: sqlite3.Connection, jobs: Sequence[str]) -> list[Any]:
    """Of each job that ever ran: its name, the id and the state of its newest run, skips not counted; its last success, its
    failures since, counted to 100; the end of the first of them; of the newest its state, reason, summary and the beginning
    of its error; whether the newest run has had an attempt. Reads no row of a job that is well but one.
    """
    state = " ".join(f"WHEN s.{state} THEN '{state}'" for state in _LASTING)
    failure = ", ".join(
        f"CASE WHEN s.trouble > s.succeeded THEN (SELECT {column} FROM taskloop_runs WHERE id = {run}) END"
        for column, run in (
            ("ended_at", _first_failure("s.name", "s.succeeded", "s.trouble")),
            *((column, "s.trouble") for column in TOLD_BY),
        )
    )
    return db.execute(
        f"{_stands('?')} SELECT s.name, s.newest, CASE s.newest {state} END, {_SINCE_SUCCESS}, {failure}, "
        "s.newest <> s.waiting OR (SELECT attempt > 0 FROM taskloop_runs WHERE id = s.newest) FROM s WHERE s.newest > 0",
        (json.dumps(list(jobs)),),
    ).fetchall()


def recent(db: sqlite3.Connection, jobs: Sequence[Sequence[str]], limit: int) -> list[list[Any]]:
    """Of each job, under its names, its newest runs, skips not counted, at most `limit`: the id, the state, what it took."""
    return [_recent(db, names, limit) for names in jobs]


def _recent(db: sqlite3.Connection, names: Sequence[str], limit: int) -> list[Any]:
    parts = " UNION ALL ".join(f"SELECT id {of_job('?', state)}" for state in _LASTING for _ in names)
    return db.execute(
        "SELECT id, state, (ended_at - started_at) / 1e6 FROM taskloop_runs WHERE id IN "
        f"(SELECT id FROM ({parts} ORDER BY id DESC LIMIT ?)) ORDER BY id DESC",
        (*list(names) * len(_LASTING), limit),
    ).fetchall()


def usual(db: sqlite3.Connection, jobs: Sequence[str]) -> dict[str, list[float]]:
    """Of each job that ever succeeded the seconds of its newest successful attempts, 200 at most."""
    found = {}
    for job in jobs:
        rows = db.execute(
            f"SELECT (ended_at - attempt_started_at) / 1e6 {of_job('?', 'succeeded')} "
            "AND attempt_started_at IS NOT NULL ORDER BY id DESC LIMIT 200",
            (job,),
        ).fetchall()
        if rows:
            found[job] = [row[0] for row in rows]
    return found


def days(db: sqlite3.Connection, jobs: Sequence[str], first: int, last: int) -> list[tuple[int, str, int, int]]:
    """What was counted of jobs: the day, the state, how many runs ended so, and what they took; the oldest first."""
    rows: list[tuple[int, str, int, int]] = db.execute(
        "SELECT day, state, sum(runs), sum(took) FROM taskloop_daily WHERE day IN (SELECT value FROM json_each(?)) "
        "AND job IN (SELECT value FROM json_each(?)) GROUP BY day, state ORDER BY day",
        (json.dumps(list(range(first, last + 1))), json.dumps(jobs)),
    ).fetchall()
    return rows


def newest_active(db: sqlite3.Connection, job: str, now: int) -> int | None:
    """The newest run of a job that runs, or waits and is ready: one that is for later stands in nobody's way."""
    ready = f"(SELECT max(id) {of_job('?', 'waiting')} AND ready_at <= ?)"
    found = db.execute(f"SELECT {ready}, {_newest('?', 'running')}", (job, now, job)).fetchone()
    return max((one for one in found if one is not None), default=None)


def landmarks(db: sqlite3.Connection, job: str, failures: int) -> tuple[int, int, frozenset[int]]:
    """The runs that tell how a job stands, as `Landmarks` has them: of its newest failures so many at most."""
    newest, success = db.execute(f"{_stands('?')} SELECT newest, succeeded FROM s", (json.dumps([job]),)).fetchone()
    rows = db.execute(
        f"{_failures('?', '?', 'id')} ORDER BY id DESC LIMIT ?", (job, success, job, success, failures)
    ).fetchall()
    return newest, success, frozenset(row[0] for row in rows)


def failed_in_a_row(db: sqlite3.Connection, job: str, number: int, since: int) -> bool:
    """Whether the newest runs of a job, so many, all failed, and ended after `since`."""
    success = db.execute(f"SELECT coalesce({_newest('?', 'succeeded')}, 0)", (job,)).fetchone()[0]
    rows = db.execute(
        f"SELECT ended_at FROM ({_failures('?', '?', 'id, ended_at')} ORDER BY id DESC LIMIT ?)",
        (job, success, job, success, number),
    ).fetchall()
    return len(rows) == number and all(row[0] > since for row in rows)
