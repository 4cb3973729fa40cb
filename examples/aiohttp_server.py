"""An aiohttp server whose handlers stay quick while git metrics of the repository it stands in are read.

    pip install "taskloop[web]"
    python examples/aiohttp_server.py          then open http://127.0.0.1:8080/

The scheduler is started and stopped with the app. `/` answers at once, whatever runs; `/metrics` shows the newest
figures; `POST /refresh` asks for a run and answers before it has ended.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from taskloop import Every, TaskScheduler
from taskloop.git_metrics import make_job

HERE = Path(__file__).resolve().parent.parent
SCHEDULER = web.AppKey("scheduler", TaskScheduler)


async def hello(request: web.Request) -> web.Response:
    """Answers at once: what the job reads, it reads in a thread."""
    active = await request.app[SCHEDULER].runs("git_metrics", state=["running", "waiting"])
    return web.json_response({"hello": "world", "reading": bool(active)})


async def metrics(request: web.Request) -> web.Response:
    """The figures of the newest run that succeeded."""
    runs = await request.app[SCHEDULER].runs("git_metrics", state="succeeded", limit=1)
    return web.json_response(runs[0].result if runs else {"repositories": {}, "failed": {}})


async def refresh(request: web.Request) -> web.Response:
    """Ask for a run; it is on record when this answers, and goes on behind it."""
    run = await request.app[SCHEDULER].submit("git_metrics", actor="web")
    return web.json_response({"run": run.id}, status=202)


async def scheduling(app: web.Application) -> AsyncIterator[None]:
    """Start the scheduler with the app, stop it with the app."""
    await app[SCHEDULER].start("2w")
    yield
    await app[SCHEDULER].stop(grace="10s")


def make_app(store: str = "sqlite:///aiohttp_server.db") -> web.Application:
    """The server; `store` is where its runs are kept."""
    scheduler = TaskScheduler(store)
    scheduler.add_job(make_job([HERE]), Every(), name="git_metrics", timeout="10m")
    app = web.Application()
    app[SCHEDULER] = scheduler
    app.cleanup_ctx.append(scheduling)
    app.add_routes([web.get("/", hello), web.get("/metrics", metrics), web.post("/refresh", refresh)])
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
