"""P9: a store of ten million runs; every page and every list call, asked over HTTP in this process.

The store is made by SQL, which is no measurement, and may be kept for the next time: `HISTORY_FOLDER=DIR` in the
environment names the folder, else it goes with the measurement. Each address is asked a few times after a first one
that warms up; `worst_ms` is the highest p95 of all addresses.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from benchmarks.harness import Figure, Numbers, Setting, Workload, percentile
from taskloop import Every, TaskScheduler
from taskloop.options import Options
from taskloop.schedules import Schedule
from taskloop.store import Definition
from taskloop.store_sqlite import SqliteStore

DAYS: Final = 90
TOGETHER: Final = 200_000
BUSY: Final = "job-0000"
"""A fifth of all runs are its."""
SECOND: Final = 1_000_000


# -- the store

_ROWS: Final = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last),
r AS (SELECT i,
    CASE WHEN i % 5 = 0 THEN 0 ELSE 1 + (i * 2654435761 % 4294967296) % (:jobs - 1) END AS j,
    (i * 40503 + i / 7 * 9973) % 1000 AS luck,
    :start + i * :step AS at FROM n),
s AS (SELECT i, printf('job-%04d', j) AS job, at, luck,
    CASE WHEN luck < 10 THEN 'failed' WHEN luck = 10 THEN 'cancelled' WHEN luck = 11 THEN 'interrupted'
         WHEN luck < 32 THEN 'skipped' ELSE 'succeeded' END AS state,
    CASE WHEN i % 97 = 0 THEN 'api' WHEN i % 101 = 0 THEN 'manual' WHEN i % 9973 = 0 THEN 'rerun' ELSE 'schedule' END AS cause,
    1000 + (i * 7919) % 900000 AS took FROM r)
INSERT INTO taskloop_runs (id, job, schedule, state, reason, cause, actor, attempt, attempts, due_at, ready_at, created_at,
    started_at, attempt_started_at, ended_at, worker, token, priority, summary, result, error, count, data)
SELECT i, job, CASE WHEN cause = 'schedule' THEN job END, state,
    CASE state WHEN 'skipped' THEN 'overlap' WHEN 'interrupted' THEN 'worker_died' END, cause,
    CASE WHEN cause <> 'schedule' THEN 'anna' END, 1, 1, at - 1000, at - 1000, at,
    CASE WHEN state <> 'skipped' THEN at END, CASE WHEN state <> 'skipped' THEN at END, at + took,
    CASE WHEN state <> 'skipped' THEN 'w1' END, 1, 0,
    CASE state WHEN 'succeeded' THEN 'did ' || took || ' rows' WHEN 'failed' THEN 'no connection to db:5432' END,
    CASE state WHEN 'succeeded' THEN '{"rows":' || took || '}' END,
    CASE state WHEN 'failed' THEN json_array('ConnectionRefusedError', 'no connection to db:5432, try ' || i, :traceback,
        printf('%08x', luck * 7 + i % 13)) END, 1, NULL
FROM s
"""
_TRACEBACK: Final = "Traceback (most recent call last):\n" + "".join(
    f'  File "shop/part_{number}.py", line {number * 7}, in step_{number}\n    return connect(host, port)\n'
    for number in range(12)
)
_ALSO: Final = (
    # A few that wait and run, steps and lines of the newest, counters of each day, and what people did.
    "UPDATE taskloop_runs SET state = 'running', ended_at = NULL, result = NULL, summary = NULL "
    "WHERE id IN (SELECT id FROM taskloop_runs WHERE state = 'succeeded' ORDER BY id DESC LIMIT 20)",
    "UPDATE taskloop_runs SET state = 'waiting', started_at = NULL, attempt_started_at = NULL, ended_at = NULL, attempt = 0, "
    "token = 0, result = NULL, summary = NULL, worker = NULL, ready_at = ready_at + 86400000000 "
    "WHERE id IN (SELECT id FROM taskloop_runs WHERE state = 'succeeded' ORDER BY id DESC LIMIT 100)",
    "INSERT INTO taskloop_steps SELECT r.id, 'step-' || v.value, v.value, 'succeeded', 1, started_at, ended_at, '1', NULL, 0 "
    "FROM (SELECT * FROM taskloop_runs WHERE state = 'failed' ORDER BY id DESC LIMIT 10) r, json_each('[1,2,3]') v",
    "INSERT INTO taskloop_log (run, token, lines) SELECT r.id, 1, json_array(json_array(started_at, 'info', 'began', NULL)) "
    "FROM (SELECT * FROM taskloop_runs WHERE state = 'failed' ORDER BY id DESC LIMIT 10) r, json_each('[1,2,3]')",
    "INSERT INTO taskloop_audit (at, actor, channel, action, object, job, reason) SELECT created_at, "
    "CASE WHEN id % 3 THEN 'anna' ELSE 'tom' END, 'api', 'submit', id, job, 'by hand' FROM taskloop_runs "
    "WHERE cause <> 'schedule' ORDER BY id",
    "INSERT INTO taskloop_incidents (worker, kind, since, until, data) SELECT 'w1', 'loop_blocked', created_at, "
    'created_at + 500000, \'{"ms": 500, "task": "t", "where": "x.py:1"}\' FROM taskloop_runs WHERE id % 10007 = 0',
    "INSERT INTO taskloop_switches (job, kind, actor, reason, since, ended_at, ended_by) SELECT job, 'paused', 'tom', 'move', "
    "created_at, created_at + 60000000, 'tom' FROM taskloop_runs WHERE id % 50021 = 0",
)


def name(number: int) -> str:
    return f"job-{number:04d}"


async def _furnished(path: Path, jobs: int, now: datetime) -> None:
    """A store with its jobs and schedules, and no run yet."""
    store = SqliteStore(path)
    await store.open()
    scheduler = TaskScheduler(store, options=Options())
    try:
        for number in range(jobs):
            scheduler.add_job(_nothing, Every("1h"), name=name(number))
        await store.define([_definition(scheduler, job.name) for job in scheduler])
        due = now + timedelta(days=1)
        made = [
            Schedule(
                id=job.name,
                job=job.name,
                trigger=Every("1h", anchor=due),
                next_due=due,
                anchor=due,
                seen_at=now,
                origin="code",
            )
            for job in scheduler
        ]
        await store.put(made, lambda _, new: new, now)
    finally:
        await store.close()


def _definition(scheduler: TaskScheduler, job: str) -> Definition:
    return scheduler.definition(scheduler[job])


async def _nothing() -> None: ...


def build(path: Path, runs: int, jobs: int) -> None:
    """Make the store; it has its name only when it is whole."""
    now = datetime.now(UTC)
    raw = path.with_suffix(".raw")
    for ending in ("", "-wal", "-shm"):
        Path(f"{raw}{ending}").unlink(missing_ok=True)
    asyncio.run(_furnished(raw, jobs, now))
    start = round((now - timedelta(days=DAYS)).timestamp() * SECOND)
    values = {"jobs": jobs, "start": start, "step": DAYS * 86400 * SECOND // runs, "traceback": _TRACEBACK}
    with closing(sqlite3.connect(raw, isolation_level=None)) as db:
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "cache_size = -500000", "temp_store = MEMORY"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        for first in range(1, runs + 1, TOGETHER):
            db.execute(_ROWS, values | {"first": first, "last": min(first + TOGETHER - 1, runs)})
        for statement in _ALSO:
            db.execute(statement)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
    raw.rename(path)


def prepare(folder: Path, size: Mapping[str, Any]) -> None:
    runs, jobs = size["runs"], size["jobs"]
    path = _place(folder, runs, jobs)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        build(path, runs, jobs)


def _place(folder: Path, runs: int, jobs: int) -> Path:
    return Path(os.environ.get("HISTORY_FOLDER") or folder) / f"history_{runs}_{jobs}.db"
