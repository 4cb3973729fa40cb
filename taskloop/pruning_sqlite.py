"""Which records go, in SQLite, and how: in small steps, oldest first, so that a fire never waits for long.

A round goes over the final runs of each job, state by state, and is looked out on the reading thread, where it stands
in nobody's way; what it found is then deleted in one short transaction. Start at `look`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from taskloop import steps_sqlite
from taskloop.clock import EPOCH, microseconds
from taskloop.history_sqlite import FINAL, landmarks, of_job
from taskloop.keeping_sqlite import FACTS_SINCE
from taskloop.retention import (
    COUNTED,
    NO_LANDMARKS,
    NO_RULE,
    RUNS_DONE,
    SPARED,
    TOGETHER,
    Expired,
    Landmarks,
    Place,
    Rule,
    rule_of,
)

__all__ = ["BETWEEN", "RUNS_DONE", "Expired", "checkpoint", "delete", "delete_the_rest", "look"]

LOOK_SECONDS: Final = 0.01
"""How long one step may look around: another question waits behind it."""
BETWEEN: Final = 100
"""Runs that are deleted from one checkpoint to the next: see `checkpoint`."""


def look(db: sqlite3.Connection, keep: timedelta | None, now: datetime, after: Place | None, limit: int) -> Expired:
    """Find at most `limit` runs that are to go, for a few milliseconds, from the place where the last look ended."""
    ids: list[int] = []
    place = after or Place()
    newest = db.execute("SELECT coalesce(max(id), 0) FROM taskloop_runs").fetchone()[0]
    of, rule = "", NO_RULE
    known, stays = "", NO_LANDMARKS
    number, until = limit, time.perf_counter() + LOOK_SECONDS
    while len(ids) < limit and time.perf_counter() < until:
        if place.id is None:
            following = _following(db, place)
            if following is None:
                return Expired(ids, None)
            job, state = following
            beyond = place.beyond
            if job != of:
                of, rule = job, _rule(db, job, keep, now)
            if job != place.job:
                beyond = None if rule.runs is None else _beyond(db, job, rule.runs)
            place, number = Place(job, state, 0, beyond), 1  # of most, the oldest row says that there is nothing to do
        elif place.job != of:
            of, rule = place.job, _rule(db, place.job, keep, now)
        if rule.before is None and place.beyond is None:
            place = place._replace(id=None)
            continue
        found, far = _sifted(db, place, rule, newest, now, number)
        if found:
            if known != place.job:
                known, stays = place.job, _landmarks(db, place.job, rule)
            found = [id for id in found if stays.may_go(id)]
        room = limit - len(ids)
        place = far if len(found) <= room else place._replace(id=found[room - 1])
        ids += found[:room]
        number = limit - len(ids) if found else TOGETHER  # where all stay, pass by in large steps
    return Expired(ids, place)


def _following(db: sqlite3.Connection, place: Place) -> tuple[str, str] | None:
    """The next job and state of which there are final runs."""
    found: tuple[str, str] | None = db.execute(
        f"SELECT job, state FROM taskloop_runs INDEXED BY taskloop_runs_final WHERE {FINAL} AND (job, state) > (?, ?) "
        "ORDER BY job, state LIMIT 1",
        (place.job, place.state),
    ).fetchone()
    return found


def _sifted(
    db: sqlite3.Connection, place: Place, rule: Rule, newest: int, now: datetime, number: int
) -> tuple[list[int], Place]:
    """Of the next rows, so many, those that are to go, and how far that is.

    Rows that are to stay are passed by. The end is a row that began too lately to have ended long ago, unless it began
    in the future: then the clock was wrong, and the rows after it are older than they seem.
    """
    values = {
        "job": place.job,
        "state": place.state,
        "after": place.id,
        "before": rule.before if rule.before is not None else 0,
        "beyond": place.beyond or 0,
        "spared": microseconds(now - SPARED),
        "newest": newest,
        "now": microseconds(now),
        "number": number,
    }
    found, last, looked_at, late = db.execute(
        "SELECT json_group_array(id) FILTER (WHERE goes), max(id), count(*), max(late) FROM (SELECT id, "
        "(ended_at < :before OR id <= :beyond) AND id < :newest "
        "AND (schedule IS NULL OR coalesce(until_at, due_at) < :spared) AS goes, "
        "created_at BETWEEN :before AND :now AND id > :beyond AS late FROM taskloop_runs "
        f"INDEXED BY taskloop_runs_final WHERE job = :job AND state = :state AND {FINAL} AND id > :after "
        "ORDER BY id LIMIT :number)",
        values,
    ).fetchone()
    return json.loads(found), place._replace(id=None if late or looked_at < number else last)


def _rule(db: sqlite3.Connection, job: str, keep: timedelta | None, now: datetime) -> Rule:
    """How long a job's runs are kept: as its definition says, whoever wrote it, else as long as `keep`."""
    policy = "json_quote(json_extract(definition, '$.policy'))"
    row = db.execute(f"SELECT {policy} FROM taskloop_jobs WHERE name = ?", (job,)).fetchone()
    if row is None:  # the job has another name now
        row = db.execute(
            f"SELECT {policy} FROM taskloop_jobs j, json_each(j.definition, '$.aliases') a WHERE a.value = ? LIMIT 1",
            (job,),
        ).fetchone()
    return rule_of(json.loads(row[0]) if row else None, keep, now)


def _landmarks(db: sqlite3.Connection, job: str, rule: Rule) -> Landmarks:
    """What of a job stays; nothing, if nobody has had it for as long as its runs are kept: then it is to be forgotten."""
    had = db.execute(
        f"{_LISTS} SELECT 1 FROM taskloop_jobs d WHERE name = :job AND (seen_at >= :before OR {_HAD})",
        {"job": job, "before": rule.before or 0},
    ).fetchone()
    return NO_LANDMARKS if had is None else Landmarks(*landmarks(db, job, rule.failures))


def _beyond(db: sqlite3.Connection, job: str, number: int) -> int | None:
    """The newest final run of a job beyond the newest `number`, skips not counted."""
    parts = " UNION ALL ".join(f"SELECT id {of_job('?', state)}" for state in COUNTED)
    row = db.execute(
        f"SELECT id FROM ({parts}) ORDER BY id DESC LIMIT 1 OFFSET ?", (*[job] * len(COUNTED), number)
    ).fetchone()
    return row[0] if row else None


def delete(db: sqlite3.Connection, ids: Sequence[int], now: datetime) -> int:
    """Delete runs and their attempts. One that has become young meanwhile stays: a skip that now counts more fires."""
    these = "(SELECT value FROM json_each(?))"
    text = json.dumps(list(ids))
    db.execute(f"DELETE FROM taskloop_attempts WHERE run IN {these}", (text,))
    steps_sqlite.delete(db, text)
    return db.execute(
        f"DELETE FROM taskloop_runs WHERE id IN {these} AND {FINAL} "
        "AND (schedule IS NULL OR coalesce(until_at, due_at) < ?)",
        (text, microseconds(now - SPARED)),
    ).rowcount


def checkpoint(db: sqlite3.Connection) -> None:
    """Carry what is deleted from the write-ahead log into the file: on the reading thread, where no fire waits for it.

    Else a commit does it that makes the log long enough, and nothing fills a log like old rows all over the file.
    """
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


_LISTS: Final = (
    "WITH lists AS MATERIALIZED "
    "(SELECT DISTINCT jobs FROM taskloop_workers WHERE stopped_at IS NULL OR stopped_at >= :before)"
)
"""The jobs that workers have, or had at the instant `before` or later: thousands have the same."""
_HAD: Final = "EXISTS (SELECT 1 FROM lists w WHERE w.jobs IS NULL OR d.name IN (SELECT value FROM json_each(w.jobs)))"
"""Whether job `d` is in one of the `_LISTS`."""
_UNUSED: Final = f"""
{_LISTS}
SELECT d.name FROM taskloop_jobs d WHERE d.seen_at < :before
AND d.name NOT IN (SELECT job FROM temp.taskloop_known)
AND NOT EXISTS (SELECT 1 FROM taskloop_schedules WHERE job = d.name)
AND NOT {_HAD}
AND NOT EXISTS (SELECT 1 FROM json_each(json_insert(coalesce(json_extract(d.definition, '$.aliases'), '[]'), '$[#]', d.name)) n
    WHERE EXISTS (SELECT 1 {of_job("n.value", "waiting")}) OR EXISTS (SELECT 1 {of_job("n.value", "running")})
    OR EXISTS (SELECT 1 FROM taskloop_runs INDEXED BY taskloop_runs_final WHERE job = n.value AND {FINAL}))
LIMIT :limit
"""
"""Jobs that nobody has, of which there is nothing left: no run, under whatever name, no schedule and no worker."""


_THE_REST: Final = (
    (
        "taskloop_workers",
        "id",
        (
            "SELECT id FROM taskloop_workers WHERE stopped_at < :before AND stopped_at IS NOT NULL AND id NOT IN "
            "(SELECT worker FROM taskloop_runs WHERE state = 'running' AND worker IS NOT NULL) LIMIT :limit"
        ),
    ),
    ("taskloop_incidents", "id", "SELECT id FROM taskloop_incidents WHERE until < :before LIMIT :limit"),
    ("taskloop_switches", "id", "SELECT id FROM taskloop_switches WHERE ended_at < :before LIMIT :limit"),
    ("taskloop_former", "(id, until)", "SELECT id, until FROM taskloop_former WHERE until < :before LIMIT :limit"),
    ("taskloop_audit", "id", "SELECT id FROM taskloop_audit WHERE at < :before LIMIT :limit"),
    ("taskloop_jobs", "name", _UNUSED),
)


_FACTS: Final = ("taskloop_workers", "taskloop_incidents", "taskloop_switches", "taskloop_former")
"""Tables from which the past is explained."""


def delete_the_rest(db: sqlite3.Connection, keep: timedelta, now: datetime) -> bool:
    """What is older than the store keeps anything, once a round; gives whether there is more."""
    if keep > now - EPOCH:
        return False
    before = microseconds(now - keep)
    values = {"before": before, "limit": TOGETHER}
    full = facts_gone = False
    for table, key, which in _THE_REST:
        gone = db.execute(f"DELETE FROM {table} WHERE {key} IN ({which})", values).rowcount
        full = full or gone == TOGETHER
        facts_gone |= gone > 0 and table in _FACTS
    if facts_gone:  # nobody may take what is gone for what never was
        db.execute(
            "INSERT INTO taskloop_meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value "
            "WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
            (FACTS_SINCE, before),
        )
    return full
