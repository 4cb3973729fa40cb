"""The past in PostgreSQL: all that is on record around one instant of a job, in one consistent look.

Level 5. Plain functions of a connection, in a transaction that sees one state throughout. What they give is a
`store_data.Evidence`, from which `why` explains; nothing here judges. First the records that may be meant are read; `choose`,
which is pure, takes one; then the facts around that one are. Start at `evidence`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from taskloop.clock import from_microseconds, microseconds
from taskloop.history_postgres import first_since, ids_of_job
from taskloop.keeping_postgres import FACTS_SINCE, FOR_EVER, incidents, switches, workers
from taskloop.rows import instant, moment, read_schedule
from taskloop.rows_postgres import RUN, SCHEDULE, Db, read_runs, read_schedules
from taskloop.runs import Run
from taskloop.schedules import Schedule
from taskloop.store import Choose
from taskloop.store_data import Evidence, Former, Subject, Window, Worker

MOST_SCHEDULES: Final = 1000
MOST_KNOWN: Final = 10_000
"""Schedules of a job of which each is asked for its records: a job may have a million."""
MOST_RECORDS: Final = 20_000
"""Records of a job that are looked through around an instant: what was asked for has no index by its time."""
DAY: Final = 86_400_000_000
MINUTE: Final = 60_000_000
SECOND: Final = 1_000_000

_MINE: Final = "job = ANY($1::text[])"
_KNOWN: Final = (
    f"WITH known(id) AS (SELECT id FROM (SELECT id FROM taskloop.schedules WHERE {_MINE} LIMIT {MOST_KNOWN}) s "
    f"UNION SELECT unnest($1::text[]) UNION SELECT id FROM taskloop.former WHERE {_MINE} AND until > $2) "
)
"""Every id under which the jobs $1 have or had a schedule since $2; of very many a part: records of the
others are found by their time.
"""
_NEAR: Final = (
    f"WITH near AS (SELECT {RUN} FROM taskloop.runs WHERE id IN "
    f"({ids_of_job('$1', ' AND id >= $2', newest=False, limit='$3')}) ORDER BY id) "
)
"""Records of the job $1 in the order in which they were written, from $2 on, $3 at most."""
_TOUCHES: Final = (
    "(since <= $3 OR since IN (SELECT old.ended_at FROM taskloop.switches old WHERE old.since <= $3 "
    "AND old.job IS NOT DISTINCT FROM switches.job))"
)
"""Switches of that time, and the one that took the place of one of them: as that ended the job may have stayed off."""


async def evidence(
    db: Db, jobs: Sequence[str], now: datetime, choose: Choose, window: Window | None, run: int | None
) -> Evidence:
    """All that an explanation of one job around one instant, or of one run, is made from."""
    return await _around(db, jobs, choose, await _candidates(db, list(jobs), now, window, run))


# -- which records may be meant


async def _candidates(db: Db, jobs: list[str], now: datetime, window: Window | None, run: int | None) -> Evidence:
    at = microseconds(now)
    cut = False
    asked: list[Run] = []
    if run is not None:
        rows = await _runs(db, "WHERE id = $1", run)
        at = microseconds(rows[0].due_at) if rows else at
    elif window is None:
        rows, asked = await _newest(db, jobs, at), await _asked_before(db, jobs, FOR_EVER)
    else:
        at = microseconds(window.since)
        rows = await _of_schedules(db, jobs, window)
        more, asked, cut = await _written_then(db, jobs, window)
        seen = {one.id for one in rows}
        rows = [*rows, *(one for one in more if one.id not in seen)]
        asked = asked or await _asked_before(db, jobs, microseconds(window.until))
    schedules, left_out = await _schedules(db, jobs, microseconds(now), [one.schedule for one in rows])
    return Evidence(
        schedules=schedules,
        former=await _former(db, jobs, at),
        rows=rows,
        asked=asked,
        active=await _active(db, jobs),
        began_at=await _began_at(db),
        known_since=await _known_since(db),
        kept_since=await _kept_since(db, jobs),
        left_out=left_out,
        cut=cut,
    )


async def _schedules(db: Db, jobs: list[str], now: int, first: Iterable[str | None]) -> tuple[list[Schedule], int]:
    """The schedules of a job; of very many those with a record among the candidates, those that are due, and how many more."""

    async def found(which: str, *values: Any) -> list[Any]:
        text = f"SELECT {SCHEDULE} FROM taskloop.schedules WHERE job = $1 {which} LIMIT {MOST_SCHEDULES + 1}"
        return [row for job in jobs for row in await db.fetch(text, job, *values)]

    rows, number = await found("ORDER BY id"), 0
    if len(rows) > MOST_SCHEDULES:  # there may be a million: none of these goes through all of them
        meant = await found("AND id = ANY($2::text[])", sorted({one for one in first if one}))
        due = await found("AND next_due <= $2 ORDER BY next_due", now)
        rows = list({row[0]: row for row in [*meant, *due, *rows]}.values())[:MOST_SCHEDULES]
        number = await db.fetchval(f"SELECT count(*) FROM taskloop.schedules WHERE {_MINE}", jobs) - len(rows)
    return sorted(read_schedules(rows), key=lambda one: one.id), number


async def _former(db: Db, jobs: list[str], at: int) -> list[Former]:
    rows = await db.fetch(
        "SELECT id, job, trigger, NULL, NULL, NULL, anchor, seen_at, 1, origin, until FROM taskloop.former "
        f"WHERE {_MINE} AND until > $2 ORDER BY until LIMIT {MOST_SCHEDULES}",
        jobs, at,
    )  # fmt: skip
    return [Former(read_schedule(row), from_microseconds(row[10])) for row in rows]


async def _of_schedules(db: Db, jobs: list[str], window: Window) -> list[Run]:
    """Of each schedule the record that holds the instant or the beginning of the window, and the next one in it."""
    at, since, until = map(microseconds, window)
    one = "SELECT (SELECT r.id FROM taskloop.runs r WHERE r.schedule = known.id AND "
    return await _runs(
        db,
        f"WHERE id IN ({_KNOWN} {one} r.due_at <= $3 ORDER BY r.due_at DESC LIMIT 1) FROM known UNION "
        f"{one} r.due_at > $3 AND r.due_at < $4 ORDER BY r.due_at LIMIT 1) FROM known) "
        f"AND {_MINE} AND coalesce(until_at, due_at) >= $2 ORDER BY abs(due_at - $3) LIMIT {MOST_SCHEDULES}",
        jobs, since, at, until,
    )  # fmt: skip


async def _written_then(db: Db, jobs: Sequence[str], window: Window) -> tuple[list[Run], list[Run], bool]:
    """Records of the window that no schedule leads to: fires of schedules that are gone, and runs asked for."""
    at, since, until = map(microseconds, window)
    gone: list[Run] = []
    asked: list[Run] = []
    cut = False
    due, order = "due_at >= $4 AND due_at < $5", "ORDER BY abs(due_at - $6) LIMIT 100"
    near = f"{_NEAR} SELECT {RUN} FROM near WHERE"
    for job in jobs:
        first = await _first_since(db, job, since - DAY)
        values = (job, first, MOST_RECORDS, since, until, at)
        gone += read_runs(await db.fetch(f"{near} schedule IS NOT NULL AND {due} {order}", *values))
        written = f"({due} OR created_at >= $4 AND created_at < $5)"
        asked += read_runs(await db.fetch(f"{near} schedule IS NULL AND {written} {order}", *values))
        number, last = await db.fetchrow(f"{_NEAR} SELECT count(*), max(created_at) FROM near", *values[:3])
        cut |= number == MOST_RECORDS and last < until
    return gone, asked, cut


async def _first_since(db: Db, job: str, at: int) -> int:
    """The id of about the first record of a job that was written at an instant or later: they are in order by both."""
    low, high = 0, await db.fetchval("SELECT coalesce(max(id), 0) + 1 FROM taskloop.runs")
    next_one = ids_of_job("$1", " AND id >= $2", newest=False, limit="1")
    while low < high:
        middle = (low + high) // 2
        row = await db.fetchrow(f"SELECT id, created_at FROM taskloop.runs WHERE id = ({next_one})", job, middle)
        if row is None or row[1] >= at:
            high = middle
        else:
            low = row[0] + 1
    return low


async def _newest(db: Db, jobs: Sequence[str], now: int) -> list[Run]:
    """The fire of a job that was decided last: of its schedules', and of its newest records, if they are gone."""
    last = "SELECT (SELECT id FROM taskloop.runs WHERE schedule = known.id AND due_at <= $3 "
    found = await _runs(
        db,
        f"WHERE id IN ({_KNOWN} {last} ORDER BY due_at DESC LIMIT 1) FROM known) AND {_MINE} "
        "ORDER BY greatest(created_at, coalesce(until_at, due_at)) DESC, id DESC LIMIT 1",
        list(jobs), 0, now,
    )  # fmt: skip
    for job in jobs:
        found += await _runs(
            db,
            f"WHERE id IN ({ids_of_job('$1', '', newest=True, limit='$2')}) AND schedule IS NOT NULL "
            "ORDER BY id DESC LIMIT 1",
            job, MOST_RECORDS,
        )  # fmt: skip
    return found


async def _asked_before(db: Db, jobs: Sequence[str], until: int) -> list[Run]:
    """The newest run of a job that was asked for before an instant, among its records of that time."""
    found: list[Run] = []
    for job in jobs:
        end = FOR_EVER if until == FOR_EVER else await _first_since(db, job, until)
        found += await _runs(
            db,
            f"WHERE id IN ({ids_of_job('$1', ' AND id < $2', newest=True, limit='$3')}) AND schedule IS NULL "
            "ORDER BY id DESC LIMIT 1",
            job, end, MOST_RECORDS,
        )  # fmt: skip
    return sorted(found, key=lambda one: one.id)[-1:]


# -- what is known around the one that is meant


async def _around(db: Db, jobs: Sequence[str], choose: Choose, found: Evidence) -> Evidence:
    subject = choose(found)
    since, until = microseconds(subject.since), microseconds(subject.until)
    previous, following = await _beside(db, jobs, subject)
    row = subject.row
    return found._replace(
        previous=previous,
        next=following,
        ahead=None if row is None else next(iter(await _ahead(db, row)), None),
        freed=[] if row is None else await _freed(db, row),
        switches=await switches(
            db, f"WHERE ({_MINE} OR job IS NULL) AND coalesce(ended_at, {FOR_EVER}) >= $2 AND {_TOUCHES} ORDER BY id",
            list(jobs), since, until,
        ),
        workers=await _workers_around(db, since, until),
        incidents=await incidents(db, since - MINUTE, until),
        group=[] if row is None or row.group is None else await _runs(
            db, "WHERE state = 'running' AND \"group\" = $1 ORDER BY id LIMIT 100", row.group
        ),
    )  # fmt: skip


async def _beside(db: Db, jobs: Sequence[str], subject: Subject) -> tuple[Run | None, Run | None]:
    """The records before and after the one that is meant; where none is, those nearest of any schedule of the job."""
    row = subject.row
    first = microseconds(subject.since if row is None else row.due_at)
    last = first if row is None else moment(row.until_at) or first
    if row is not None or subject.schedule is not None:
        rest = "WHERE schedule = $1 AND due_at {} $2 ORDER BY due_at {} LIMIT 1"
        before = await _runs(db, rest.format("<", "DESC"), subject.schedule, first)
        after = await _runs(db, rest.format(">", "ASC"), subject.schedule, last)
        return next(iter(before), None), next(iter(after), None)
    one = f"{_KNOWN} SELECT (SELECT id FROM taskloop.runs WHERE schedule = known.id AND due_at"
    names = list(jobs)
    before = await _runs(
        db, f"WHERE id IN ({one} < $2 ORDER BY due_at DESC LIMIT 1) FROM known) AND {_MINE}", names, first
    )
    after = await _runs(db, f"WHERE id IN ({one} > $2 ORDER BY due_at LIMIT 1) FROM known) AND {_MINE}", names, first)
    near = f"{_NEAR} SELECT {RUN} FROM near WHERE schedule IS NOT NULL AND due_at"
    for job in jobs:
        values = (job, await _first_since(db, job, first - DAY), MOST_RECORDS, first)
        before += read_runs(await db.fetch(f"{near} < $4 ORDER BY due_at DESC LIMIT 1", *values))
        after += read_runs(await db.fetch(f"{near} > $4 ORDER BY due_at LIMIT 1", *values))
    return max(before, key=lambda run: run.due_at, default=None), min(after, key=lambda run: run.due_at, default=None)


async def _ahead(db: Db, row: Run) -> list[Run]:
    """The last run of a schedule before one of its records, skips left out."""
    return await _runs(
        db,
        "WHERE id = (SELECT id FROM (SELECT id, state FROM taskloop.runs WHERE schedule = $1 AND due_at < $2 "
        "ORDER BY due_at DESC LIMIT $3) r WHERE state <> 'skipped' LIMIT 1)",
        row.schedule, microseconds(row.due_at), MOST_RECORDS,
    )  # fmt: skip


async def _freed(db: Db, row: Run) -> list[Run]:
    """The last run of its group, and of its job, that ended while one waited: among those put on record since a day before."""
    due, began = microseconds(row.due_at), moment(row.started_at)
    if began is None or began - due <= SECOND:
        return []
    ended = "ended_at > $1 AND ended_at <= $2 ORDER BY ended_at DESC LIMIT 1"
    return await _runs(
        db,
        'WHERE id IN (WITH near AS MATERIALIZED (SELECT id, job, "group", ended_at FROM taskloop.runs '
        "WHERE id BETWEEN $3 AND $4 AND id <> $5 AND started_at IS NOT NULL ORDER BY id DESC LIMIT $6) "
        f'(SELECT id FROM near WHERE "group" = $7 AND {ended}) UNION '
        f"(SELECT id FROM near WHERE job = $8 AND {ended})) ORDER BY id",
        due, began, await first_since(db, due - DAY), await first_since(db, began), row.id, MOST_RECORDS, row.group, row.job,
    )  # fmt: skip


async def _workers_around(db: Db, at: int, last: int) -> list[Worker]:
    """Those that lived in a span, first who lives still; the last one that ended before it and the first one that came after it."""
    living = f"started_at <= $1 AND coalesce(stopped_at, {FOR_EVER}) >= $2"
    return [
        *await workers(db, "WHERE stopped_at IS NOT NULL AND stopped_at < $1 ORDER BY stopped_at DESC LIMIT 1", at),
        *await workers(db, f"WHERE {living} ORDER BY stopped_at IS NOT NULL, started_at LIMIT 100", last, at),
        *await workers(db, "WHERE started_at > $1 ORDER BY started_at LIMIT 1", last),
    ]


# -- how far back anything is known


async def _active(db: Db, jobs: list[str]) -> list[Run]:
    """The runs of a job that wait or run, by the small indexes of these states."""
    parts = " UNION ALL ".join(
        f"(SELECT id FROM taskloop.runs WHERE {_MINE} AND state = '{state}' ORDER BY id LIMIT 100)"
        for state in ("waiting", "running")
    )
    return await _runs(db, f"WHERE id IN (SELECT id FROM ({parts}) i ORDER BY id LIMIT 100) ORDER BY id", jobs)


async def _began_at(db: Db) -> datetime | None:
    found = await db.fetchval(
        "SELECT min(at) FROM (SELECT min(started_at) AS at FROM taskloop.workers UNION ALL "
        f"SELECT min(seen_at) FROM (SELECT seen_at FROM taskloop.schedules LIMIT {MOST_KNOWN}) s "
        "UNION ALL SELECT min(seen_at) FROM taskloop.former UNION ALL "
        "SELECT created_at FROM taskloop.runs WHERE id = (SELECT min(id) FROM taskloop.runs)) t"
    )
    return instant(found)


async def _known_since(db: Db) -> datetime | None:
    found = await db.fetchval("SELECT value FROM taskloop.meta WHERE key = $1", FACTS_SINCE)
    return from_microseconds(int(found)) if found else None


async def _kept_since(db: Db, jobs: list[str]) -> datetime | None:
    found = await db.fetchval(
        "SELECT min(least(created_at, due_at)) FROM taskloop.runs WHERE id IN "
        f"(SELECT ({ids_of_job('j.name', '', newest=False, limit='1')}) FROM unnest($1::text[]) j(name))",
        jobs,
    )
    return instant(found)


async def _runs(db: Db, rest: str, *values: Any) -> list[Run]:
    return read_runs(await db.fetch(f"SELECT {RUN} FROM taskloop.runs {rest}", *values))
