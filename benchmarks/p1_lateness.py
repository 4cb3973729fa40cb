"""P1: a hundred jobs a second, evenly spread: how late each starts.

Every start and finish of ours is recorded, on disk, before anybody hears of it. The limit is an asyncio timer for each.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from benchmarks import apscheduler4, peers, peers_postgres
from benchmarks.harness import Figure, Numbers, Peer, Setting, Workload
from benchmarks.yardsticks import Lateness
from taskloop import Every, RunContext, TaskScheduler
from taskloop.options import Options


async def own(setting: Setting) -> Numbers:
    scheduler = TaskScheduler(setting.folder / "store.db", options=Options())
    lateness: Lateness

    async def work(run: RunContext) -> None:
        lateness.started(run.due_at)

    job = scheduler.add_job(work)
    async with scheduler:
        lateness = Lateness(setting)
        await scheduler.schedule_many(
            (job.bind(), Every("1s", anchor=due), f"work-{number}") for number, due in enumerate(lateness.dues)
        )
        await lateness.over()
        recorded = await scheduler.runs(since=lateness.counted_from, until=lateness.end, state="succeeded", limit=10**6)
    numbers = lateness.numbers(setting)
    if len(recorded) < numbers["started"]:
        raise RuntimeError(f"{numbers['started']} started, {len(recorded)} recorded")
    return numbers


async def limit(setting: Setting) -> Numbers:
    loop, lateness = asyncio.get_running_loop(), Lateness(setting)

    def fire(due: datetime) -> None:
        lateness.started(due)
        arm(due + timedelta(seconds=1))

    def arm(due: datetime) -> None:
        loop.call_at(loop.time() + (due - datetime.now(UTC)).total_seconds(), fire, due)

    for due in lateness.dues:
        arm(due)
    await lateness.over()
    return lateness.numbers(setting)


async def _apscheduler(setting: Setting, stored: bool) -> Numbers:
    from apscheduler.triggers.interval import IntervalTrigger

    scheduler = peers.apscheduler(setting.folder / "jobs.db" if stored else None)
    lateness = Lateness(setting)
    dues = {str(number): due for number, due in enumerate(lateness.dues)}
    nth = dict.fromkeys(dues, 0)

    def called(name: str) -> None:
        lateness.started(dues[name] + timedelta(seconds=nth[name]))
        nth[name] += 1

    peers.listen(called)
    for name, due in dues.items():
        scheduler.add_job(peers.call, IntervalTrigger(seconds=1, start_date=due), args=(name,), coalesce=False)
    scheduler.start()
    await lateness.over()
    scheduler.shutdown(wait=False)
    return lateness.numbers(setting)


async def apscheduler_in_memory(setting: Setting) -> Numbers:
    return await _apscheduler(setting, stored=False)


async def apscheduler_on_sqlite(setting: Setting) -> Numbers:
    return await _apscheduler(setting, stored=True)


async def huey(setting: Setting) -> Numbers:
    with peers.huey(setting.folder / "huey.db") as queue:
        lateness: Lateness

        @queue.task()
        def work(microseconds: int) -> None:
            lateness.started(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds))

        lateness = Lateness(setting)
        count = setting.rate * (setting.seconds + setting.warm)
        lateness.begin += timedelta(seconds=count / 300)  # to put a task into its schedule takes it milliseconds
        lateness.counted_from += timedelta(seconds=count / 300)
        lateness.end += timedelta(seconds=count / 300)
        for number in range(count):
            due = lateness.begin + timedelta(seconds=number / setting.rate)
            since = (due - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
            work.schedule((since,), eta=due)
        with peers.consuming(queue):
            await lateness.over()
            await asyncio.sleep(1)
    return lateness.numbers(setting)


WORKLOAD = Workload(
    name="p1",
    title="100 jobs a second",
    figures=(Figure("p99_ms", "p99 of start after due", "ms", must=2, aim=1.2),),
    own={"taskloop": own},
    limit=limit,
    peers={
        "APScheduler 3, memory": Peer("apscheduler", apscheduler_in_memory),
        "APScheduler 3, SQLite": Peer("sqlalchemy", apscheduler_on_sqlite),
        "huey, SQLite": Peer("huey", huey),
        **apscheduler4.contestants(apscheduler4.late_in_memory, apscheduler4.late_on_sqlite),
        **peers_postgres.contestants(peers_postgres.late),
    },
    size={"rate": 100, "seconds": 10, "warm": 1, "ahead": 2},
    quick={"rate": 20, "seconds": 1, "warm": 0, "ahead": 1},
)
