"""P3: ten thousand schedules due at one instant: when the last run has ended, and how long the loop stood still.

The limit is a naive asyncio timer for each, which starts a task that does nothing and keeps no record. Below it what the
same costs a bare program that writes down each start before it begins and each end, as many at a time as we have slots.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import apscheduler4, peers, peers_postgres
from benchmarks.harness import Figure, Numbers, Peer, Setting, Workload
from benchmarks.yardsticks import Rush
from taskloop import Every, TaskScheduler
from taskloop.options import Options


async def nothing() -> None: ...


async def own(setting: Setting, max_running: int) -> Numbers:
    options = Options(max_running=max_running)
    scheduler = TaskScheduler(setting.folder / "store.db", options=options)
    job = scheduler.add_job(nothing)
    rush = Rush(setting.number)
    scheduler.feed.subscribe(rush.ended, "succeeded")
    async with scheduler:
        due = datetime.now(UTC) + timedelta(seconds=setting.ahead)
        await scheduler.schedule_many(
            (job.bind(), Every("1h", anchor=due), f"nothing-{number}") for number in range(setting.number)
        )
        numbers = await rush.watch(due)
        recorded = await scheduler.runs(state="succeeded", limit=10**6)
    if len(recorded) != setting.number:
        raise RuntimeError(f"{setting.number} ended, {len(recorded)} recorded")
    return numbers


async def limit(setting: Setting) -> Numbers:
    loop, rush = asyncio.get_running_loop(), Rush(setting.number)
    tasks = set()

    def fire() -> None:
        task = loop.create_task(nothing())
        tasks.add(task)
        task.add_done_callback(ended)

    def ended(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        rush.ended()

    due = datetime.now(UTC) + timedelta(seconds=min(1, setting.ahead))
    when = loop.time() + (due - datetime.now(UTC)).total_seconds()
    for _ in range(setting.number):
        loop.call_at(when, fire)
    return await rush.watch(due)


class Notes:
    """A file with the least that a scheduler must write down of a fire: when it comes again, its start, its end."""

    def __init__(self, path: Path, schedules: Sequence[str]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(
            "CREATE TABLE schedules (id TEXT PRIMARY KEY, due INTEGER) WITHOUT ROWID;"
            "CREATE INDEX schedules_due ON schedules (due);"
            "CREATE TABLE runs (id INTEGER PRIMARY KEY, schedule TEXT, due INTEGER, state TEXT, began INTEGER, ended INTEGER);"
            "CREATE UNIQUE INDEX runs_fire ON runs (schedule, due);"
        )
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO schedules VALUES (?, 0)", ((one,) for one in schedules))
        self._db.execute("COMMIT")

    def write(self, starting: Sequence[str], ended: Sequence[int]) -> list[int]:
        """The ends of runs and the starts of others, as one; gives the numbers of those that start."""
        self._db.execute("BEGIN IMMEDIATE")
        at = time.time_ns()
        self._db.executemany(
            "UPDATE runs SET state = 'succeeded', ended = ? WHERE id = ?", [(at, one) for one in ended]
        )
        self._db.executemany("UPDATE schedules SET due = 1 WHERE id = ?", [(one,) for one in starting])
        self._db.executemany(
            "INSERT INTO runs (schedule, due, state, began) VALUES (?, 0, 'running', ?)",
            [(one, at) for one in starting],
        )
        (newest,) = self._db.execute("SELECT max(id) FROM runs").fetchone()
        self._db.execute("COMMIT")
        return list(range(newest - len(starting) + 1, newest + 1))


async def written_down(setting: Setting, at_once: int) -> Numbers:
    schedules = [f"nothing-{number}" for number in range(setting.number)]
    notes = await asyncio.to_thread(Notes, setting.folder / "limit.db", schedules)
    loop, rush, tasks = asyncio.get_running_loop(), Rush(setting.number), set()

    async def go() -> None:
        running: list[int] = []
        for first in range(0, setting.number + at_once, at_once):
            starting = schedules[first : first + at_once]
            begun = await loop.run_in_executor(None, notes.write, starting, running)
            for _ in running:
                rush.ended()
            if begun:
                await asyncio.wait({loop.create_task(nothing()) for _ in begun})
            running = begun

    due = datetime.now(UTC) + timedelta(seconds=min(1, setting.ahead))
    when = loop.time() + (due - datetime.now(UTC)).total_seconds()
    loop.call_at(when, lambda: tasks.add(loop.create_task(go())))
    return await rush.watch(due)


async def apscheduler(setting: Setting, stored: bool) -> Numbers:
    from apscheduler.triggers.date import DateTrigger

    scheduler = peers.apscheduler(setting.folder / "jobs.db" if stored else None)
    rush = Rush(setting.number)
    peers.listen(rush.ended)
    scheduler.start(paused=True)
    due = datetime.now(UTC) + timedelta(seconds=2 + setting.number * (0.002 if stored else 0.0003))
    for _ in range(setting.number):
        scheduler.add_job(peers.call, DateTrigger(due))
    scheduler.resume()
    numbers = await rush.watch(due)
    scheduler.shutdown(wait=False)
    return numbers


async def huey(setting: Setting) -> Numbers:
    rush, loop = Rush(setting.number), asyncio.get_running_loop()
    with peers.huey(setting.folder / "huey.db") as queue:
        from huey.signals import SIGNAL_COMPLETE

        @queue.task()
        def work() -> int:
            return 1

        @queue.signal(SIGNAL_COMPLETE)
        def complete(*_: Any) -> None:
            loop.call_soon_threadsafe(rush.ended)

        due = datetime.now(UTC) + timedelta(seconds=2 + setting.number * 0.002)
        for _ in range(setting.number):
            work.schedule(eta=due)
        with peers.consuming(queue):
            return await rush.watch(due)


WORKLOAD = Workload(
    name="p3",
    title="10,000 schedules due at one instant",
    figures=(
        Figure("last_ms", "last of 10,000 runs ended", "ms", must=6, aim=3),
        Figure("stall_ms", "longest loop stall", "ms", must=25, aim=10, absolute=True),
    ),
    own={
        "taskloop, 64 slots": partial(own, max_running=64),
        "taskloop, 10,000 slots": partial(own, max_running=10_000),
    },
    limit=limit,
    also={"limit, written down, 64 at a time": partial(written_down, at_once=64)},
    peers={
        "APScheduler 3, memory": Peer("apscheduler", partial(apscheduler, stored=False)),
        "APScheduler 3, SQLite": Peer("sqlalchemy", partial(apscheduler, stored=True)),
        "huey, SQLite": Peer("huey", huey),
        **apscheduler4.contestants(apscheduler4.instant_in_memory, apscheduler4.instant_on_sqlite, note=", 1,000 only"),
        **peers_postgres.contestants(peers_postgres.instant),
    },
    size={"number": 10_000, "ahead": 6},
    quick={"number": 100, "ahead": 0.5},
)
