"""How PostgreSQL goes about each statement of a store with a long history: never through all runs. Told by itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
from servers import emptied, server
from stores import NOW, asked, at, claimed, ended, fired, firing, hourly, know, put, submitted

from taskloop import history_postgres as history
from taskloop.audit import Entry
from taskloop.claims_postgres import LOOKED_AT
from taskloop.claims_postgres import claim as claim_runs
from taskloop.clock import microseconds
from taskloop.moments import Question, subject
from taskloop.past_postgres import MOST_RECORDS
from taskloop.runs import Failure, Progress, Raised, RunId, State
from taskloop.steps import LogLine, Step
from taskloop.store import Switch, open_store
from taskloop.store_data import Claimed, Incident, Query, Terms, Window, Worker

pytestmark = pytest.mark.anyio

MANY = 30_000
BEGUN = 3_000
HISTORY = """
INSERT INTO taskloop.runs (id, job, schedule, state, cause, attempt, attempts, due_at, ready_at, created_at, started_at,
    attempt_started_at, ended_at, token, priority, count)
SELECT nextval('taskloop.run_ids'), (ARRAY['a', 'b', 'old'])[1 + n % 3], 'past ' || n % 50, CASE WHEN n % 100 = 0 THEN 'failed'
    ELSE 'succeeded' END, 'schedule', 1, 1, t.at, t.at, t.at, t.at, t.at, t.at + 1000000, 1, 0, 1
FROM generate_series(1, {many}) n, LATERAL (SELECT {since} + n * 60000000::bigint AS at) t
"""
FAILED = Raised(Failure("E", "m"), None)


async def test_no_statement_goes_through_all_runs_however_many_there_are():
    url = emptied().store
    store: Any = open_store(url)
    await store.open()
    db = await asyncpg.connect(url)
    since = round((NOW - timedelta(days=30)).timestamp()) * 10**6
    await db.execute(HISTORY.format(many=MANY, since=since))
    await db.execute("ANALYZE taskloop.runs")
    told: dict[str, tuple[Any, ...]] = {}
    try:
        await asyncio.gather(store.counts(), store.counts())  # both readers have their connection
        connections = [await store._writer.open()]
        for connection in [*connections, *store._readers._queue]:
            connection.add_query_logger(lambda record: told.setdefault(record.query, record.args))
        await live(store)
        wrong = [found for query, args in told.items() if (found := await through_all(db, query, args))]
        await db.execute("TRUNCATE taskloop.runs")
        hasty = [found for query in told if (found := await kept_plan(db, query))]
    finally:
        await store.close()
        await db.execute("TRUNCATE taskloop.runs")
        await db.close()
    assert wrong == []
    assert len(told) > 60
    assert hasty == []


async def test_a_claim_looks_past_what_has_begun_while_an_old_transaction_is_open_once_a_statement():
    async with counted() as (store, db):
        old = await asyncpg.connect(server().store)
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")  # as a dump: what ends is not cleared away
        await submitted(store, *(asked(ready_at=at(-60)) for _ in range(BEGUN)))
        await db.execute("UPDATE taskloop.runs SET state = 'running'")
        await submitted(store, asked("b"), asked("b", ready_at=at(60)), asked("b", priority=-1))
        await db.execute("VACUUM ANALYZE taskloop.runs")
        claim, read = await read_by_a_claim(store, db)
        await old.close()
    assert [run.job for run in claim.started] == ["b", "b"]
    assert (claim.next_at, claim.left) == (at(60), True)
    assert BEGUN < read < 4 * BEGUN


async def test_a_claim_goes_through_no_queue_of_which_the_server_has_not_heard():
    async with counted() as (store, db):
        await db.execute(HISTORY.format(many=MANY, since=0))
        await db.execute(
            "VACUUM ANALYZE taskloop.runs"
        )  # while nothing waits: beside so many runs it counts no more for long
        await submitted(store, *(asked(ready_at=at(-60)) for _ in range(9 * LOOKED_AT)))
        claim, read = await read_by_a_claim(store, db)
    assert len(claim.started) == 10
    assert LOOKED_AT < read < 2 * LOOKED_AT


async def test_a_look_at_what_waits_goes_through_no_queue_of_which_the_server_has_not_heard():
    """Of 200,000 runs of 200 jobs each look took ten seconds, until the server had counted: beside a long history for hours."""
    async with counted() as (store, db):
        await db.execute(HISTORY.format(many=MANY, since=0))
        await db.execute("VACUUM ANALYZE taskloop.runs")
        await submitted(store, *(asked(f"job {number % 50}") for number in range(BEGUN)))
        found, read = await read_by(db, history.late(db, microseconds(at(60)), 1, None))
    assert len(found) == 50
    assert read < 2 * BEGUN


@asynccontextmanager
async def counted():
    """A store, and a connection by which the looks into its indexes can be counted."""
    url = emptied().store
    store: Any = open_store(url)
    await store.open()
    await know(store, "a", "b")
    db = await asyncpg.connect(url)
    try:
        yield store, db
    finally:
        await store.close()
        await db.execute("TRUNCATE taskloop.runs")
        await db.close()


async def read_by_a_claim(store: Any, db: Any) -> tuple[Claimed, int]:
    """What a claim gives, and how many entries of indexes it goes through for it."""
    return await read_by(db, claim_runs(db, "w1", NOW, 10, store._known))


async def read_by(db: Any, look: Awaitable[Any]) -> tuple[Any, int]:
    """What a look gives, and how many entries of indexes it goes through for it."""
    async with db.transaction():
        found = await look
        each = "pg_stat_get_xact_tuples_returned(indexrelid)"
        read = await db.fetchval(f"SELECT sum({each}) FROM pg_index WHERE indrelid = 'taskloop.runs'::regclass")
    return found, int(read)


async def through_all(db: Any, query: str, args: tuple[Any, ...]) -> str | None:
    """What of a statement goes through all runs; None: nothing does."""
    if MOST_RECORDS in args:  # of so many at most, which here are nearly all there are
        return None
    if "taskloop.runs" not in query or query.split()[0] not in ("SELECT", "WITH", "UPDATE", "INSERT", "DELETE"):
        return None
    transaction = db.transaction()
    await transaction.start()
    try:
        [[plan]] = await db.fetch(f"EXPLAIN (FORMAT JSON) {query}", *args)
    finally:
        await transaction.rollback()
    wrong = list(walked(json.loads(plan)[0]["Plan"]))
    return f"{wrong}: {query}" if wrong else None


async def kept_plan(db: Any, query: str) -> str | None:
    """What goes through all runs of a plan that is made while there are none, and kept when there are many.

    Only of what is on the way of a run: a page may be slow for the minute until the server has counted.
    """
    if "taskloop.runs" not in query or re.search("UPDATE|INSERT", query) is None:
        return None
    given = len(set(re.findall(r"\$\d+", query)))
    transaction = db.transaction()
    await transaction.start()
    try:
        await db.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await db.execute(f"PREPARE asked AS {query}")
        nothing = f"({', '.join(['NULL'] * given)})" if given else ""
        [[plan]] = await db.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE asked{nothing}")
    finally:
        await transaction.rollback()
        await db.execute("DEALLOCATE asked")
    wrong = list(walked(json.loads(plan)[0]["Plan"]))
    return f"{wrong}: {query}" if wrong else None


def walked(plan: dict[str, Any]):
    """The steps of a plan that read the table, or an index of the history without a condition on it, to the end."""
    if plan["Node Type"] == "Seq Scan" and plan.get("Relation Name") == "runs":
        yield "Seq Scan"
    for one in plan.get("Plans", ()):
        yield from walked(one)


async def live(store: Any) -> None:
    """Every verb of a store once, more or less."""
    await know(store, Terms("a", group="g", places=1, max_running=2, expires=True), "b", Terms("c", held=True))
    await put(store, hourly("s"), hourly("t", "b"), hourly("u", "b"))
    await submitted(store, asked(key="k", group="g"), asked("b"), asked("b", ready_at=at(5)), asked("b"))
    await submitted(store, asked("b"))
    for run in (await claimed(store)).started:
        await store.progress([(run, Progress(1, 2))])
        await store.settle(ended(run, FAILED)._replace(breaker=(3, timedelta(hours=1))))
    trial = firing(hourly("u", "b"))._replace(trial=True)
    await fired(
        store, firing(hourly("s"), max_late="1m", group="g"), trial, firing(hourly("t", "b"), overlap="replace")
    )
    later = hourly("t", "b", next_due=at(3600))
    await fired(store, firing(later, overlap="replace", now=at(3600)), now=at(3600))
    [running, *_] = (await claimed(store, now=at(90))).started
    await store.cancel(running.id, actor=None, reason=None, now=NOW)
    await store.step(running, [Step(name="one")])
    await store.log(
        [(running.changed(token=9), [LogLine(NOW, "info", "said")]), (running, [LogLine(NOW, "info", "said")])]
    )
    await store.wishes("w1")
    await store.due(at(9000), 10)
    await store.enlist(Worker("w1", None, "h", 1, "p", NOW, NOW, jobs=frozenset("ab")))
    await store.bury(Worker("w1", None, "h", 1, "p", NOW, NOW))
    await store.orphans()
    await store.in_hand("w1")
    await store.note([Incident("w1", "clock", NOW, at(1))])
    await store.switch(Switch("paused", "a", NOW, "ann", None))
    await store.late(at(60), 9)
    await store.counts()
    await store.rewind(lambda one, _: one, NOW, back=timedelta(hours=1), boot="b", since=0.0, tick=1.0)
    await store.rewind(lambda one, _: one, NOW, back=None, boot="b", since=2.0, tick=3.0)
    assert await store.settle(ended(running))
    for ask in (store.run, store.reruns, store.steps, store.lines):
        await ask(running.id)
    await store.attempts(running)
    await store.standing(["a", "b"])
    await store.newest(["a", "b"])
    await store.recent([["a", "old"], ["b"]], 20)
    await store.spans(Query(states=[*State], since=NOW, until=at(60)))
    await store.usual(["a", "b"])
    window = Window(NOW, NOW, at(1))
    for asked_about in ({"run": running.id}, {"window": window}, {}):
        meant: dict[str, Any] = {"window": None, "run": None} | asked_about
        question = Question(job="a", names=frozenset("ab"), now=at(9), policy={}, trigger_text="", **meant)
        await store.evidence(["a", "b"], at(9), partial(subject, question), **asked_about)
    for jobs in (["a"], ["a", "b"]):
        for state in State:
            await store.find(Query(jobs, [state]))
        await store.find(Query(jobs, before=5, since=NOW, cause="manual", skipped=True))
        await store.find(Query(jobs))
    for state in set(State) - {State.SUCCEEDED}:  # as nearly every run is: the newest are soon found among all
        await store.find(Query(states=[state]))
    await store.find(Query(states=[State.FAILED, State.RUNNING, State.WAITING], before=9))
    await store.find(Query())
    await store.find(Query(since=NOW, until=at(60), limit=7))
    await store.find(Query(cause="manual"))
    await store.days(["a", "b"], NOW.date(), NOW.date())
    await store.submit([asked("b")], None, Entry(NOW, "ann", "cli", "submit"))
    await store.cancel(running.id, actor="ann", reason=None, now=NOW, entry=Entry(NOW, "ann", "cli", "cancel"))
    await store.audit(actor="ann", jobs=["a", "b"])
    await store.prune(timedelta(days=10), now=NOW)
    await store.rename({"b": "a"}, NOW, 1)
    assert await store.run(RunId(1)) is not None or MANY
