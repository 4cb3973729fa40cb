"""Mines the tickets of a help desk for issues: each night by itself, and whenever an admin asks.

    pip install "taskloop[asgi]" fastapi uvicorn aiohttp scikit-learn
    TASKLOOP_HTTP__TOKEN=secret python examples/issue_miner.py          then open http://127.0.0.1:8000/api/

    curl -H "Authorization: Bearer secret" http://127.0.0.1:8000/api/tasks/scheduler/status
    curl -H "Authorization: Bearer secret" http://127.0.0.1:8000/api/tasks/worker/status
    curl -X POST -H "Authorization: Bearer secret" -d '{"backfill_days": 7}' http://127.0.0.1:8000/api/tasks/sync

`sync`, `analyze` and `pipeline` run one at a time (group `worker`; a second one is answered 409), each at most five times
an hour for one caller. What a killed process had done of a pipeline is kept; the next start goes on from there.
The help desk is a stand-in that this file serves below /desk: DESK_URL names another.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from fastapi import FastAPI

from taskloop import Inject, Retry, RunContext, TaskScheduler
from taskloop.web import asgi

PORT = int(os.environ.get("PORT", "8000"))
DESK_URL = os.environ.get("DESK_URL", f"http://127.0.0.1:{PORT}/desk")
CATEGORIES = {"billing": "invoice|charged|refund", "login": "password|sign in|locked", "speed": "slow|timeout|hangs"}
WORKER: dict[str, Any] = {"group": "worker", "submit_limit": "5/1h", "retry": Retry(3, first="1s")}

scheduler = TaskScheduler("sqlite:///issue_miner.db", name="issue-miner")


@contextmanager
def issues() -> Iterator[sqlite3.Connection]:
    """A connection to what was mined; all that a block does is one transaction."""
    db = sqlite3.connect("issues.db", timeout=20)
    db.execute("CREATE TABLE IF NOT EXISTS tickets (id INTEGER PRIMARY KEY, customer, text, at, category, cluster)")
    db.execute("CREATE TABLE IF NOT EXISTS trends (cluster, week, tickets, customers, PRIMARY KEY (cluster, week))")
    try:
        with db:
            yield db
    finally:
        db.close()


@asynccontextmanager
async def desk_client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20), raise_for_status=True) as client:
        yield client


async def sync_tickets(run: RunContext, client: aiohttp.ClientSession, days: int) -> int:
    """Reads page after page; a ticket that is known already is written again, so it may end anywhere."""
    since = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    page: int | None = 1
    count = 0
    while page:
        async with client.get(f"{DESK_URL}/tickets", params={"since": since, "page": page}) as answer:
            told = await answer.json()
        with issues() as db:
            db.executemany(
                "INSERT INTO tickets (id, customer, text, at) VALUES (:id, :customer, :text, :at)"
                " ON CONFLICT (id) DO UPDATE SET text = excluded.text",
                told["tickets"],
            )
        count += len(told["tickets"])
        run.progress(count, told["total"], f"Syncing tickets (page {page})...")
        page = told["next_page"]
    return count


def analyze_tickets(run: RunContext, batch_size: int) -> int:
    """In a thread, batch by batch: memory stays small, and what is done is done."""
    count = 0
    while True:
        with issues() as db:
            batch = db.execute("SELECT id, text FROM tickets WHERE category IS NULL LIMIT ?", (batch_size,)).fetchall()
            for number, text in batch:
                fitting = (name for name, words in CATEGORIES.items() if re.search(words, text))
                db.execute("UPDATE tickets SET category = ? WHERE id = ?", (next(fitting, "other"), number))
        if not batch:
            return count
        count += len(batch)
        run.check_cancelled()
        run.progress(message=f"Analyzing tickets (batch size: {batch_size})... {count}")


def cluster_issues(run: RunContext) -> int:
    """Puts tickets that speak of the same together, whatever their numbers and names."""
    from sklearn.cluster import DBSCAN  # a second to import: only where it is used, and in a thread
    from sklearn.feature_extraction.text import TfidfVectorizer

    run.progress(message="Clustering issues...")
    with issues() as db:
        tickets = db.execute("SELECT id, text FROM tickets ORDER BY id DESC LIMIT 2000").fetchall()
        if not tickets:
            return 0
        vectors = TfidfVectorizer(analyzer=re.compile("[a-z]{3,}").findall).fit_transform(text for _, text in tickets)
        labels = DBSCAN(eps=0.7, min_samples=3, metric="cosine").fit_predict(vectors)
        rows = [(int(label), number) for label, (number, _) in zip(labels, tickets, strict=True)]
        db.executemany("UPDATE tickets SET cluster = ? WHERE id = ?", rows)
    return len(set(labels) - {-1})


def update_trends() -> int:
    with issues() as db:
        return db.execute(
            "INSERT OR REPLACE INTO trends SELECT cluster, strftime('%Y-%W', at), count(*), count(DISTINCT customer)"
            " FROM tickets WHERE cluster >= 0 GROUP BY 1, 2"
        ).rowcount


@scheduler.job(title="Sync tickets", **WORKER)
async def sync(run: RunContext, backfill_days: int = 1, client: aiohttp.ClientSession = Inject(desk_client)) -> str:
    return f"{await sync_tickets(run, client, backfill_days)} tickets"


@scheduler.job(title="Analyze tickets", **WORKER)
def analyze(run: RunContext, batch_size: int = 500) -> str:
    return f"{analyze_tickets(run, batch_size)} tickets analyzed"


async def mine(run: RunContext, client: aiohttp.ClientSession, backfill_days: int, batch_size: int) -> dict[str, int]:
    """Four steps; each is kept, and not done again after a failure or a crash."""
    return {
        "synced": await run.step("sync", sync_tickets, run, client, backfill_days),
        "analyzed": await run.step("analyze", analyze_tickets, run, batch_size),
        "clusters": await run.step("cluster", cluster_issues, run),
        "trends": await run.step("trends", update_trends),
    }


@scheduler.job(title="Full pipeline", **WORKER)
async def pipeline(
    run: RunContext, backfill_days: int = 1, batch_size: int = 500, client: aiohttp.ClientSession = Inject(desk_client)
) -> dict[str, int]:
    return await mine(run, client, backfill_days, batch_size)


@scheduler.cron("0 2 * * *", title="Daily ticket sync", max_late="1h", retry=3)
async def daily_sync(run: RunContext, client: aiohttp.ClientSession = Inject(desk_client)) -> dict[str, int]:
    """At two in the morning, or within an hour of it; several missed nights are one run."""
    return await mine(run, client, backfill_days=1, batch_size=500)


@scheduler.cron("0 * * * *", title="Hourly trends update")
def hourly_trends() -> str:
    return f"{update_trends()} rows of trends"


def stand_in_desk(tickets: int = 900, per_page: int = 100) -> FastAPI:
    """A help desk with two months of tickets, a hundred a page."""
    desk, chance, now = FastAPI(), random.Random(7), datetime.now(UTC)
    said = ["invoice {} was charged twice, please refund", "cannot sign in, the password of {} is refused",
            "the report {} is slow and ends in a timeout", "how do I export list {} to a spreadsheet"]  # fmt: skip
    all_of_them = [
        {"id": number, "customer": f"customer-{chance.randrange(80)}", "text": chance.choice(said).format(number),
         "at": (now - timedelta(minutes=96 * (tickets - number))).isoformat()}
        for number in range(1, tickets + 1)
    ]  # fmt: skip

    @desk.get("/tickets")
    def page_of_tickets(since: str, page: int = 1) -> dict[str, Any]:
        found = [one for one in all_of_them if one["at"] >= since]
        part = found[(page - 1) * per_page : page * per_page]
        return {"tickets": part, "total": len(found), "next_page": page + 1 if page * per_page < len(found) else None}

    return desk


app = FastAPI(lifespan=asgi.lifespan(scheduler))
app.mount("/api", asgi.app(scheduler))  # closed to who has no token; `auth=` takes the site's own sign-in
app.mount("/desk", stand_in_desk())

if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=PORT)
