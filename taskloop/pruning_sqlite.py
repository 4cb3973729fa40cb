"""Which records go, in SQLite, and how: in small steps, oldest first, so that a fire never waits for long.

Parts of a transaction that somebody else began, like `statements_sqlite`. Start at `prune`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from typing import Final

from taskloop.rows_sqlite import moment
from taskloop.store import Keep, Pruned

STEP_SECONDS: Final = 0.01
"""How long one step of pruning may look around: a fire waits behind it."""


def prune(
    db: sqlite3.Connection,
    keep: Keep,
    rules: Mapping[str, Keep],
    due_before: int,
    after: str | None,
    limit: int,
) -> Pruned:
    """One step of a round over the jobs, from the one after `after`: a few milliseconds, at most `limit` rows deleted."""
    deleted, until = 0, time.perf_counter() + STEP_SECONDS
    while time.perf_counter() < until:
        job = db.execute("SELECT min(job) FROM taskloop_runs WHERE job > ?", (after or "",)).fetchone()[0]
        if job is None:
            _prune_the_rest(db, keep)
            return Pruned(deleted, None)
        deleted += _prune_job(db, job, rules.get(job, keep), due_before, limit - deleted)
        if deleted >= limit:
            return Pruned(deleted, after or "")  # the same job again
        after = job
    return Pruned(deleted, after)


def _prune_job(db: sqlite3.Connection, job: str, keep: Keep, due_before: int, limit: int) -> int:
    """Delete old final runs of a job, oldest first; looks at its oldest rows only, however many there are."""
    beyond = None if keep.runs is None else _newest_but(db, job, keep.runs)
    if keep.ended_before is None and beyond is None:
        return 0
    bounds = (due_before, moment(keep.ended_before) or 0, beyond or 0)
    for looked_at in (1, limit + 1000):  # of most jobs the oldest row says that there is nothing to do
        rows = db.execute(
            "SELECT id, state IN ('waiting', 'running'), coalesce(until_at, due_at) < ? AND (ended_at < ? OR id <= ?) "
            "AND id < (SELECT max(id) FROM taskloop_runs) FROM taskloop_runs WHERE job = ? ORDER BY id LIMIT ?",
            (*bounds, job, looked_at),
        ).fetchall()
        found = [row[0] for row in rows if row[2] and not row[1]][:limit]
        if not found and not rows[0][1]:
            return 0
    ids = json.dumps(found)
    db.execute("DELETE FROM taskloop_attempts WHERE run IN (SELECT value FROM json_each(?))", (ids,))
    db.execute("DELETE FROM taskloop_runs WHERE id IN (SELECT value FROM json_each(?))", (ids,))
    return len(found)


def _newest_but(db: sqlite3.Connection, job: str, number: int) -> int | None:
    """The id of the newest run of a job beyond the newest `number`, skips not counted."""
    row = db.execute(
        "SELECT id FROM taskloop_runs WHERE job = ? AND state <> 'skipped' ORDER BY id DESC LIMIT 1 OFFSET ?",
        (job, number),
    ).fetchone()
    return row[0] if row else None


def _prune_the_rest(db: sqlite3.Connection, keep: Keep) -> None:
    """What is older than the store keeps anything, once a round: small tables all of them."""
    before = moment(keep.ended_before)
    if before is None:
        return
    db.execute(
        "DELETE FROM taskloop_workers WHERE stopped_at < ? AND id NOT IN "
        "(SELECT worker FROM taskloop_runs WHERE state = 'running' AND worker IS NOT NULL)",
        (before,),
    )
    db.execute(
        "DELETE FROM taskloop_incidents WHERE id IN (SELECT id FROM taskloop_incidents WHERE until < ? LIMIT 10000)",
        (before,),
    )
    db.execute("DELETE FROM taskloop_switches WHERE ended_at < ?", (before,))
    db.execute("DELETE FROM taskloop_former WHERE until < ?", (before,))
