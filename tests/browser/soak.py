"""Tabs that stay open for long: what they come to hold, by one command.

    python tests/browser/soak.py                 fifteen minutes
    python tests/browser/soak.py --minutes 480   a night

A scheduler that lives through a day of its past first, and then runs a job each second and one that writes lines for as
long as it is looked at; two tabs, on Now and on that run. Each tenth of a minute, after the browser has collected what
nothing holds any more, it is written down what the scripts' heap, the process of the tab and the page's elements come to.
The growth is that of the line through what was measured after the first quarter. Ends with 1 where a tab grows by more
than 20 MB in two hours, or has more than 5,000 elements.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dashboards import lively
from loguru import logger
from playwright.async_api import Browser, CDPSession, Page, async_playwright

from taskloop import Every, RunContext, TaskScheduler

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
MOST_MB: Final = 20.0
"""In two hours."""
MOST_ELEMENTS: Final = 5_000
LOOK_SECONDS: Final = 6.0
MEGABYTE: Final = 1024 * 1024


class Tab:
    """A page that is left open, and what it held whenever it was looked at."""

    def __init__(self, name: str, page: Page, session: CDPSession, process: int) -> None:
        self.name = name
        self._page, self._session, self._process = page, session, process
        self.at: list[float] = []
        """Minutes."""
        self.heap: list[float] = []
        self.memory: list[float] = []
        """Of the heap of scripts, and of the process without what it shares; megabytes."""
        self.elements: list[int] = []
        self.nodes: list[int] = []
        """In the page; and all there are, those too that a script still holds."""

    async def look(self, minutes: float) -> None:
        for _ in range(2):
            await self._session.send("HeapProfiler.collectGarbage")
        counted = await self._session.send("Memory.getDOMCounters")
        heap = await self._session.send("Runtime.getHeapUsage")
        self.at.append(minutes)
        self.heap.append(heap["usedSize"] / MEGABYTE)
        self.memory.append(private(self._process))
        self.elements.append(await self._page.evaluate("document.querySelectorAll('*').length"))
        self.nodes.append(counted["nodes"])

    def grown(self, values: Sequence[float]) -> float:
        """What two hours add, by the line through the last three quarters."""
        first = len(values) // 4
        return statistics.linear_regression(self.at[first:], values[first:]).slope * 120 if len(values) > 8 else 0.0

    def told(self) -> list[str]:
        rows = (("heap of scripts", self.heap), ("process", self.memory))
        figures = [
            f"{self.name}: {what} {values[0]:.1f} MB, at most {max(values):.1f}, at the end {values[-1]:.1f}; "
            f"in two hours {self.grown(values):+.1f} MB"
            for what, values in rows
        ]
        counts = f"{self.name}: {max(self.elements)} elements at most, {max(self.nodes)} nodes with those that are held"
        return [*figures, counts]

    @property
    def is_well(self) -> bool:
        grown = max(self.grown(self.heap), self.grown(self.memory))
        return grown < MOST_MB and max(self.elements) <= MOST_ELEMENTS


def private(process: int) -> float:
    """Megabytes that a process has for itself."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


async def opened(browser: Browser, name: str, address: str, known: set[int]) -> Tab:
    """A tab in a window, and so in a process, of its own."""
    page = await (await browser.new_context(viewport={"width": 1280, "height": 900})).new_page()
    await page.goto(address)
    session = await page.context.new_cdp_session(page)
    whole = await browser.new_browser_cdp_session()
    there = await whole.send("SystemInfo.getProcessInfo")
    rendering = {one["id"] for one in there["processInfo"] if one["type"] == "renderer"} - known
    known |= rendering
    # A spare process may have come up too: the one of this page is the larger.
    return Tab(name, page, session, max(rendering, key=private))


async def tick(run: RunContext) -> str:
    """Each second something ends."""
    run.log("ticks")
    return f"tick {run.id}"


async def long_log(run: RunContext) -> None:
    """Grows for as long as anybody looks."""
    for number in range(10**9):
        run.log(f"line {number}: {'a few words of a job that tells what it does ' * 2}")
        run.progress(number % 1000, 1000, f"{number % 1000} of 1000")
        await asyncio.sleep(0.5)


async def soaked(minutes: float, folder: Path) -> list[Tab]:
    async with lively(folder / "shop.db") as (scheduler, address), async_playwright() as playwright:
        scheduler.add_job(tick, Every("1s"))
        number = await _begun(scheduler)
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        known: set[int] = set()
        tabs = [
            await opened(browser, name, f"{address}{path}", known)
            for name, path in (("Now", "/"), (f"run {number}", f"/runs/{number}"))
        ]
        began = time.monotonic()
        while (passed := time.monotonic() - began) < 60 * minutes:
            for one in tabs:
                await one.look(passed / 60)
            if len(tabs[0].at) % 10 == 1:
                print(
                    f"{passed / 60:5.1f} min: "
                    + "; ".join(
                        f"{one.name} heap {one.heap[-1]:.1f} MB, process {one.memory[-1]:.1f} MB, "
                        f"{one.elements[-1]} elements, {one.nodes[-1]} nodes"
                        for one in tabs
                    ),
                    flush=True,
                )
            await asyncio.sleep(LOOK_SECONDS)
        await browser.close()
        return tabs


async def _begun(scheduler: TaskScheduler) -> Any:
    """The number of the run that writes, once it has begun."""
    begun = asyncio.Event()
    scheduler.on("started")(lambda event: begun.set() if event.job == "long_log" else None)
    job = scheduler.add_job(long_log)
    handle = await job.submit()
    await asyncio.wait_for(begun.wait(), 10)
    return handle.run.id


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0)
    given = parser.parse_args()
    logger.disable("taskloop")
    with tempfile.TemporaryDirectory() as folder:
        tabs = asyncio.run(soaked(given.minutes, Path(folder)))
    for line in (line for one in tabs for line in one.told()):
        print(line)
    return 0 if all(one.is_well for one in tabs) else 1


if __name__ == "__main__":
    sys.exit(main())
