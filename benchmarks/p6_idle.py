"""P6: from a submit to the first line of the function, one after the other, in a scheduler that does nothing else.

The limit commits one bare row through aiosqlite and then starts a task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiosqlite

from benchmarks import peers
from benchmarks.harness import Figure, Numbers, Peer, Setting, Workload, percentile
from taskloop import TaskScheduler
from taskloop.options import Options

REST_SECONDS = 0.005


async def _timed(setting: Setting, one: Callable[[], Any], entered: list[float]) -> Numbers:
    """`one` asks and waits for the end; `entered` is appended to when the function begins."""
    waits = []
    for _ in range(setting.number):
        asked = time.perf_counter()
        await one()
        waits.append((entered.pop() - asked) * 1000)
        await asyncio.sleep(REST_SECONDS)
    waits = waits[len(waits) // 10 :]
    return {"p50_ms": percentile(waits, 0.5), "p99_ms": percentile(waits, 0.99)}


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
        return await _timed(setting, one, entered)


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

        return await _timed(setting, one, entered)


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
            return await _timed(setting, one, entered)


WORKLOAD = Workload(
    name="p6",
    title="idle: submit until the function is entered",
    figures=(Figure("p50_ms", "p50 from submit to entered", "ms", must=1.5, aim=0.7, absolute=True),),
    own={"taskloop": own},
    limit=limit,
    peers={"huey, SQLite": Peer("huey", huey)},
    size={"number": 300},
    quick={"number": 20},
)
