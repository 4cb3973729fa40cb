"""APScheduler 4, which cannot be installed beside 3: measured by an interpreter that has it.

Its SQLite store is used as its documentation advises, by the driver that is not asynchronous, and with SQLite's own
settings: each commit is flushed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks import peers
from benchmarks.harness import Interpreter, Numbers, Peer, Setting
from benchmarks.yardsticks import Lateness, Rush, each, throughput, waits

INTERPRETER = Interpreter(
    "TASKLOOP_BENCHMARK_APSCHEDULER4", ("apscheduler==4.0.0a6", "sqlalchemy", "greenlet", "sniffio")
)


@asynccontextmanager
async def _scheduler(setting: Setting, *, stored: bool) -> AsyncIterator[Any]:
    """One that has not begun to run. Any number of runs of the one task, however late."""
    from apscheduler import AsyncScheduler
    from apscheduler.datastores.memory import MemoryDataStore

    store: Any = MemoryDataStore()
    if stored:
        from apscheduler.datastores.sqlalchemy import SQLAlchemyDataStore
        from sqlalchemy import create_engine

        file = f"sqlite:///{setting.folder / 'jobs.db'}"
        # With patience: 30 s for one of fifteen connections, and 5 s for the file, are not enough for a hundred callers.
        store = SQLAlchemyDataStore(create_engine(file, pool_timeout=300, connect_args={"timeout": 60}))
    async with AsyncScheduler(store) as scheduler:
        await scheduler.configure_task(peers.call, max_running_jobs=None, misfire_grace_time=None)
        yield scheduler


def _listen(scheduler: Any, ended: Callable[..., Any]) -> None:
    """Call this when the end of a job is recorded."""
    from apscheduler import JobReleased

    scheduler.subscribe(ended, JobReleased)


async def _late(setting: Setting, *, stored: bool) -> Numbers:
    from apscheduler.triggers.interval import IntervalTrigger

    async with _scheduler(setting, stored=stored) as scheduler:
        lateness = Lateness(setting.but(ahead=setting.ahead + setting.rate * 0.02))
        dues = {str(number): due for number, due in enumerate(lateness.dues)}
        nth = dict.fromkeys(dues, 0)

        def called(name: str) -> None:
            lateness.started(dues[name] + timedelta(seconds=nth[name]))
            nth[name] += 1

        peers.listen(called)
        await scheduler.start_in_background()
        for name, due in dues.items():
            trigger = IntervalTrigger(seconds=1, start_time=due)
            await scheduler.add_schedule(peers.call, trigger, args=(name,), coalesce="all")
        await lateness.over()
        return lateness.numbers(setting)


async def _instant(setting: Setting, *, stored: bool) -> Numbers:
    from apscheduler.triggers.date import DateTrigger

    number = setting.number // 10 if stored else setting.number
    rush = Rush(number)
    async with _scheduler(setting, stored=stored) as scheduler:
        _listen(scheduler, rush.ended)
        began = time.perf_counter()
        for _ in range(20):  # never due: how long it takes to add one, to name an instant that all come before
            await scheduler.add_schedule(peers.call, DateTrigger(datetime.now(UTC) + timedelta(days=1)))
        each_seconds = (time.perf_counter() - began) / 20
        due = datetime.now(UTC) + timedelta(seconds=3 + 2 * number * each_seconds)
        for _ in range(number):
            await scheduler.add_schedule(peers.call, DateTrigger(due))
        await scheduler.start_in_background()
        return await rush.watch(due)


async def _idle(setting: Setting, *, stored: bool) -> Numbers:
    entered: list[float] = []
    begun = asyncio.Event()

    def called() -> None:
        entered.append(time.perf_counter())
        begun.set()

    async with _scheduler(setting, stored=stored) as scheduler:
        peers.listen(called)
        await scheduler.start_in_background()

        async def one() -> None:
            begun.clear()
            await scheduler.add_job(peers.call)
            await begun.wait()

        return await waits(setting, one, entered)


async def _busy(setting: Setting, *, stored: bool) -> Numbers:
    """A caller goes on when it hears that the end is recorded."""
    ended: dict[Any, asyncio.Event] = {}

    def end(event: Any) -> None:
        ended.setdefault(event.job_id, asyncio.Event()).set()

    async with _scheduler(setting, stored=stored) as scheduler:
        _listen(scheduler, end)
        await scheduler.start_in_background()

        async def one() -> None:
            asked = await scheduler.add_job(peers.call)
            await ended.setdefault(asked, asyncio.Event()).wait()
            del ended[asked]

        if stored:  # with a hundred callers it came to a standstill: they wait for each other's connections
            slower = setting.slower * 10
            setting = setting.but(runs=setting.runs // slower, warm=setting.warm // slower, callers=10)
        return await throughput(setting, one)


async def _bulk(setting: Setting, *, stored: bool) -> Numbers:
    from apscheduler.triggers.interval import IntervalTrigger

    count = setting.number // setting.slower if stored else setting.number
    first = datetime.now(UTC) + timedelta(hours=1)
    async with _scheduler(setting, stored=stored) as scheduler:
        await scheduler.start_in_background()
        began = time.perf_counter()
        for number in range(count):
            await scheduler.add_schedule(
                peers.call, IntervalTrigger(hours=1, start_time=first), id=f"schedule-{number}"
            )
        return each(count, time.perf_counter() - began)


# The other interpreter finds these by their names.


async def late_in_memory(setting: Setting) -> Numbers:
    return await _late(setting, stored=False)


async def late_on_sqlite(setting: Setting) -> Numbers:
    return await _late(setting, stored=True)


async def instant_in_memory(setting: Setting) -> Numbers:
    return await _instant(setting, stored=False)


async def instant_on_sqlite(setting: Setting) -> Numbers:
    return await _instant(setting, stored=True)


async def idle_in_memory(setting: Setting) -> Numbers:
    return await _idle(setting, stored=False)


async def idle_on_sqlite(setting: Setting) -> Numbers:
    return await _idle(setting, stored=True)


async def busy_in_memory(setting: Setting) -> Numbers:
    return await _busy(setting, stored=False)


async def busy_on_sqlite(setting: Setting) -> Numbers:
    return await _busy(setting, stored=True)


async def bulk_in_memory(setting: Setting) -> Numbers:
    return await _bulk(setting, stored=False)


async def bulk_on_sqlite(setting: Setting) -> Numbers:
    return await _bulk(setting, stored=True)


def contestants(memory: Callable[..., Any], sqlite: Callable[..., Any], note: str = "") -> dict[str, Peer]:
    return {
        "APScheduler 4, memory": Peer("apscheduler", memory, INTERPRETER),
        f"APScheduler 4, SQLite{note}": Peer("apscheduler", sqlite, INTERPRETER),
    }
