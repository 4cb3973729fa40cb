"""P12: a flow of steps that need nothing of each other; the start and the end of each is a committed row.

The limit writes the same rows, as two transactions, with one task a step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiosqlite

from benchmarks.harness import Figure, Numbers, Setting, Workload
from taskloop import TaskScheduler
from taskloop.options import Options


async def _nothing() -> None: ...


async def _timed(setting: Setting, one: Callable[[], Any]) -> Numbers:
    await one()
    began = time.perf_counter()
    for _ in range(setting.flows):
        await one()
    return {"steps_per_second": setting.flows * setting.steps / (time.perf_counter() - began)}


async def own(setting: Setting) -> Numbers:
    scheduler = TaskScheduler(setting.folder / "store.db", options=Options())
    flow = scheduler.flow("wide")
    for number in range(setting.steps):
        flow.step(name=f"step-{number}")(_nothing)

    async def one() -> None:
        run = await (await flow.submit()).wait()
        assert run.result["completed_count"] == setting.steps

    async with scheduler:
        return await _timed(setting, one)


async def limit(setting: Setting) -> Numbers:
    async with aiosqlite.connect(setting.folder / "limit.db", isolation_level=None) as db:
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")
        await db.execute("CREATE TABLE steps (run INTEGER, name TEXT, state TEXT, at INTEGER, PRIMARY KEY (run, name))")
        run = 0

        async def write(statement: str, rows: list[tuple[Any, ...]]) -> None:
            await db.execute("BEGIN IMMEDIATE")
            await db.executemany(statement, rows)
            await db.execute("COMMIT")

        async def one() -> None:
            nonlocal run
            run += 1
            names = [f"step-{number}" for number in range(setting.steps)]
            begin = [(run, name, time.time_ns()) for name in names]
            await write("INSERT INTO steps VALUES (?, ?, 'running', ?)", begin)
            await asyncio.gather(*(asyncio.create_task(_nothing()) for _ in names))
            end = [(time.time_ns(), run, name) for name in names]
            await write("UPDATE steps SET state = 'succeeded', at = ? WHERE run = ? AND name = ?", end)

        return await _timed(setting, one)


WORKLOAD = Workload(
    name="p12",
    title="a flow of 100 independent steps, each start and end recorded",
    figures=(
        Figure("steps_per_second", "steps recorded a second", "/s", must=5000, aim=15000, absolute=True, more=True),
    ),
    own={"taskloop": own},
    limit=limit,
    size={"steps": 100, "flows": 50},
    quick={"flows": 2},
)
