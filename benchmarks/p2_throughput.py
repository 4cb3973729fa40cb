"""P2: a hundred callers who submit a job that does nothing and wait until its end is recorded.

The limit is a bare writer that gathers what a hundred callers want written and commits it as one: the two rows of a run
at once, where a run of ours must commit its start before it may begin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import aiosqlite

from benchmarks import apscheduler4, peers
from benchmarks.harness import Figure, Numbers, Peer, Setting, Workload
from benchmarks.yardsticks import throughput
from taskloop import TaskScheduler
from taskloop.options import Options


async def nothing() -> None: ...


async def own(setting: Setting, max_running: int) -> Numbers:
    scheduler = TaskScheduler(setting.folder / "store.db", options=Options(max_running=max_running))
    job = scheduler.add_job(nothing)

    async def one() -> None:
        run = await job.submit()
        await run.wait()

    async with scheduler:
        return await throughput(setting, one)


class Writer:
    """Gathers rows while the rows before are committed."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._rows: list[tuple[Any, ...]] = []
        self._heard: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()

    async def write(self, *rows: tuple[Any, ...]) -> None:
        """Wait until these rows are on the disk."""
        self._rows += rows
        if self._heard is None:
            self._heard = asyncio.get_running_loop().create_future()
        self._wake.set()
        await asyncio.shield(self._heard)

    async def serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            rows, heard = self._rows, self._heard
            self._rows, self._heard = [], None
            await self._db.execute("BEGIN IMMEDIATE")
            await self._db.executemany("INSERT INTO runs (job, state, at, worker) VALUES (?, ?, ?, ?)", rows)
            await self._db.commit()
            if heard is not None:
                heard.set_result(None)


async def limit(setting: Setting, apart: bool = False) -> Numbers:
    """`apart`: the start is committed before the finish is written."""
    async with aiosqlite.connect(setting.folder / "limit.db", isolation_level=None) as db:
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")
        await db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, job TEXT, state TEXT, at INTEGER, worker TEXT)")
        writer = Writer(db)
        serving = asyncio.create_task(writer.serve())

        async def one() -> None:
            rows: Sequence[tuple[Any, ...]] = (
                ("nothing", "running", time.time_ns(), "worker"),
                ("nothing", "succeeded", time.time_ns(), "worker"),
            )
            if apart:
                await writer.write(rows[0])
                await writer.write(rows[1])
            else:
                await writer.write(*rows)

        try:
            return await throughput(setting, one)
        finally:
            serving.cancel()


async def huey(setting: Setting) -> Numbers:
    """It records no start. As many are in flight; its result is written before it says that a task is complete."""
    runs = setting.runs // setting.slower
    with peers.huey(setting.folder / "huey.db") as queue:
        from huey.signals import SIGNAL_COMPLETE

        @queue.task()
        def work() -> int:
            return 1

        count, places = peers.Count(runs), peers.threading.BoundedSemaphore(setting.callers)

        @queue.signal(SIGNAL_COMPLETE)
        def complete(*_: Any) -> None:
            places.release()
            count.one()

        with peers.consuming(queue):
            began, cpu = time.perf_counter(), time.process_time()
            for _ in range(runs):
                places.acquire()
                work()
            count.wait(200)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"per_second": runs / took, "cpu_us": 1e6 * cpu / runs}


WORKLOAD = Workload(
    name="p2",
    title="submit, run, recorded; 100 in flight",
    figures=(Figure("per_second", "runs recorded a second", "/s", must=0.15, aim=0.4, more=True),),
    own={"taskloop, 128 slots": partial(own, max_running=128), "taskloop, 64 slots": partial(own, max_running=64)},
    limit=limit,
    also={"limit, start before finish": partial(limit, apart=True)},
    peers={
        "huey, SQLite": Peer("huey", huey),
        **apscheduler4.contestants(apscheduler4.busy_in_memory, apscheduler4.busy_on_sqlite, note=", 10 in flight"),
    },
    size={"runs": 20_000, "warm": 1000, "callers": 100, "slower": 10},
    quick={"runs": 200, "warm": 100},
)
