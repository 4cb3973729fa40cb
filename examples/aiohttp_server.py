"""An aiohttp server that reads git metrics of the repository it stands in every two weeks, and stays quick meanwhile.

    pip install "taskloop[web]"
    TASKLOOP_HTTP__TOKEN=secret python examples/aiohttp_server.py       then open http://127.0.0.1:8080/taskloop/

`/` answers at once, whatever runs; `/metrics` shows the newest figures. The scheduler starts and stops with the app.

    TASKLOOP_DEV=10 python examples/aiohttp_server.py                   every 10 seconds, in a store of its own
    curl -X POST -H "Authorization: Bearer secret" http://127.0.0.1:8080/taskloop/admin/tasks/run       now; waits
    TASK_SCHEDULER_ENABLED=false python examples/aiohttp_server.py      nothing fires here: cron or a systemd timer does
    taskloop once --due --app aiohttp_server:scheduler                  what those call, each day: it runs what is due
"""

from __future__ import annotations

import os
from pathlib import Path

from aiohttp import web

from taskloop import TaskScheduler
from taskloop.git_metrics import make_job
from taskloop.triggers import Every
from taskloop.web.aiohttp import setup

HERE = Path(__file__).resolve().parent.parent
SCHEDULER = web.AppKey("scheduler", TaskScheduler)


def make_scheduler(store: str | None = None) -> TaskScheduler:
    """`store`: where runs are kept; None: as the environment says, else taskloop.db here."""
    made = TaskScheduler(store, name="aiohttp-server")
    made.add_job(make_job([HERE]), Every(), name="git_metrics", timeout="10m")  # as often as the scheduler says
    return made


scheduler = make_scheduler()


async def hello(request: web.Request) -> web.Response:
    """Answers at once: what the job reads, it reads in a thread."""
    active = await request.app[SCHEDULER].runs("git_metrics", state=["running", "waiting"])
    return web.json_response({"hello": "world", "reading": bool(active)})


async def metrics(request: web.Request) -> web.Response:
    """The figures of the newest run that succeeded."""
    runs = await request.app[SCHEDULER].runs("git_metrics", state="succeeded", limit=1)
    return web.json_response(runs[0].result if runs else {"repositories": {}, "failed": {}})


def make_app(scheduler: TaskScheduler = scheduler) -> web.Application:
    app = web.Application()
    app[SCHEDULER] = scheduler
    app.add_routes([web.get("/", hello), web.get("/metrics", metrics)])
    setup(app, scheduler, prefix="/taskloop")  # closed to who has no token; `auth=` takes the site's own sign-in
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
