"""The past in SQLite: all that is on record around one instant of a job, in one consistent look.

Plain functions of a connection, called on the reading thread. What they give is a `store_data.Evidence`, from which `why`
explains; nothing here judges. First the records that may be meant are read; `choose`, which is pure, takes one; then
the facts around that one are. Start at `evidence`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from taskloop.clock import from_microseconds, microseconds
from taskloop.history_sqlite import first_since, ids_of_job
from taskloop.keeping_sqlite import FACTS_SINCE, FOR_EVER, incidents, switches, workers
from taskloop.rows import RUN_COLUMNS, SCHEDULE_COLUMNS, instant, moment, read_run, read_schedule
from taskloop.runs import Run
from taskloop.schedules import Schedule
from taskloop.store import Choose
from taskloop.store_data import Evidence, Former, Subject, Window, Worker

MOST_SCHEDULES: Final = 1000
MOST_KNOWN: Final = 10_000
"""Schedules of a job of which each is asked for its records: a job may have a million."""
MOST_RECORDS: Final = 10_000
"""Records of a job that are looked through around an instant: what was asked for has no index by its time."""
DAY: Final = 86_400_000_000
MINUTE: Final = 60_000_000
SECOND: Final = 1_000_000

_RUN: Final = ",".join(RUN_COLUMNS)
_IS_DUE: Final = "next_due <= :now AND next_due IS NOT NULL"
_MINE: Final = "job IN (SELECT value FROM json_each(:jobs))"
_KNOWN: Final = (
    f"WITH known(id) AS (SELECT id FROM (SELECT id FROM taskloop_schedules WHERE {_MINE} LIMIT {MOST_KNOWN}) "
    f"UNION SELECT value FROM json_each(:jobs) UNION SELECT id FROM taskloop_former WHERE {_MINE} AND until > :since) "
)
"""Every id under which the job has or had a schedule; of very many a part: records of the others are found by their time."""
_NEAR: Final = (
    f"WITH near AS (SELECT {_RUN} FROM taskloop_runs WHERE id IN "
    f"({ids_of_job(':job', ' AND id >= :first', newest=False, limit=':most')}) ORDER BY id) "
)
"""Records of one job in the order in which they were written, from one on."""
_DUE_THEN: Final = "due_at >= :since AND due_at < :until"
_NEAREST: Final = (
    "(SELECT json_group_array(id) FROM (SELECT id FROM near WHERE {} ORDER BY abs(due_at - :at) LIMIT 100))"
)
_WRITTEN_THEN: Final = f"({_DUE_THEN} OR created_at >= :since AND created_at < :until)"
_THEN: Final = (
    "WITH near AS (SELECT id, schedule, due_at, created_at FROM taskloop_runs WHERE id IN "
    f"({ids_of_job(':job', ' AND id >= :first', newest=False, limit=':most')})) "
    f"SELECT {_NEAREST.format(f'schedule IS NOT NULL AND {_DUE_THEN}')}, "
    f"{_NEAREST.format(f'schedule IS NULL AND {_WRITTEN_THEN}')}, count(*), max(created_at) FROM near"
)
"""Of those the fires of a window and what was asked for then, by their ids, and how many there are: in one pass."""
_TOUCHES: Final = (
    "(since <= :until OR since IN (SELECT old.ended_at FROM taskloop_switches old WHERE old.since <= :until "
    "AND old.job IS taskloop_switches.job))"
)
"""Switches of that time, and the one that took the place of one of them: as that ended the job may have stayed off."""


def evidence(
    db: sqlite3.Connection, jobs: Sequence[str], now: datetime, choose: Choose, window: Window | None, run: int | None
) -> Evidence:
    """All that an explanation of one job around one instant, or of one run, is made from; one consistent look."""
    db.execute("BEGIN")
    try:
        return _around(db, jobs, choose, _candidates(db, list(jobs), now, window, run))
    finally:
        db.execute("ROLLBACK")


# -- which records may be meant


def _candidates(
    db: sqlite3.Connection, jobs: list[str], now: datetime, window: Window | None, run: int | None
) -> Evidence:
    names, at = json.dumps(jobs), microseconds(now)
    cut = False
    if run is not None:
        rows, asked = _runs(db, "WHERE id = ?", (run,)), []
        at = microseconds(rows[0].due_at) if rows else at
    elif window is None:
        rows, asked = _newest(db, jobs, at), _asked_before(db, jobs, FOR_EVER)
    else:
        at = microseconds(window.since)
        rows = _of_schedules(db, names, window)
        more, asked, cut = _written_then(db, jobs, window)
        seen = {one.id for one in rows}
        rows = [*rows, *(one for one in more if one.id not in seen)]
        asked = asked or _asked_before(db, jobs, microseconds(window.until))
    schedules, left_out = _schedules(db, jobs, microseconds(now), [one.schedule for one in rows])
    return Evidence(
        schedules=schedules,
        former=_former(db, names, at),
        rows=rows,
        asked=asked,
        active=_active(db, names),
        began_at=_began_at(db),
        known_since=_known_since(db),
        kept_since=_kept_since(db, jobs),
        left_out=left_out,
        cut=cut,
    )


def _schedules(
    db: sqlite3.Connection, jobs: Sequence[str], now: int, first: Iterable[str | None]
) -> tuple[list[Schedule], int]:
    """The schedules of a job; of very many those with a record among the candidates, those that are due, and how many more."""
    asked = f"SELECT {','.join(SCHEDULE_COLUMNS)} FROM taskloop_schedules"
    values: dict[str, Any] = {"ids": json.dumps(sorted({one for one in first if one})), "now": now}

    def found(which: str) -> list[Any]:
        text = f"{asked} {which} LIMIT {MOST_SCHEDULES + 1}"
        return [row for job in jobs for row in db.execute(text, {"job": job, **values})]

    rows, number = found("WHERE job = :job ORDER BY id"), 0
    if len(rows) > MOST_SCHEDULES:  # there may be a million: none of these goes through all of them
        meant = found("WHERE job = :job AND id IN (SELECT value FROM json_each(:ids))")
        due = f"INDEXED BY taskloop_schedules_due WHERE {_IS_DUE} AND job = :job ORDER BY next_due"
        rows = list({row[0]: row for row in [*meant, *found(due), *rows]}.values())[:MOST_SCHEDULES]
        counted = "SELECT count(*) FROM taskloop_schedules WHERE job = ?"
        number = sum(db.execute(counted, (job,)).fetchone()[0] for job in jobs) - len(rows)
    return sorted(map(read_schedule, rows), key=lambda one: one.id), number


def _former(db: sqlite3.Connection, names: str, at: int) -> list[Former]:
    rows = db.execute(
        "SELECT id, job, trigger, NULL, NULL, NULL, anchor, seen_at, 1, origin, until FROM taskloop_former "
        f"WHERE {_MINE} AND until > :at ORDER BY until LIMIT {MOST_SCHEDULES}",
        {"jobs": names, "at": at},
    ).fetchall()
    return [Former(read_schedule(row[:10]), from_microseconds(row[10])) for row in rows]


def _of_schedules(db: sqlite3.Connection, names: str, window: Window) -> list[Run]:
    """Of each schedule the record that holds the instant or the beginning of the window, and the next one in it."""
    one = "SELECT (SELECT r.id FROM taskloop_runs r WHERE r.schedule = known.id AND r.schedule IS NOT NULL AND "
    rest = (
        f"WHERE id IN ({_KNOWN} {one} r.due_at <= :at ORDER BY r.due_at DESC LIMIT 1) FROM known UNION "
        f"{one} r.due_at > :at AND r.due_at < :until ORDER BY r.due_at LIMIT 1) FROM known) "
        f"AND {_MINE} AND coalesce(until_at, due_at) >= :since ORDER BY abs(due_at - :at) LIMIT {MOST_SCHEDULES}"
    )
    return _runs(db, rest, {"jobs": names, **_instants(window)})


def _written_then(db: sqlite3.Connection, jobs: Sequence[str], window: Window) -> tuple[list[Run], list[Run], bool]:
    """Records of the window that no schedule leads to: fires of schedules that are gone, and runs asked for."""
    gone: list[Run] = []
    asked: list[Run] = []
    cut = False
    for job in jobs:
        first, late = _first_before(db, job, microseconds(window.since))
        values: dict[str, Any] = {"job": job, "first": first, "most": MOST_RECORDS, **_instants(window)}
        fired, called, number, last = db.execute(_THEN, values).fetchone()
        gone += _by_nearness(db, fired)
        asked += _by_nearness(db, called)
        cut |= late or (number == MOST_RECORDS and last < values["until"])
    return gone, asked, cut


def _first_before(db: sqlite3.Connection, job: str, at: int) -> tuple[int, bool]:
    """Where to begin to look for what was due or asked for at an instant, and whether that is later than it should be.

    A day before it; with a busy job so late that half of what may be looked through is left for what was written from
    that instant on.
    """
    begin = first_since(db, at - DAY)
    values = {"job": job, "first": begin, "end": first_since(db, at), "most": MOST_RECORDS // 2}
    ids = ids_of_job(":job", " AND id >= :first AND id < :end", newest=True, limit=":most")
    number, earliest = db.execute(f"SELECT count(*), min(id) FROM ({ids})", values).fetchone()
    late = number == values["most"]
    return earliest if late else begin, late


def _by_nearness(db: sqlite3.Connection, ids: str) -> list[Run]:
    """Runs in the order of their ids as they are given."""
    found = {run.id: run for run in _runs(db, "WHERE id IN (SELECT value FROM json_each(?))", (ids,))}
    return [found[one] for one in json.loads(ids)]


def _newest(db: sqlite3.Connection, jobs: Sequence[str], now: int) -> list[Run]:
    """The fire of a job that was decided last: of its schedules', and of its newest records, if they are gone."""
    last = "SELECT (SELECT id FROM taskloop_runs WHERE schedule = known.id AND schedule IS NOT NULL AND due_at <= :now "
    rest = (
        f"WHERE id IN ({_KNOWN} {last} ORDER BY due_at DESC LIMIT 1) FROM known) AND {_MINE} "
        "ORDER BY max(created_at, coalesce(until_at, due_at)) DESC, id DESC LIMIT 1"
    )
    found = _runs(db, rest, {"jobs": json.dumps(list(jobs)), "now": now, "since": 0})
    for job in jobs:
        found += _runs(
            db,
            f"WHERE id IN ({ids_of_job(':job', '', newest=True, limit=':most')}) AND schedule IS NOT NULL "
            "ORDER BY id DESC LIMIT 1",
            {"job": job, "most": MOST_RECORDS},
        )
    return found


def _asked_before(db: sqlite3.Connection, jobs: Sequence[str], until: int) -> list[Run]:
    """The newest run of a job that was asked for before an instant, among its records of that time."""
    found = []
    for job in jobs:
        end = FOR_EVER if until == FOR_EVER else first_since(db, until)
        found += _runs(
            db,
            f"WHERE id IN ({ids_of_job(':job', ' AND id < :end', newest=True, limit=':most')}) AND schedule IS NULL "
            "ORDER BY id DESC LIMIT 1",
            {"job": job, "end": end, "most": MOST_RECORDS},
        )
    return sorted(found, key=lambda one: one.id)[-1:]


# -- what is known around the one that is meant


def _around(db: sqlite3.Connection, jobs: Sequence[str], choose: Choose, found: Evidence) -> Evidence:
    names = json.dumps(list(jobs))
    subject = choose(found)
    since, until = microseconds(subject.since), microseconds(subject.until)
    previous, following = _beside(db, jobs, subject)
    return found._replace(
        previous=previous,
        next=following,
        ahead=None if subject.row is None else next(iter(_ahead(db, subject.row)), None),
        freed=[] if subject.row is None else _freed(db, subject.row),
        switches=switches(
            db, f"WHERE ({_MINE} OR job IS NULL) AND coalesce(ended_at, :end) >= :since AND {_TOUCHES} ORDER BY id",
            {"jobs": names, "end": FOR_EVER, "since": since, "until": until},
        ),
        workers=_workers_around(db, since, until),
        incidents=incidents(db, since - MINUTE, until),
        group=[] if subject.row is None or subject.row.group is None else _runs(
            db, "WHERE state = 'running' AND \"group\" = ? ORDER BY +id LIMIT 100", (subject.row.group,)
        ),
    )  # fmt: skip


def _beside(db: sqlite3.Connection, jobs: Sequence[str], subject: Subject) -> tuple[Run | None, Run | None]:
    """The records before and after the one that is meant; where none is, those nearest of any schedule of the job."""
    row = subject.row
    first = microseconds(subject.since if row is None else row.due_at)
    last = first if row is None else moment(row.until_at) or first
    if row is not None or subject.schedule is not None:
        rest = "WHERE schedule = ? AND schedule IS NOT NULL AND due_at {} ? ORDER BY due_at {} LIMIT 1"
        before = _runs(db, rest.format("<", "DESC"), (subject.schedule, first))
        after = _runs(db, rest.format(">", "ASC"), (subject.schedule, last))
        return next(iter(before), None), next(iter(after), None)
    values = {"jobs": json.dumps(list(jobs)), "at": first, "since": first, "most": MOST_RECORDS}
    one = f"{_KNOWN} SELECT (SELECT id FROM taskloop_runs WHERE schedule = known.id AND schedule IS NOT NULL AND due_at"
    before = _runs(db, f"WHERE id IN ({one} < :at ORDER BY due_at DESC LIMIT 1) FROM known) AND {_MINE}", values)
    after = _runs(db, f"WHERE id IN ({one} > :at ORDER BY due_at LIMIT 1) FROM known) AND {_MINE}", values)
    for job in jobs:
        values |= {"job": job, "first": first_since(db, first - DAY)}
        near = f"{_NEAR} SELECT {_RUN} FROM near WHERE schedule IS NOT NULL AND due_at"
        before += map(read_run, db.execute(f"{near} < :at ORDER BY due_at DESC LIMIT 1", values))
        after += map(read_run, db.execute(f"{near} > :at ORDER BY due_at LIMIT 1", values))
    return max(before, key=lambda run: run.due_at, default=None), min(after, key=lambda run: run.due_at, default=None)


def _ahead(db: sqlite3.Connection, row: Run) -> list[Run]:
    """The last run of a schedule before one of its records, skips left out."""
    return _runs(
        db,
        "WHERE id = (SELECT id FROM (SELECT id, state FROM taskloop_runs WHERE schedule = ? AND schedule IS NOT NULL "
        "AND due_at < ? ORDER BY due_at DESC LIMIT ?) WHERE state <> 'skipped' LIMIT 1)",
        (row.schedule, microseconds(row.due_at), MOST_RECORDS),
    )


def _freed(db: sqlite3.Connection, row: Run) -> list[Run]:
    """The last run of its group, and of its job, that ended while one waited: among those put on record since a day before."""
    due, began = microseconds(row.due_at), moment(row.started_at)
    if began is None or began - due <= SECOND:
        return []
    ended = "ended_at > :due AND ended_at <= :began ORDER BY ended_at DESC LIMIT 1"
    return _runs(
        db,
        'WHERE id IN (WITH near AS MATERIALIZED (SELECT id, job, "group", ended_at FROM taskloop_runs '
        "WHERE id BETWEEN :first AND :last AND id <> :id AND started_at IS NOT NULL ORDER BY id DESC LIMIT :most) "
        f'SELECT * FROM (SELECT id FROM near WHERE "group" = :group AND {ended}) UNION '
        f"SELECT * FROM (SELECT id FROM near WHERE job = :job AND {ended})) ORDER BY id",
        {
            "id": row.id, "job": row.job, "group": row.group, "due": due, "began": began, "most": MOST_RECORDS,
            "first": first_since(db, due - DAY), "last": first_since(db, began),
        },
    )  # fmt: skip


def _workers_around(db: sqlite3.Connection, at: int, last: int) -> list[Worker]:
    """Those that lived in a span, first who lives still; the last one that ended before it and the first one that came after it."""
    living = "started_at <= ? AND (stopped_at IS NULL OR stopped_at >= ?)"
    return [
        *workers(db, "WHERE stopped_at IS NOT NULL AND stopped_at < ? ORDER BY stopped_at DESC LIMIT 1", (at,)),
        *workers(db, f"WHERE {living} ORDER BY stopped_at IS NOT NULL, started_at LIMIT 100", (last, at)),
        *workers(db, "WHERE started_at > ? ORDER BY started_at LIMIT 1", (last,)),
    ]


# -- how far back anything is known


def _active(db: sqlite3.Connection, names: str) -> list[Run]:
    """The runs of a job that wait or run, by the small indexes of these states."""
    parts = " UNION ALL ".join(
        f"SELECT id FROM taskloop_runs INDEXED BY taskloop_runs_{index} WHERE {_MINE} AND state = '{state}'"
        for index, state in (("queued", "waiting"), ("running", "running"))
    )
    return _runs(db, f"WHERE id IN (SELECT id FROM ({parts} ORDER BY id LIMIT 100)) ORDER BY id", {"jobs": names})


def _began_at(db: sqlite3.Connection) -> datetime | None:
    (found,) = db.execute(
        "SELECT min(at) FROM (SELECT min(started_at) AS at FROM taskloop_workers UNION ALL "
        f"SELECT min(seen_at) FROM (SELECT seen_at FROM taskloop_schedules LIMIT {MOST_KNOWN}) "
        "UNION ALL SELECT min(seen_at) FROM taskloop_former UNION ALL "
        "SELECT created_at FROM taskloop_runs WHERE id = (SELECT min(id) FROM taskloop_runs))"
    ).fetchone()
    return instant(found)


def _known_since(db: sqlite3.Connection) -> datetime | None:
    row = db.execute("SELECT value FROM taskloop_meta WHERE key = ?", (FACTS_SINCE,)).fetchone()
    return from_microseconds(int(row[0])) if row else None


def _kept_since(db: sqlite3.Connection, jobs: Sequence[str]) -> datetime | None:
    (found,) = db.execute(
        "SELECT min(min(created_at, due_at)) FROM taskloop_runs WHERE id IN "
        f"(SELECT ({ids_of_job('j.value', '', newest=False, limit='1')}) FROM json_each(?) j)",
        (json.dumps(list(jobs)),),
    ).fetchone()
    return instant(found)


def _runs(db: sqlite3.Connection, rest: str, values: Any) -> list[Run]:
    return [read_run(row) for row in db.execute(f"SELECT {_RUN} FROM taskloop_runs {rest}", values)]


def _instants(window: Window) -> dict[str, int]:
    return {name: microseconds(at) for name, at in zip(("at", "since", "until"), window, strict=True)}
