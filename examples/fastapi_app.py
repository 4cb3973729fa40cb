"""A FastAPI app with jobs, their API and their dashboard.

    pip install "taskloop[asgi]" fastapi      (uvicorn serves it, jinja2 makes the pages)
    python examples/fastapi_app.py             then open http://127.0.0.1:8000/taskloop/

Everybody on this machine may do all, for the server listens on loopback; in a real app give `auth=` your own login.
Starlette takes the same two lines.
"""

from __future__ import annotations

import os

from fastapi import FastAPI

from taskloop import RunContext, TaskScheduler
from taskloop.web import asgi

scheduler = TaskScheduler("sqlite:///fastapi_app.db", name="fastapi-app")


@scheduler.every("1m")
async def tidy_up() -> str:
    """Once a minute, and once at the first start."""
    return "nothing to tidy"


@scheduler.job()
def report(run: RunContext, days: int = 7) -> dict[str, int]:
    """In a thread: the app stays quick meanwhile."""
    for day in range(days):
        run.progress(day + 1, days, f"day {day + 1}")
        run.log(f"read day {day + 1}")
    return {"days": days}


app = FastAPI(lifespan=asgi.lifespan(scheduler))
app.mount("/taskloop", asgi.app(scheduler, auth="open"))


@app.post("/reports", status_code=202)
async def ask_for_a_report(days: int = 7) -> dict[str, int]:
    """On record when this answers; the work goes on behind it."""
    run = await report.bind(days=days).submit(actor="app")
    return {"run": run.id}


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
