"""Schedulers to look at, and the server that shows them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal

from aiohttp import web

from taskloop import Options, RunContext, TaskScheduler
from taskloop.options import Http
from taskloop.store_data import Incident
from taskloop.testing import MemoryStore, virtual_time
from taskloop.web.aiohttp import setup

PREFIX = "/taskloop"
PAST = timedelta(hours=30, minutes=20)


@asynccontextmanager
async def dashboard(scheduler, auth="open", **options):
    """The address of the dashboard of a scheduler that lives in an aiohttp program on loopback."""
    app = web.Application()
    setup(app, scheduler, PREFIX, auth=auth, **options)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{PREFIX}"
    finally:
        await runner.cleanup()


def bare(store="sqlite:///:memory:", **options):
    """A scheduler without jobs, that ends at once and is not shy of a flood."""
    return TaskScheduler(
        store, options=Options(grace=timedelta(0), http=Http(submit_limit=None), groups={"db": 1}, **options),
        name="shop",
    )  # fmt: skip


def shop(store="sqlite:///:memory:"):
    """Twelve jobs: of each kind one."""
    scheduler = bare(store)

    @scheduler.every("1h", first="after", tags=("orders",), title="Fetch the orders")
    async def sync_orders(run: RunContext) -> str:
        """Asks the shop for what was bought since the last time."""
        await asyncio.sleep(30 + 10 * (run.due_at.hour % 3))
        run.log("40 orders")
        return "40 orders"

    @scheduler.cron("30 6 * * mon-fri", timezone="Europe/London", tags=("reports",))
    async def daily_report(days: int = 1, kind: Literal["short", "full"] = "short") -> dict[str, object]:
        """What was sold."""
        return {"days": days, "kind": kind}

    @scheduler.every("6h", first="after", tags=("orders",))
    async def invoices(run: RunContext):
        raise ConnectionRefusedError(f"connection {run.id} to shop.example was refused")

    @scheduler.job(group="db", tags=("upkeep",))
    async def vacuum(run: RunContext):
        run.progress(341, 500, "341 of 500 pages")
        await asyncio.sleep(10**6)

    @scheduler.job(group="db", tags=("upkeep",))
    async def archive(): ...

    @scheduler.every("1h", first="after", tags=("media",))
    async def resize_images(): ...

    @scheduler.cron("0 4 * * mon", tags=("upkeep",))
    async def legacy_export(): ...

    @scheduler.job(tags=("orders",), secret=("pin",))
    async def refund(
        order: int, amount: float, when: datetime | None = None, notify: bool = True,
        mode: Literal["fast", "full"] = "full", options: dict[str, int] = {}, pin: str = "",  # noqa: B006
    ) -> str:  # fmt: skip
        return f"refunded {amount:.2f} for order {order}"

    @scheduler.job()
    async def remind(user: int = 1): ...

    @scheduler.every("12h", first="after")
    async def heartbeat(): ...

    @scheduler.cron("0 2 * * *", max_late="2h")
    async def backup(run: RunContext) -> str:
        for part in range(10):
            await asyncio.sleep(60)
            run.progress(part + 1, 10)
            run.log(f"part {part + 1} is written")
        return "10 parts"

    video = scheduler.flow("video", trigger=None, tags=("media",))

    @video.step()
    async def fetch(title: str = "holiday") -> list[str]:
        return [f"{title}-{number}.raw" for number in range(4)]

    @video.step()
    async def cut(fetch: list[str]) -> list[str]:
        return [name.replace("raw", "mp4") for name in fetch]

    @video.step(optional=True, retry=1)
    async def captions(fetch: list[str]) -> None:
        raise TimeoutError(f"no captions for {fetch[0]}")

    @video.step()
    async def publish(cut: list[str], captions: None) -> str:
        return f"{len(cut)} parts"

    return scheduler


async def live_through(path, past=PAST):
    """Let the engine live through the hours before now, into a store file."""
    scheduler, memory = shop(), MemoryStore()
    begin = datetime.now(UTC) - past
    async with virtual_time(scheduler, begin, store=memory) as now:
        await scheduler.disable("legacy_export", reason="replaced by the new reports", actor="tom")
        await now.until((await scheduler.submit("video", {"title": "spring"})).wait())
        await now.until((await scheduler.submit("refund", {"order": 4711, "amount": 12.5}, actor="anna")).wait())
        await now.advance(datetime.now(UTC) - now.now)
        await now.until(memory.backup(path))


@asynccontextmanager
async def lively(path):
    """The shop with a past: one job fails, one is overdue, one held the loop, one is off, one runs."""
    await asyncio.to_thread(asyncio.run, live_through(path))
    scheduler = shop(f"sqlite:///{path}")
    async with dashboard(scheduler) as address:
        now = datetime.now(UTC)
        # The worst is shown, and a busy machine holds the loop of a test for a second or two itself.
        held = {"ms": 13_000, "job": "resize_images", "run": 1, "where": "app/images.py:88 resize"}
        await scheduler._open_store.note(
            [
                Incident(
                    scheduler.worker.id, "loop_blocked", now - timedelta(seconds=73), now - timedelta(seconds=60), held
                )
            ]
        )
        begun = asyncio.Event()
        scheduler.on("started")(lambda event: begun.set())
        await scheduler.submit("vacuum", actor="anna")
        await asyncio.wait_for(begun.wait(), 10)
        await scheduler.submit("archive", at=now - timedelta(minutes=8), actor="anna")
        yield scheduler, address
