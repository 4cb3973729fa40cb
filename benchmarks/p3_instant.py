"""P3: ten thousand schedules due at one instant: when the last run has ended, and how long the loop stood still.

The limit is a naive asyncio timer for each, which starts a task that does nothing and keeps no record.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
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
