"""A lively set of jobs with a past, to look around in the dashboard.

    pip install "taskloop[web]"
    python examples/demo.py                    then open http://127.0.0.1:8700/
    python examples/demo.py --history 2w       a shorter past; the year takes half a minute

The past is no drawing: at the first start the real engine lives through it on virtual time, and each run of it is on
record in demo.db. One job fails now and then, one is off with a reason, one holds the loop for a moment so that the guard
names it, and a flow keeps the results of its steps.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import random
import time
from contextlib import redirect_stderr
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from loguru import logger

from taskloop import Every, Retry, RunContext, TaskScheduler, durations
from taskloop.testing import MemoryStore, virtual_time

STORE = "demo.db"
chance = random.Random(7)
scheduler = TaskScheduler(STORE, name="shop")


@scheduler.every(
    "1h", first="after", retry=Retry(2, first="30s"), keep="400d", tags=("orders",), title="Fetch the orders"
)
async def sync_orders(run: RunContext) -> str:
    """Asks the shop for what was bought since the last time."""
    orders = chance.randrange(5, 60)
    for part in range(4):
        await asyncio.sleep(chance.uniform(0.2, 2))
        run.progress(part + 1, 4, f"part {part + 1} of 4")
    if chance.random() < 0.05:
        raise ConnectionRefusedError("shop.example refused port 443")
    run.log(f"{orders} orders")
    return f"{orders} orders"


@scheduler.cron("30 6 * * mon-fri", timezone="Europe/London", keep="400d", tags=("reports",))
async def daily_report(days: int = 1, kind: Literal["short", "full"] = "short") -> dict[str, object]:
    """What was sold."""
    await asyncio.sleep(chance.uniform(20, 90))
    return {"days": days, "kind": kind, "sold": chance.randrange(100, 900)}


@scheduler.cron("0 2 * * *", max_late="2h", pause_after=5, keep="400d", tags=("upkeep",))
async def backup(run: RunContext) -> str:
    """Every night; the whole takes about ten minutes."""
    for part in range(10):
        await asyncio.sleep(chance.uniform(40, 80))
        run.progress(part + 1, 10, f"part {part + 1} of 10")
        run.log(f"part {part + 1} is written")
    if chance.random() < 0.02:
        raise OSError(28, "No space left on device")
    return "10 parts"


async def heartbeat() -> None:
    """Only while the demo runs."""
    await asyncio.sleep(chance.uniform(0.01, 0.3))


async def holds_the_loop() -> None:
    """What no job should do: the guard names it and the line."""
    time.sleep(0.4)  # noqa: ASYNC251 - that is the point


@scheduler.cron("0 4 * * mon", tags=("upkeep",))
async def legacy_export() -> None:
    """Replaced long ago."""


@scheduler.job(tags=("orders",))
async def refund(order: int, amount: float, notify: bool = True, note: str = "") -> str:
    """On demand: see its form."""
    await asyncio.sleep(2)
    return f"refunded {amount:.2f} for order {order}{', told' if notify else ''} {note}".strip()


video = scheduler.flow("video", trigger=None, tags=("media",))


@video.step()
async def fetch(title: str = "holiday") -> list[str]:
    await asyncio.sleep(3)
    return [f"{title}-{number}.raw" for number in range(4)]


@video.step()
async def cut(run: RunContext, fetch: list[str]) -> list[str]:
    for number, _ in enumerate(fetch):
        await asyncio.sleep(4)
        run.progress(number + 1, len(fetch))
    return [name.replace("raw", "mp4") for name in fetch]


@video.step(optional=True, retry=Retry(2, first="1s"))
async def captions(fetch: list[str]) -> None:
    await asyncio.sleep(2)
    raise TimeoutError(f"the service for captions does not answer for {fetch[0]}")


@video.step()
async def publish(cut: list[str], captions: None) -> str:
    await asyncio.sleep(1)
    return f"{len(cut)} parts{'' if captions else ' without captions'}"


async def live_through(past: str) -> None:
    """Let the engine live through the time before now, into the store of the demo."""
    begin = datetime.now(UTC) - durations.parse(past)
    memory = MemoryStore()
    async with virtual_time(scheduler, begin, store=memory) as now:
        await scheduler.disable("legacy_export", reason="replaced by the new reports", actor="tom")
        await now.until((await video.submit(title="spring")).wait())
        await now.until((await refund.submit(order=4711, amount=12.5)).wait())
        await now.advance(datetime.now(UTC) - now.now)
        await now.until(memory.backup(STORE))


async def main(past: str, seconds: float | None) -> None:
    from taskloop.web.aiohttp import listening
    from taskloop.web.site import Site

    if not Path(STORE).exists():  # noqa: ASYNC240 - nothing runs yet
        began = time.monotonic()
        logger.disable("taskloop")
        with redirect_stderr(io.StringIO()):  # where virtual time shows the traceback of each run that fails, for tests
            await live_through(past)
        logger.enable("taskloop")
        print(f"lived through {past} in {time.monotonic() - began:.0f} s", flush=True)
    scheduler.add_job(heartbeat, Every("15s"))
    scheduler.add_job(holds_the_loop, Every("1m"))
    await scheduler.start()
    try:
        await video.submit()
        site = Site(scheduler, bind="127.0.0.1")
        async with listening(site, "127.0.0.1", int(os.environ.get("PORT", "8700"))) as address:
            print(f"open {address}/", flush=True)
            await asyncio.sleep(seconds if seconds is not None else 10**9)
    finally:
        await scheduler.stop(grace="1s")


if __name__ == "__main__":
    words = argparse.ArgumentParser(description="A lively set of jobs with a past.")
    words.add_argument("--history", default="52w", help="how long the past is, such as 2w (a year)")
    words.add_argument("--for", dest="seconds", type=float, help="seconds after which it ends by itself")
    given = words.parse_args()
    try:
        asyncio.run(main(given.history, given.seconds))
    except KeyboardInterrupt:
        print("stopped")
