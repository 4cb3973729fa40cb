"""P7: what a web server notices of git metrics and a hundred jobs a second in its own process.

The same server without taskloop is the limit. Requests come from a process of their own, at a steady pace. The built-in job
reads all of the history at first, and from then on looks four times a second whether something moved. Beside it: the whole
history read again and again; and the bare server while `git log` alone runs on the machine, or while twenty browsers ask
it for a page that is always the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.harness import ROOT, Figure, Numbers, Setting, Workload, percentile
from benchmarks.p10_git import UNTIL, prepare
from taskloop import Every, TaskScheduler
from taskloop.git_metrics import FileMemory, collect
from taskloop.git_stamp import Unchanged
from taskloop.options import Options

if TYPE_CHECKING:
    from aiohttp import web


async def nothing() -> None: ...


async def _served(setting: Setting, mount: Callable[[web.Application], None] | None = None) -> Numbers:
    """Serve for as long as the requests come; `mount` adds pages, at which tabs look."""
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "items": list(range(20))})

    app = web.Application()
    app.router.add_get("/items", handle)
    if mount is not None:
        mount(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    source = f"from benchmarks.p7_host import ask; ask({port}, {setting.pace}, {setting.seconds})"
    looking = None
    if mount is not None:
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


async def own(setting: Setting, tabs: bool = False, without_pause: bool = False) -> Numbers:
    """`without_pause`: git metrics remember nothing, the whole history is read again and again."""
    from taskloop.web.aiohttp import setup

    scheduler = TaskScheduler(setting.folder / "store.db", options=Options())
    repository, passes = setting.shared / "large.git", 0
    memory = None if without_pause else FileMemory(setting.folder / "memory")
    unchanged = None if memory is None else Unchanged(beside=memory.file)

    def metrics() -> None:
        nonlocal passes
        collect([repository], now=datetime.fromtimestamp(UNTIL, UTC), memory=memory, unchanged=unchanged)
        passes += 1

    def pages(app: web.Application) -> None:
        setup(app, scheduler, prefix="/taskloop", start=False, auth="open")

    job = scheduler.add_job(nothing)
    scheduler.add_job(metrics, Every("250ms"))  # skipped while one is under way
    async with scheduler:
        now = datetime.now(UTC)
        await scheduler.schedule_many(
            (job.bind(), Every("1s", anchor=now + timedelta(seconds=one / setting.rate)), f"nothing-{one}")
            for one in range(setting.rate)
        )
        numbers = await _served(setting, pages if tabs else None)
        numbers["passes"] = passes
        await scheduler.stop(grace=60)
    return numbers


async def limit(setting: Setting) -> Numbers:
    return await _served(setting)


async def beside_browsers(setting: Setting) -> Numbers:
    """Without taskloop; the pages are two that cost nothing, as large, and asked for as often, as those of taskloop."""
    from aiohttp import web

    body = os.urandom(3300).hex().encode()

    async def page(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="text/html")

    async def changes(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await stream.prepare(request)
        while True:
            await asyncio.sleep(1 - asyncio.get_running_loop().time() % 1)
            await stream.write(b"data: null\n\n")

    def mount(app: web.Application) -> None:
        app.router.add_get("/taskloop/", page)
        app.router.add_get("/taskloop/changes", changes)

    return await _served(setting, mount)


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
    own={
        "taskloop": own,
        "taskloop, twenty tabs open": partial(own, tabs=True),
        "taskloop, all read without pause": partial(own, without_pause=True),
    },
    limit=limit,
    also={"limit, `git log` beside it": beside_git, "limit, twenty browsers beside it": beside_browsers},
    size={"tabs": 20, "settle": 1, "commits": 5500, "rate": 100, "pace": 197, "seconds": 10},
    quick={"tabs": 2, "settle": 0.2, "commits": 50, "rate": 20, "pace": 50, "seconds": 0.5},
    prepare=prepare,
    times=3,
)
