"""P9: a store of ten million runs; every page and every list call, asked over HTTP in this process.

The store is made by SQL, which is no measurement, and stays for the next time in the folder of `--keep`. Each address is
asked with other runs, jobs and instants each time, after a first time that is not counted; the scheduler is not started,
so that nothing else happens. There is no limit to compare with: the goals are milliseconds.

Then each is asked a few times more, to see how long it keeps the loop from its host at a stretch: the longest of what the
loop calls one after the other, by the processor's time of its thread, so that what else the machine does is not in it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from contextvars import Context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from benchmarks.harness import Figure, Numbers, Setting, Workload, median, percentile
from taskloop import Every, TaskScheduler
from taskloop.options import Options
from taskloop.schedules import Schedule
from taskloop.store_data import Definition
from taskloop.store_sqlite import SqliteStore
from taskloop.web import asgi

DAYS: Final = 90
TOGETHER: Final = 200_000
BUSY: Final = "job-0000"
"""A fifth of all runs are its."""
SECOND: Final = 1_000_000
HELD_TIMES: Final = 5


# -- the store

_ROWS: Final = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last),
r AS (SELECT i,
    CASE WHEN i % 5 = 0 THEN 0 ELSE 1 + (i * 2654435761 % 4294967296) % (:jobs - 1) END AS j,
    (i * 40503 + i / 7 * 9973) % 1000 AS luck,
    :start + i * :step AS at FROM n),
s AS (SELECT i, printf('job-%04d', j) AS job, at, luck,
    CASE WHEN luck < 10 THEN 'failed' WHEN luck = 10 THEN 'cancelled' WHEN luck = 11 THEN 'interrupted'
         WHEN luck < 32 THEN 'skipped' ELSE 'succeeded' END AS state,
    CASE WHEN i % 97 = 0 THEN 'api' WHEN i % 101 = 0 THEN 'manual' WHEN i % 9973 = 0 THEN 'rerun' ELSE 'schedule' END AS cause,
    1000 + (i * 7919) % 900000 AS took FROM r)
INSERT INTO taskloop_runs (id, job, schedule, state, reason, cause, actor, attempt, attempts, due_at, ready_at, created_at,
    started_at, attempt_started_at, ended_at, worker, token, priority, summary, result, error, count, data)
SELECT i, job, CASE WHEN cause = 'schedule' THEN job END, state,
    CASE state WHEN 'skipped' THEN 'overlap' WHEN 'interrupted' THEN 'worker_died' END, cause,
    CASE WHEN cause <> 'schedule' THEN 'anna' END, 1, 1, at - 1000, at - 1000, at,
    CASE WHEN state <> 'skipped' THEN at END, CASE WHEN state <> 'skipped' THEN at END, at + took,
    CASE WHEN state <> 'skipped' THEN 'w1' END, 1, 0,
    CASE state WHEN 'succeeded' THEN 'did ' || took || ' rows' WHEN 'failed' THEN 'no connection to db:5432' END,
    CASE state WHEN 'succeeded' THEN '{"rows":' || took || '}' END,
    CASE state WHEN 'failed' THEN json_array('ConnectionRefusedError', 'no connection to db:5432, try ' || i, :traceback,
        printf('%08x', luck * 7 + i % 13)) END, 1, NULL
FROM s
"""
_TRACEBACK: Final = "Traceback (most recent call last):\n" + "".join(
    f'  File "shop/part_{number}.py", line {number * 7}, in step_{number}\n    return connect(host, port)\n'
    for number in range(12)
)
_ALSO: Final = (
    # A few that wait and run, steps and lines of the newest, counters of each day, and what people did.
    "UPDATE taskloop_runs SET state = 'running', ended_at = NULL, result = NULL, summary = NULL "
    "WHERE id IN (SELECT id FROM taskloop_runs WHERE state = 'succeeded' ORDER BY id DESC LIMIT 20)",
    "UPDATE taskloop_runs SET state = 'waiting', started_at = NULL, attempt_started_at = NULL, ended_at = NULL, attempt = 0, "
    "token = 0, result = NULL, summary = NULL, worker = NULL, ready_at = ready_at + 86400000000 "
    "WHERE id IN (SELECT id FROM taskloop_runs WHERE state = 'succeeded' ORDER BY id DESC LIMIT 100)",
    "INSERT INTO taskloop_steps SELECT r.id, 'step-' || v.value, v.value, 'succeeded', 1, started_at, ended_at, '1', NULL, 0 "
    "FROM (SELECT * FROM taskloop_runs WHERE state = 'failed' ORDER BY id DESC LIMIT 10) r, json_each('[1,2,3]') v",
    "INSERT INTO taskloop_log (run, token, lines) SELECT r.id, 1, json_array(json_array(started_at, 'info', 'began', NULL)) "
    "FROM (SELECT * FROM taskloop_runs WHERE state = 'failed' ORDER BY id DESC LIMIT 10) r, json_each('[1,2,3]')",
    "INSERT INTO taskloop_audit (at, actor, channel, action, object, job, reason) SELECT created_at, "
    "CASE WHEN id % 3 THEN 'anna' ELSE 'tom' END, 'api', 'submit', id, job, 'by hand' FROM taskloop_runs "
    "WHERE cause <> 'schedule' ORDER BY id",
    "INSERT INTO taskloop_incidents (worker, kind, since, until, data) SELECT 'w1', 'loop_blocked', created_at, "
    'created_at + 500000, \'{"ms": 500, "task": "t", "where": "x.py:1"}\' FROM taskloop_runs WHERE id % 10007 = 0',
    "INSERT INTO taskloop_switches (job, kind, actor, reason, since, ended_at, ended_by) SELECT job, 'paused', 'tom', 'move', "
    "created_at, created_at + 60000000, 'tom' FROM taskloop_runs WHERE id % 50021 = 0",
)


def name(number: int) -> str:
    return f"job-{number:04d}"


async def _furnished(path: Path, jobs: int, now: datetime) -> None:
    """A store with its jobs and schedules, and no run yet."""
    store = SqliteStore(path)
    await store.open()
    scheduler = TaskScheduler(store, options=Options())
    try:
        for number in range(jobs):
            scheduler.add_job(_nothing, Every("1h"), name=name(number))
        await store.define([_definition(scheduler, job.name) for job in scheduler])
        due = now + timedelta(days=1)
        made = [
            Schedule(
                id=job.name,
                job=job.name,
                trigger=Every("1h", anchor=due),
                next_due=due,
                anchor=due,
                seen_at=now,
                origin="code",
            )
            for job in scheduler
        ]
        await store.put(made, lambda _, new: new, now)
    finally:
        await store.close()


def _definition(scheduler: TaskScheduler, job: str) -> Definition:
    return scheduler.definition(scheduler[job])


async def _nothing() -> None: ...


def build(path: Path, runs: int, jobs: int) -> None:
    """Make the store; it has its name only when it is whole."""
    now = datetime.now(UTC)
    raw = path.with_suffix(".raw")
    for ending in ("", "-wal", "-shm"):
        Path(f"{raw}{ending}").unlink(missing_ok=True)
    asyncio.run(_furnished(raw, jobs, now))
    start = round((now - timedelta(days=DAYS)).timestamp() * SECOND)
    values = {"jobs": jobs, "start": start, "step": DAYS * 86400 * SECOND // runs, "traceback": _TRACEBACK}
    with closing(sqlite3.connect(raw, isolation_level=None)) as db:
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "cache_size = -500000", "temp_store = MEMORY"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        for first in range(1, runs + 1, TOGETHER):
            db.execute(_ROWS, values | {"first": first, "last": min(first + TOGETHER - 1, runs)})
        for statement in _ALSO:
            db.execute(statement)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
    raw.rename(path)


def prepare(folder: Path, size: Mapping[str, Any]) -> None:
    path = _place(folder, size)
    if not path.exists():
        build(path, size["runs"], size["jobs"])


def _place(folder: Path, size: Mapping[str, Any]) -> Path:
    return folder / f"history_{size['runs']}_{size['jobs']}.db"


# -- what is asked

ADDRESSES: Final = (
    "/",
    "/jobs",
    "/jobs?text=99&condition=failing",
    "/jobs/{job}",
    "/jobs/{busy}",
    "/jobs/{job}?at={instant}",
    "/runs",
    "/runs?before={run}",
    "/runs?since={day}",
    "/runs?job={job}",
    "/runs?state=failed&before={run}",
    "/runs?state=skipped&since={week}",
    "/runs?job={busy}&state=failed,interrupted&since={week}",
    "/runs?cause=api",
    "/runs?cause=rerun&job={job}",
    "/runs/{run}",
    "/runs/{failed}",
    "/timeline?from={hours}",
    "/timeline?from={week}",
    "/schedules",
    "/failures?since={week}",
    "/workers",
    "/audit",
    "/audit?job={job}",
    "/audit?actor=tom",
    "/api/v1/status",
    "/api/v1/summary",
    "/api/v1/attention",
    "/api/v1/loop",
    "/api/v1/timeline?from={hours}",
    "/api/v1/failures?since={week}",
    "/api/v1/upcoming",
    "/api/v1/workers",
    "/api/v1/jobs",
    "/api/v1/jobs/{job}",
    "/api/v1/jobs/{busy}/stats?since={week}",
    "/api/v1/jobs/{job}/stats?since={month}",
    "/api/v1/jobs/{job}/upcoming",
    "/api/v1/jobs/{job}/why",
    "/api/v1/jobs/{busy}/why?at={instant}",
    "/api/v1/schedules",
    "/api/v1/runs",
    "/api/v1/runs?before={run}",
    "/api/v1/runs?since={instant}",
    "/api/v1/runs?until={instant}",
    "/api/v1/runs?since={instant}&until={later}&state=failed",
    "/api/v1/runs?job={job}&until={instant}",
    "/api/v1/runs?state=waiting,running",
    "/api/v1/runs?cause=manual&since={month}",
    "/api/v1/runs/{run}",
    "/api/v1/runs/{run}/attempts",
    "/api/v1/runs/{failed}/steps",
    "/api/v1/runs/{failed}/log",
    "/api/v1/runs/export?since={instant}&until={later}",
    "/api/v1/audit",
    "/api/v1/audit?actor=anna&before={entry}",
    "/metrics",
    "/openapi.json",
    "/tasks/scheduler/status",
    "/tasks/worker/status",
    "/admin/control_processors",
)
"""With what differs from one asking to the next in braces."""


class Picked:
    """What stands in the braces: runs, jobs and instants by chance, always the same ones in the same order."""

    def __init__(self, path: Path, size: Mapping[str, Any]) -> None:
        self._chance = random.Random(9)
        self._jobs, self._runs = size["jobs"], size["runs"]
        with closing(sqlite3.connect(path)) as db:
            (end,) = db.execute("SELECT max(created_at) FROM taskloop_runs").fetchone()
            failed = "SELECT id FROM taskloop_runs WHERE state = 'failed' AND state IN ('failed', 'interrupted', 'cancelled', 'skipped')"
            self._failed = [row[0] for row in db.execute(f"{failed} ORDER BY id DESC LIMIT 10")]
            (self._entries,) = db.execute("SELECT max(id) FROM taskloop_audit").fetchone()
        self._end = end / SECOND
        self._age = max(0, time.time() - self._end)
        """Of a store that was kept: what is asked back from now begins so much earlier."""

    def values(self) -> dict[str, str]:
        at = datetime.fromtimestamp(self._end - self._chance.random() * 0.9 * DAYS * 86400, UTC)
        back = {"hours": 6 * 3600, "day": 86400, "week": 7 * 86400, "month": 30 * 86400}
        return {
            "busy": BUSY,
            "job": name(self._chance.randrange(1, self._jobs)),
            "run": str(self._chance.randrange(1, self._runs + 1)),
            "failed": str(self._chance.choice(self._failed)),
            "entry": str(self._chance.randrange(1, self._entries + 1)),
            "instant": quote(at.isoformat()),
            "later": quote((at + timedelta(hours=1)).isoformat()),
            **{word: f"{round(seconds + self._age)}s" for word, seconds in back.items()},
        }


async def own(setting: Setting) -> Numbers:
    path = _place(setting.shared, setting.size)
    picked = Picked(path, setting.size)
    scheduler = TaskScheduler(path, options=Options())
    for number in range(setting.jobs):
        scheduler.add_job(_nothing, Every("1h"), name=name(number))
    surface = asgi.app(scheduler, auth="open")
    numbers: Numbers = {}
    gc.collect()
    gc.freeze()  # as `taskloop run` does once it has started
    try:
        for address in ADDRESSES:
            took, worked = [], []
            for _ in range(setting.times + 1):
                seconds, busy = await _asked(surface, address.format_map(picked.values()))
                took.append(1000 * seconds)
                worked.append(1000 * busy)
            numbers[f"p50_ms {address}"] = percentile(took[1:], 0.5)
            numbers[f"p95_ms {address}"] = percentile(took[1:], 0.95)
            numbers[f"cpu_ms {address}"] = percentile(worked[1:], 0.5)
            with Stretches() as stretches:
                for _ in range(HELD_TIMES):
                    stretches.begin()
                    await _asked(surface, address.format_map(picked.values()))
            numbers[f"held_ms {address}"] = 1000 * percentile(stretches.longest, 0.5)
    finally:
        await scheduler.close()
    worst = sorted(value for key, value in numbers.items() if key.startswith("p95_ms"))
    held = max(value for key, value in numbers.items() if key.startswith("held_ms"))
    return {"worst_ms": worst[-1], "median_ms": percentile(worst, 0.5), "held_ms": held, **numbers}


class Stretches:
    """Of everything that begins with `begin` the longest time, in seconds of its processor, that the loop called one thing."""

    def __init__(self) -> None:
        self.longest: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._call_soon = self._loop.call_soon

    def begin(self) -> None:
        self.longest.append(0.0)

    def _called(self, callback: Callable[..., object], *args: object) -> None:
        began = time.thread_time()
        try:
            callback(*args)
        finally:
            if self.longest:
                self.longest[-1] = max(self.longest[-1], time.thread_time() - began)

    def __enter__(self) -> Stretches:
        def call_soon(callback: Callable[..., object], *args: object, context: Context | None = None) -> asyncio.Handle:
            return self._call_soon(self._called, callback, *args, context=context)

        self._loop.call_soon = call_soon  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        del self._loop.call_soon


async def _asked(surface: Any, address: str) -> tuple[float, float]:
    """Seconds until the answer is there, of a file its first part, and seconds of the processor for all of it."""
    path, _, query = address.partition("?")
    scope = {
        "type": "http", "method": "GET", "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": query.encode(), "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1),
    }  # fmt: skip
    status, took, asked = 0, 0.0, False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, took
        status = message.get("status", status)
        if message.get("body"):
            took = took or time.perf_counter() - began

    began, busy = time.perf_counter(), time.process_time()
    await surface(scope, receive, send)
    assert status == 200, f"{address}: {status}"
    return took, time.process_time() - busy


def details(measured: Mapping[str, Any]) -> list[str]:
    """The table of all addresses, the slowest first: the medians over the rounds.

    The time of the processor, of all threads of the process, is what a machine that has other things to do disturbs least;
    `held` is that of the loop's thread alone, at a stretch.
    """
    words = ("p95_ms", "p50_ms", "cpu_ms", "held_ms")
    rows = [(*(median(measured, "taskloop", f"{word} {one}") or 0.0 for word in words), one) for one in ADDRESSES]
    lines = [
        f"| {one.ljust(66)} | {p50:7.1f} | {p95:7.1f} | {cpu:7.1f} | {held:7.1f} |"
        for p95, p50, cpu, held, one in sorted(rows, reverse=True)
    ]
    head = f"| {'address, ms'.ljust(66)} | {'p50':>7} | {'p95':>7} | {'cpu':>7} | {'held':>7} |"
    return [head, f"|{'-' * 68}|{'--------:|' * 4}", *lines]


WORKLOAD = Workload(
    name="p9",
    title="ten million runs stored: every page and list call",
    figures=(
        Figure("worst_ms", "p95 of the slowest address", "ms", must=100, aim=20, absolute=True),
        Figure("median_ms", "p95 of the address in the middle", "ms", must=100, aim=20, absolute=True),
        Figure("held_ms", "how long a request holds the loop at a stretch", "ms", must=5, aim=2, absolute=True),
    ),
    own={"taskloop": own},
    size={"runs": 10_000_000, "jobs": 1000, "times": 20},
    quick={"runs": 2_000, "jobs": 20, "times": 2},
    prepare=prepare,
    lasting=True,
    details=details,
)
