"""Tabs that stay open for long: what they come to hold, by one command.

    python tests/browser/soak.py                 fifteen minutes
    python tests/browser/soak.py --minutes 480   a night

A scheduler that lives through a day of its past first, and then runs a job each second and one that writes lines for as
long as it is looked at; two browsers with one tab each, on Now and on that run. Every six seconds, after the browser has
collected what nothing holds any more, it is written down what the scripts' heap, the process of the tab and the page's
elements come to. The growth is that of the line through what was measured after the first third: until then the log of
the run grows to what is shown of it. Ends with 1 where a tab grows by more than 20 MB in two hours, or has more than 5,000
elements.

Playwright is not asked: it has each answer of a server kept in the process of the tab, which would be measured then.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from dashboards import lively
from loguru import logger

from taskloop import Every, RunContext, TaskScheduler

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
MOST_MB: Final = 20.0
"""In two hours."""
MOST_ELEMENTS: Final = 5_000
LOOK_SECONDS: Final = 6.0
LEAST_LOOKS: Final = 20
"""With fewer a growth is not told."""
MEGABYTE: Final = 1024 * 1024


class Tab:
    """A page that is left open, and what it held whenever it was looked at."""

    def __init__(self, name: str, session: aiohttp.ClientSession, server: str) -> None:
        self.name = name
        self._session, self._server = session, server
        self.at: list[float] = []
        """Minutes."""
        self.heap: list[float] = []
        self.memory: list[float] = []
        """Of the heap of scripts, and of the process without what it shares; megabytes."""
        self.elements: list[int] = []
        self.nodes: list[int] = []
        """In the page; and all there are, those too that a script still holds."""

    async def look(self, minutes: float) -> None:
        """Look once. Nobody watches the tab between two looks."""
        targets = await self._asked("json/list")
        page = next(one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page")
        collect = ("HeapProfiler.collectGarbage", {})
        count = ("Runtime.evaluate", {"expression": "document.querySelectorAll('*').length"})
        *_, counted, heap, elements = await self._told(
            page, collect, collect, ("Memory.getDOMCounters", {}), ("Runtime.getHeapUsage", {}), count
        )
        browser = (await self._asked("json/version"))["webSocketDebuggerUrl"]
        (there,) = await self._told(browser, ("SystemInfo.getProcessInfo", {}))
        rendering = [one["id"] for one in there["processInfo"] if one["type"] == "renderer"]
        self.at.append(minutes)
        self.heap.append(heap["usedSize"] / MEGABYTE)
        self.memory.append(max(map(private, rendering)))  # a spare one is smaller
        self.elements.append(elements["result"]["value"])
        self.nodes.append(counted["nodes"])

    async def _asked(self, path: str) -> Any:
        async with self._session.get(f"http://{self._server}/{path}") as answer:
            return await answer.json(content_type=None)

    async def _told(self, address: str, *commands: tuple[str, dict[str, Any]]) -> list[Any]:
        """What the browser answers to commands of its protocol for tools."""
        results = []
        async with self._session.ws_connect(address) as socket:
            for number, (method, params) in enumerate(commands, 1):
                await socket.send_json({"id": number, "method": method, "params": params})
                while (answer := await socket.receive_json()).get("id") != number:
                    pass
                results.append(answer["result"])
        return results

    def grown(self, values: Sequence[float]) -> float | None:
        """What two hours add, by the line through the last two thirds; None: too few looks."""
        first = len(values) // 3
        return (
            None
            if len(values) < LEAST_LOOKS
            else 120 * statistics.linear_regression(self.at[first:], values[first:])[0]
        )

    def told(self) -> list[str]:
        rows = (("heap of scripts", self.heap), ("process", self.memory))
        figures = []
        for what, values in rows:
            grown = self.grown(values)
            more = "too short to tell the growth" if grown is None else f"in two hours {grown:+.1f} MB"
            third = values[len(values) // 3]
            figures.append(
                f"{self.name}: {what} {third:.1f} MB after a third, at most {max(values):.1f}, at the end {values[-1]:.1f}; {more}"
            )
        counts = f"{self.name}: {max(self.elements)} elements at most, {max(self.nodes)} nodes with those that are held"
        return [*figures, counts]

    @property
    def is_well(self) -> bool:
        grown = [one for one in (self.grown(self.heap), self.grown(self.memory)) if one is not None]
        return max(grown, default=0.0) < MOST_MB and max(self.elements) <= MOST_ELEMENTS


def private(process: int) -> float:
    """Megabytes that a process has for itself."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@asynccontextmanager
async def opened(name: str, address: str, folder: Path) -> AsyncIterator[Tab]:
    """A tab in a browser of its own."""
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={folder}", address,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        place = folder / "DevToolsActivePort"
        async with asyncio.timeout(30):
            while not (place.exists() and "\n" in place.read_text()):  # noqa: ASYNC110, ASYNC240 - a file tells nobody
                await asyncio.sleep(0.1)
        port = place.read_text().splitlines()[0]  # noqa: ASYNC240 - a line
        async with aiohttp.ClientSession() as session:
            yield Tab(name, session, f"127.0.0.1:{port}")
    finally:
        browser.terminate()
        await browser.wait()


async def tick(run: RunContext) -> str:
    """Each second something ends."""
    run.log("ticks")
    return f"tick {run.id}"


async def long_log(run: RunContext) -> None:
    """Grows for as long as anybody looks."""
    for number in itertools.count():
        run.log(f"line {number}: {'a few words of a job that tells what it does ' * 2}")
        run.progress(number % 1000, 1000, f"{number % 1000} of 1000")
        await asyncio.sleep(0.25)


async def soaked(minutes: float, folder: Path) -> list[Tab]:
    async with lively(folder / "shop.db") as (scheduler, address), AsyncExitStack() as stack:
        scheduler.add_job(tick, Every("1s"))
        number = await _begun(scheduler)
        tabs = [
            await stack.enter_async_context(opened(name, f"{address}{path}", folder / name))
            for name, path in (("Now", "/"), ("Run", f"/runs/{number}"))
        ]
        began = time.monotonic()
        while (passed := time.monotonic() - began) < 60 * minutes:
            for one in tabs:
                await one.look(passed / 60)
            if len(tabs[0].at) % 10 == 1:
                print(f"{passed / 60:5.1f} min: {'; '.join(map(_newest, tabs))}", flush=True)
            await asyncio.sleep(LOOK_SECONDS)
        return tabs


def _newest(one: Tab) -> str:
    return (
        f"{one.name} heap {one.heap[-1]:.1f} MB, process {one.memory[-1]:.1f} MB, "
        f"{one.elements[-1]} elements, {one.nodes[-1]} nodes"
    )


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
