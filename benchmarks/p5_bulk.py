"""P5: adding a hundred thousand schedules at once, to a scheduler that is running.

The limit is a bare insert of as many rows of the same text, a thousand a transaction.
"""

from __future__ import annotations

import json
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from benchmarks import apscheduler4, peers
from benchmarks.harness import Figure, Heartbeat, Numbers, Peer, Setting, Workload
from benchmarks.yardsticks import each
from taskloop import Every, TaskScheduler
from taskloop.options import Options

HOUR = timedelta(hours=1)


async def nothing() -> None: ...


async def remind(user: int) -> None: ...


async def own(setting: Setting, parameters: bool) -> Numbers:
    scheduler = TaskScheduler(setting.folder / "store.db", options=Options())
    job: Any = scheduler.add_job(remind if parameters else nothing)
    first = datetime.now(UTC) + HOUR
    async with scheduler:
        with Heartbeat() as heartbeat:
            began = time.perf_counter()
            await scheduler.schedule_many(
                (job.bind(user=one) if parameters else job.bind(), Every(HOUR, anchor=first), f"schedule-{one}")
                for one in range(setting.number)
            )
            took = time.perf_counter() - began
    return each(setting.number, took) | {"stall_ms": heartbeat.longest * 1000}


def limit(setting: Setting) -> Numbers:
    db = sqlite3.connect(setting.folder / "limit.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(
        "CREATE TABLE schedules (id TEXT PRIMARY KEY, trigger TEXT, params TEXT, next_due INTEGER) WITHOUT ROWID"
    )
    db.execute("CREATE INDEX due ON schedules (next_due)")
    due = time.time_ns() // 1000 + 3_600_000_000
    began = time.perf_counter()
    for start in range(0, setting.number, 1000):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO schedules VALUES (?, ?, ?, ?)",
            [
                (f"schedule-{number}", "every 1h", json.dumps({"user": number}), due)
                for number in range(start, min(start + 1000, setting.number))
            ],
        )
        db.execute("COMMIT")
    return each(setting.number, time.perf_counter() - began)


async def apscheduler(setting: Setting, stored: bool) -> Numbers:
    from apscheduler.triggers.interval import IntervalTrigger

    count = setting.number // setting.slower if stored else setting.number
    scheduler = peers.apscheduler(setting.folder / "jobs.db" if stored else None)
    scheduler.start()
    first = datetime.now(UTC) + HOUR
    began = time.perf_counter()
    for number in range(count):
        scheduler.add_job(peers.call, IntervalTrigger(hours=1, start_date=first), kwargs={}, id=f"schedule-{number}")
    took = time.perf_counter() - began
    scheduler.shutdown(wait=False)
    return each(count, took)


WORKLOAD = Workload(
    name="p5",
    title="adding 100,000 schedules in bulk",
    figures=(Figure("each_us", "adding one of 100,000 schedules", "µs", must=20, aim=8, absolute=True),),
    own={"taskloop": partial(own, parameters=False), "taskloop, a parameter each": partial(own, parameters=True)},
    limit=limit,
    peers={
        "APScheduler 3, memory": Peer("apscheduler", partial(apscheduler, stored=False)),
        "APScheduler 3, SQLite": Peer("sqlalchemy", partial(apscheduler, stored=True)),
        **apscheduler4.contestants(apscheduler4.bulk_in_memory, apscheduler4.bulk_on_sqlite),
    },
    size={"number": 100_000, "slower": 50},
    quick={"number": 1000},
)
