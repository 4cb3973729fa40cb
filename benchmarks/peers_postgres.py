"""Peers that keep their jobs in PostgreSQL, each on a server of its own with its own settings: every commit is flushed.

Ours run P1, P3 and P6 on SQLite; what is read there is how each does it, not how one database does beside another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.harness import Numbers, Peer, Setting
from benchmarks.yardsticks import Lateness, Rush, throughput, waits

AT_ONCE = 100
"""Jobs at a time: of a fetch in pgqueuer, of a worker in procrastinate."""
CONNECTIONS = 20
POLL_SECONDS = 0.1
"""procrastinate finds a job whose time has come when it polls; by default every 5 s."""


@dataclass(frozen=True)
class Queue:
    """A running worker and how it is given jobs. What it calls gets the text of the job."""

    submit: Callable[[str], Awaitable[Any]]
    defer: Callable[[list[tuple[str, datetime]]], Awaitable[None]]
    """Many jobs, each with its instant."""
    unfinished: Callable[[], Awaitable[int]]
    """Jobs whose end is not recorded."""


Open = Callable[[Path, Callable[[str], None]], Any]


@asynccontextmanager
async def pgqueuer(folder: Path, called: Callable[[str], None]) -> AsyncIterator[Queue]:
    import asyncpg
    from pgqueuer import PgQueuer, Queries
    from pgqueuer.db import AsyncpgPoolDriver

    from benchmarks.p8_postgres import server

    logging.getLogger("pgqueuer").setLevel(logging.WARNING)
    with server(folder) as url:
        async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
            queries = Queries(AsyncpgPoolDriver(pool))
            await queries.install()
            worker = PgQueuer.from_asyncpg_pool(pool)

            @worker.entrypoint("work")
            async def work(job: Any) -> None:
                called(job.payload.decode())

            async def submit(text: str) -> None:
                await queries.enqueue("work", text.encode())

            async def defer(jobs: list[tuple[str, datetime]]) -> None:
                for start in range(0, len(jobs), 1000):
                    some = jobs[start : start + 1000]
                    now = datetime.now(UTC)  # it takes a span, and counts it from when the statement comes
                    await queries.enqueue(
                        ["work"] * len(some),
                        [text.encode() for text, _ in some],
                        [0] * len(some),
                        [due - now for _, due in some],
                    )

            async def unfinished() -> int:
                return sum(one.count for one in await queries.queue_size())

            serving = asyncio.create_task(worker.run(batch_size=AT_ONCE))
            yield Queue(submit, defer, unfinished)
            worker.shutdown.set()
            await asyncio.wait([serving], timeout=10)


@asynccontextmanager
async def procrastinate(folder: Path, called: Callable[[str], None]) -> AsyncIterator[Queue]:
    from procrastinate import App, PsycopgConnector

    from benchmarks.p8_postgres import server

    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    with server(folder) as url:
        app = App(connector=PsycopgConnector(conninfo=url, min_size=CONNECTIONS, max_size=CONNECTIONS))

        @app.task(name="work")
        async def work(text: str) -> None:
            called(text)

        async def submit(text: str) -> None:
            await work.defer_async(text=text)

        async def defer(jobs: list[tuple[str, datetime]]) -> None:
            by_due: dict[datetime, list[dict[str, Any]]] = {}
            for text, due in jobs:
                by_due.setdefault(due, []).append({"text": text})
            instants = iter(by_due.items())
            while some := list(islice(instants, CONNECTIONS)):
                await asyncio.gather(
                    *(work.configure(schedule_at=due).batch_defer_async(*texts) for due, texts in some)
                )

        async def unfinished() -> int:
            return sum(one["todo"] + one["doing"] for one in await app.job_manager.list_queues_async())

        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            serving = asyncio.create_task(
                app.run_worker_async(
                    concurrency=AT_ONCE, fetch_job_polling_interval=POLL_SECONDS, install_signal_handlers=False
                )
            )
            yield Queue(submit, defer, unfinished)
            serving.cancel()
            await asyncio.wait([serving], timeout=10)


async def late(setting: Setting, opened: Open) -> Numbers:
    """P1: each job deferred to its instant."""
    epoch = datetime.fromtimestamp(0, UTC)
    lateness: Lateness

    def called(text: str) -> None:
        lateness.started(epoch + timedelta(microseconds=int(text)))

    async with opened(setting.folder, called) as queue:
        count = setting.rate * (setting.seconds + setting.warm)
        lateness = Lateness(setting.but(ahead=setting.ahead + count * 0.004))  # to defer one takes up to so long
        dues = [lateness.begin + timedelta(seconds=number / setting.rate) for number in range(count)]
        await queue.defer([(str((due - epoch) // timedelta(microseconds=1)), due) for due in dues])
        await lateness.over()
        return lateness.numbers(setting)


async def instant(setting: Setting, opened: Open) -> Numbers:
    """P3: jobs deferred to one instant."""
    rush = Rush(setting.number)
    async with opened(setting.folder, rush.ended) as queue:
        due = datetime.now(UTC) + timedelta(seconds=3 + setting.number * 0.001)
        await queue.defer([("", due)] * setting.number)
        return await rush.watch(due)


async def idle(setting: Setting, opened: Open) -> Numbers:
    """P6."""
    entered: list[float] = []
    begun = asyncio.Event()

    def called(_: str) -> None:
        entered.append(time.perf_counter())
        begun.set()

    async with opened(setting.folder, called) as queue:

        async def one() -> None:
            begun.clear()
            await queue.submit("")
            await begun.wait()

        return await waits(setting, one, entered)


async def busy(setting: Setting, opened: Open) -> Numbers:
    """P8: a caller goes on when the function has ended; the clock stops when every end is recorded."""
    ended: dict[str, asyncio.Event] = {}

    async with opened(setting.folder, lambda text: ended.pop(text).set()) as queue:
        number = iter(range(10**9))

        async def one() -> None:
            text = str(next(number))
            ended[text] = end = asyncio.Event()
            await queue.submit(text)
            await end.wait()

        async def over() -> None:
            while await queue.unfinished():
                await asyncio.sleep(0.01)

        return await throughput(setting.but(runs=setting.runs // setting.slower), one, over)


def contestants(measure: Callable[..., Any]) -> dict[str, Peer]:
    return {
        "pgqueuer, PostgreSQL": Peer("pgqueuer", partial(measure, opened=pgqueuer)),
        "procrastinate, PostgreSQL": Peer("procrastinate", partial(measure, opened=procrastinate)),
    }
