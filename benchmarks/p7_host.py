"""P7: what a web server notices of git metrics and a hundred jobs a second in its own process.

The same server without taskloop is the limit. Requests come from a process of their own, at a steady pace. Beside it: the
same server while `git log` alone runs on the machine, and taskloop where git metrics are the built-in job's, which
remembers what it has read and asks git only where something moved.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial

from benchmarks.harness import ROOT, Figure, Numbers, Setting, Workload, percentile
from benchmarks.p10_git import UNTIL, prepare
from taskloop import Every, TaskScheduler
from taskloop.git_metrics import FileMemory, collect
from taskloop.git_stamp import Unchanged
from taskloop.options import Options


async def nothing() -> None: ...


async def _served(setting: Setting, scheduler: TaskScheduler | None = None) -> Numbers:
    """Serve for as long as the requests come; with a scheduler its pages too, at which tabs look."""
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "items": list(range(20))})

    app = web.Application()
    app.router.add_get("/items", handle)
    if scheduler is not None:
        from taskloop.web.aiohttp import setup

        setup(app, scheduler, prefix="/taskloop", start=False, auth="open")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    source = f"from benchmarks.p7_host import ask; ask({port}, {setting.pace}, {setting.seconds})"
    looking = None
    if scheduler is not None:
        look = f"from benchmarks.p7_host import look; look({port}, {setting.tabs})"
        looking = await asyncio.create_subprocess_exec(sys.executable, "-c", look, cwd=ROOT)
        await asyncio.sleep(setting.settle)
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await asking.communicate()
    if looking is not None:
        if looking.returncode is not None:
            raise RuntimeError("the browsers were not given what they asked for")
        looking.kill()
        await looking.wait()
    await runner.cleanup()
    numbers: Numbers = json.loads(answer)
    return numbers


async def own(setting: Setting, tabs: bool = False, built_in: bool = False) -> Numbers:
    """`built_in`: git metrics are those of the built-in job; else the whole history is read again and again."""
    scheduler = TaskScheduler(setting.folder / "store.db", options=Options())
    repository, passes = setting.shared / "large.git", 0
    memory = FileMemory(setting.folder / "memory") if built_in else None
    unchanged = None if memory is None else Unchanged(beside=memory.file)

    def metrics() -> None:
        nonlocal passes
        collect([repository], now=datetime.fromtimestamp(UNTIL, UTC), memory=memory, unchanged=unchanged)
        passes += 1

    job = scheduler.add_job(nothing)
    scheduler.add_job(metrics, Every("250ms"))  # skipped while one is under way: there is always one
    async with scheduler:
        now = datetime.now(UTC)
        await scheduler.schedule_many(
            (job.bind(), Every("1s", anchor=now + timedelta(seconds=one / setting.rate)), f"nothing-{one}")
            for one in range(setting.rate)
        )
        numbers = await _served(setting, scheduler if tabs else None)
        numbers["passes"] = passes
        await scheduler.stop(grace=60)
    return numbers


async def limit(setting: Setting) -> Numbers:
    return await _served(setting)


async def beside_git(setting: Setting) -> Numbers:
    """Without taskloop, while git reads the same history again and again for nobody, at the lowest priority."""

    async def read() -> None:
        command = ["nice", "-n", "19", "git", "-C", setting.shared / "large.git", "log", "--numstat"]
        while True:
            git = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            try:
                await git.wait()
            except asyncio.CancelledError:
                git.kill()
                await git.wait()
                raise

    reading = asyncio.create_task(read())
    try:
        return await _served(setting)
    finally:
        reading.cancel()
        await asyncio.wait({reading})


def look(port: int, tabs: int) -> None:
    """In a process of its own: as many browsers, each with the first page open, which asks for its content at each word.

    It gives way to all others: browsers stand on machines of their own, so what they reckon is not taken from the server.
    """
    os.nice(19)
    asyncio.run(_look(port, tabs))


async def _look(port: int, tabs: int) -> None:
    import aiohttp

    address = f"http://127.0.0.1:{port}/taskloop"

    async def tab() -> None:
        async with session.get(f"{address}/changes") as stream:
            async for line in stream.content:
                if line.startswith(b"data"):
                    async with session.get(f"{address}/?live=true") as answer:
                        answer.raise_for_status()
                        await answer.read()

    unlimited = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=unlimited, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(tab() for _ in range(tabs)))


def ask(port: int, pace: int, seconds: float) -> None:
    """In a process of its own: send requests at `pace` a second and print how long each took."""
    print(json.dumps(asyncio.run(_ask(port, pace, seconds))))


async def _ask(port: int, pace: int, seconds: float) -> Numbers:
    import aiohttp

    took: list[float] = []
    async with aiohttp.ClientSession() as session:

        async def one(at: float) -> None:
            async with session.get(f"http://127.0.0.1:{port}/items") as response:
                await response.read()
            took.append(1000 * (time.perf_counter() - at))

        asked = []
        began = time.perf_counter() + 0.2
        for number in range(int(pace * seconds)):
            at = began + number / pace
            await asyncio.sleep(at - time.perf_counter())
            asked.append(asyncio.create_task(one(time.perf_counter())))
        await asyncio.gather(*asked)
    took = took[len(took) // 10 :]
    return {"p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99), "max_ms": max(took)}


WORKLOAD = Workload(
    name="p7",
    title="host: git metrics and 100 jobs a second in a web server",
    figures=(Figure("p99_ms", "p99 of a request", "ms", must=1.25, aim=1.05),),
    own={"taskloop": own, "taskloop, twenty tabs open": partial(own, tabs=True)},
    limit=limit,
    also={
        "limit, `git log` beside it": beside_git,
        "taskloop, git metrics built in": partial(own, built_in=True),
        "taskloop, built in, twenty tabs open": partial(own, built_in=True, tabs=True),
    },
    size={"tabs": 20, "settle": 1, "commits": 5500, "rate": 100, "pace": 197, "seconds": 10},
    quick={"tabs": 2, "settle": 0.2, "commits": 50, "rate": 20, "pace": 50, "seconds": 0.5},
    prepare=prepare,
    times=3,
)
