"""P6: from a submit to the first line of the function, one after the other, in a scheduler that does nothing else.

The limit commits one bare row through aiosqlite and then starts a task.
"""

from __future__ import annotations

import asyncio
import time

import aiosqlite

from benchmarks import apscheduler4, peers, peers_postgres
from benchmarks.harness import Figure, Numbers, Peer, Setting, Workload
from benchmarks.yardsticks import waits
from taskloop import TaskScheduler
from taskloop.options import Options


async def own(setting: Setting) -> Numbers:
    scheduler = TaskScheduler(setting.folder / "store.db", options=Options())
    entered: list[float] = []

    async def enter() -> None:
        entered.append(time.perf_counter())

    job = scheduler.add_job(enter)

    async def one() -> None:
        run = await job.submit()
        await run.wait()

    async with scheduler:
        return await waits(setting, one, entered)


async def limit(setting: Setting) -> Numbers:
    entered: list[float] = []

    async def enter() -> None:
        entered.append(time.perf_counter())

    async with aiosqlite.connect(setting.folder / "limit.db", isolation_level=None) as db:
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")
        await db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, job TEXT, state TEXT, at INTEGER)")

        async def one() -> None:
            await db.execute("INSERT INTO runs (job, state, at) VALUES ('enter', 'running', ?)", (time.time_ns(),))
            await asyncio.create_task(enter())

        return await waits(setting, one, entered)


async def huey(setting: Setting) -> Numbers:
    entered: list[float] = []
    with peers.huey(setting.folder / "huey.db") as queue:

        @queue.task()
        def enter() -> int:
            entered.append(time.perf_counter())
            return 1

        async def one() -> None:
            result = enter()
            while result.get() is None:
                await asyncio.sleep(0.01)

        with peers.consuming(queue):
            return await waits(setting, one, entered)


WORKLOAD = Workload(
    name="p6",
    title="idle: submit until the function is entered",
    figures=(Figure("p50_ms", "p50 from submit to entered", "ms", must=1.5, aim=0.7, absolute=True),),
    own={"taskloop": own},
    limit=limit,
    peers={
        "huey, SQLite": Peer("huey", huey),
        **apscheduler4.contestants(apscheduler4.idle_in_memory, apscheduler4.idle_on_sqlite),
        **peers_postgres.contestants(peers_postgres.idle),
    },
    size={"number": 300},
    quick={"number": 20},
)
