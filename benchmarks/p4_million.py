"""P4: a million stored schedules: from start to the first fire, memory, and what they cost while none is due.

The limit is the same scheduler with nothing but the one schedule that is due.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Numbers, Setting, Workload
from taskloop import Every, TaskScheduler
from taskloop.options import Options

AT_ONCE = 50_000
YEAR = timedelta(days=365)


async def remind(user: int) -> None: ...


def make(store: Path, fires: asyncio.Event | None = None) -> tuple[TaskScheduler, Any]:
    async def tick() -> None:
        if fires is not None:
            fires.set()

    scheduler = TaskScheduler(store, options=Options())
    scheduler.add_job(tick, Every("1d"))  # seen for the first time it fires at once
    return scheduler, scheduler.add_job(remind)


def prepare(shared: Path, size: Mapping[str, Any]) -> None:
    asyncio.run(_fill(shared / "million.db", size["number"]))


async def _fill(store: Path, number: int) -> None:
    scheduler = TaskScheduler(store, options=Options(enabled=False))
    job: Any = scheduler.add_job(remind)
    first = datetime.now(UTC) + YEAR
    async with scheduler:
        for start in range(0, number, AT_ONCE):
            await scheduler.schedule_many(
                (job.bind(user=one), Every("1w", anchor=first), f"remind-{one}")
                for one in range(start, min(start + AT_ONCE, number))
            )


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def own(setting: Setting, full: bool) -> Numbers:
    async with make(setting.folder / "empty.db")[0]:  # so that what every scheduler needs is there
        await asyncio.sleep(setting.rest)
    before = resident_bytes()
    store = setting.folder / "store.db"
    if full:
        await asyncio.to_thread(shutil.copy, setting.shared / "million.db", store)
        await asyncio.sleep(1)
    fired = asyncio.Event()
    scheduler, _ = make(store, fired)
    began = time.perf_counter()
    async with scheduler:
        await fired.wait()
        took = time.perf_counter() - began
        await asyncio.sleep(setting.rest)
        cpu, since = time.process_time(), time.perf_counter()
        await asyncio.sleep(setting.idle)
        share = (time.process_time() - cpu) / (time.perf_counter() - since)
        memory = resident_bytes() - before
    return {"start_ms": took * 1000, "memory_mb": memory / 2**20, "idle_percent": share * 100}


WORKLOAD = Workload(
    name="p4",
    title="a million stored schedules",
    figures=(
        Figure("start_ms", "start to the first fire, a million schedules", "ms", must=2000, aim=300, absolute=True),
        Figure("memory_mb", "memory above an empty scheduler", "MB", must=60, aim=10, absolute=True),
        Figure("idle_percent", "processor while none is due", "%", must=0.2, absolute=True),
    ),
    own={"taskloop": partial(own, full=True)},
    limit=partial(own, full=False),
    size={"number": 1_000_000, "rest": 2, "idle": 20},
    quick={"number": 2000, "rest": 0.05, "idle": 0.2},
    prepare=prepare,
)
