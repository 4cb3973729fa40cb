"""P13: growth: whether a run costs the same beside many jobs and much history.

P2, P3 and P6, small, with 10, 1,000 and 100,000 jobs declared, and in stores of no, a million and ten million runs. The
limit is the smallest of these: ten jobs and no history; the goal is to be flat.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Numbers, Setting, Workload, percentile, shares
from benchmarks.p9_history import build
from taskloop import Every, Job, TaskScheduler
from taskloop.options import Options

HISTORY_JOBS = 1000


async def nothing() -> None: ...


def prepare(shared: Path, size: Mapping[str, Any]) -> None:
    for runs in (size["some"], size["many"]):
        if not (shared / f"grown-{runs}.db").exists():
            build(shared / f"grown-{runs}.db", runs, HISTORY_JOBS)


async def own(setting: Setting, jobs: str, history: str = "") -> Numbers:
    store = setting.folder / "store.db"
    if history:
        store = setting.shared / f"grown-{getattr(setting, history)}.db"
    scheduler = TaskScheduler(store, options=Options(max_running=128, keep=None))
    for number in range(getattr(setting, jobs)):
        scheduler.add_job(nothing, name=f"idle-{number}")
    job = scheduler.add_job(nothing, name="measured")
    began = time.perf_counter()
    async with scheduler:
        numbers = {"start_ms": 1000 * (time.perf_counter() - began)}
        numbers["per_second"] = await _throughput(setting, job)
        numbers["p50_ms"] = await _idle(setting, job)
        numbers["last_ms"] = await _instant(setting, scheduler, job)
    return numbers


async def _throughput(setting: Setting, job: Job[Any, Any]) -> float:
    async def caller(number: int) -> None:
        for _ in range(number):
            await (await job.submit()).wait()

    await asyncio.gather(*(caller(number) for number in shares(setting.runs // 10, setting.callers)))
    began = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in shares(setting.runs, setting.callers)))
    return float(setting.runs / (time.perf_counter() - began))


async def _idle(setting: Setting, job: Job[Any, Any]) -> float:
    waits = []
    for _ in range(setting.idle):
        began = time.perf_counter()
        await (await job.submit()).wait()
        waits.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(0.005)
    return percentile(waits, 0.5)


async def _instant(setting: Setting, scheduler: TaskScheduler, job: Any) -> float:
    left, done, ended_at = setting.number, asyncio.Event(), datetime.now(UTC)

    def ended(*_: Any) -> None:
        nonlocal left, ended_at
        left -= 1
        if not left:
            ended_at = datetime.now(UTC)
            done.set()

    end = scheduler.feed.subscribe(ended, "succeeded")
    due = datetime.now(UTC) + timedelta(seconds=setting.ahead)
    ids = [f"measured-{number}" for number in range(setting.number)]
    await scheduler.schedule_many((job.bind(), Every("1h", anchor=due), one) for one in ids)
    await done.wait()
    end()
    for one in ids:
        await scheduler.unschedule(one)
    return (ended_at - due) / timedelta(milliseconds=1)


FLAT = 1.5

WORKLOAD = Workload(
    name="p13",
    title="growth: many jobs, much history",
    figures=(
        Figure("per_second", "runs recorded a second", "/s", must=1 / FLAT, more=True),
        Figure("p50_ms", "submit until recorded, p50", "ms", must=FLAT),
        Figure("last_ms", "last of 1,000 due at once", "ms", must=FLAT),
    ),
    own={
        "1,000 jobs": partial(own, jobs="middle"),
        "100,000 jobs": partial(own, jobs="most"),
        "1M runs stored": partial(own, jobs="few", history="some"),
        "10M runs stored": partial(own, jobs="few", history="many"),
    },
    limit=partial(own, jobs="few"),
    size={
        "few": 10, "middle": 1000, "most": 100_000, "some": 1_000_000, "many": 10_000_000,
        "runs": 5000, "callers": 100, "idle": 200, "number": 1000, "ahead": 2,
    },
    quick={"middle": 20, "most": 50, "some": 1000, "many": 2000, "runs": 50, "idle": 5, "number": 20, "ahead": 0.5},
    prepare=prepare,
    growth={
        "jobs declared": ("limit", "1,000 jobs", "100,000 jobs"),
        "runs stored": ("limit", "1M runs stored", "10M runs stored"),
    },
    lasting=True,
)  # fmt: skip
