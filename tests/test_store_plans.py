"""How SQLite goes about each statement of a store: never through all runs, however many. Told by SQLite itself."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stores import NOW, Stores, asked, at, claimed, ended, fired, firing, hourly, put, submitted

import taskloop
from taskloop import history_sqlite as history
from taskloop.audit import Entry
from taskloop.cli import glance
from taskloop.clock import microseconds
from taskloop.moments import Question, subject
from taskloop.runs import Failure, Progress, Raised, RunId, State
from taskloop.steps import LogLine, Step
from taskloop.store import Store, Switch
from taskloop.store_data import Incident, Query, Subject, Terms, Window, Worker

pytestmark = pytest.mark.anyio

SMALL = {"waiting", "queued", "next", "running", "expiring", "active"}
"""Indexes of what waits or runs: few rows, which may be gone through from end to end."""
AT_AN_END = re.compile(
    r"SELECT (coalesce\()?max\(id\)(, 0\))? FROM taskloop_runs$|FROM taskloop_runs ORDER BY id LIMIT 1$"
)
"""Looks at one end of the table, which need no index."""


class Heard:
    """What the connections of a store carry out, and how."""

    def __init__(self) -> None:
        self.statements: dict[str, None] = {}

    def __call__(self, statement: str) -> None:
        self.statements[statement] = None

    def plans(self, db: sqlite3.Connection) -> dict[str, list[str]]:
        """Each statement that touches runs, and the steps it takes."""
        found = {}
        for text in self.statements:
            if "taskloop_runs" in text and text.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT"):
                found[text] = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + text)]
        return found

    def through_all_runs(self, db: sqlite3.Connection) -> list[str]:
        """Statements that go through the table, or through a large index of it, from one end towards the other."""
        names = {
            alias for text in self.statements for alias in re.findall(r"taskloop_runs(?: AS)? ([a-z])\b", text)
        } | {"taskloop_runs"}
        wrong = []
        for text, steps in self.plans(db).items():
            for step in steps:
                scan = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX taskloop_runs_(\w+))?$", step)
                if scan and scan[1] in names and scan[2] not in SMALL and not AT_AN_END.search(text):
                    wrong.append(f"{step}: {text}")
        return wrong


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[tuple[Store, Heard, Path]]:
    async with Stores("file", tmp_path) as made:
        store: Any = await made.make(
            Terms("a", group="g", places=1, max_running=2, expires=True), Terms("b"), Terms("c", held=True)
        )
        heard = Heard()
        await store._run(store._writer, sqlite3.Connection.set_trace_callback, heard)
        await store._run(store._reader, sqlite3.Connection.set_trace_callback, heard)
        yield store, heard, made.path


FAILED = Raised(Failure("E", "m"), None)


async def test_entries_of_the_audit_are_found_by_an_index_and_switches_of_a_job_too(heard):
    store, told, path = heard
    await store.audit(actor="ann")
    await store.audit(jobs=["a", "b"], before=9)
    await store.switch(Switch("paused", "a", NOW, "ann"), Entry(NOW, "ann", "cli", "pause"))
    await store.switches()
    await store.prune(timedelta(0), now=at(10**6))
    with closing(sqlite3.connect(path)) as db:
        steps = [
            row[3]
            for text in told.statements
            if re.search("FROM taskloop_(audit|switches)", text)
            for row in db.execute("EXPLAIN QUERY PLAN " + text.replace("temp.taskloop_known", "taskloop_jobs"))
        ]
    scans = [re.match(r"SCAN (taskloop_(?:audit|switches))(?: USING.* INDEX (\w+))?", one) for one in steps]
    # The open ones, the pauses that are over, for two questions, and, once a round of pruning, all of them by the smallest way.
    assert [one.groups() for one in scans if one is not None] == [
        ("taskloop_switches", f"taskloop_switches_{index}") for index in ("open", "paused", "paused", "job")
    ]


def instructions(db: sqlite3.Connection) -> int:
    """How many of SQLite's own a look at what waits takes."""
    counted: list[int] = []
    newest = {"jobs": None, "skipped": False, "between": {}, "conditions": {}, "limit": 50}
    db.set_progress_handler(lambda: counted.append(1), 1)
    try:
        assert len(history.late(db, "id", microseconds(at(60)), 3)) == 6
        for states in (["waiting"], ["running", "waiting"], [*State]):
            assert len(history.find(db, "id", states=states, **newest)) == 50
    finally:
        db.set_progress_handler(None, 0)
    return len(counted)


async def test_a_look_at_what_waits_costs_the_same_however_much_waits(heard):
    """With 300,000 runs that waited each look at the first page went through all of them, twice, for half a second."""
    store, _, _ = heard
    taken = []
    for more in (50, 2_000):
        await submitted(store, *(asked(job, priority=number % 2) for job in "ab" for number in range(more)))
        taken.append(await store._run(store._reader, instructions))
    assert taken[1] < 1.2 * taken[0]


async def test_no_statement_goes_through_all_runs(heard):
    store, told, path = heard
    # The way of a run, asked for and fired, to each of its ends.
    await put(store, hourly("s"), hourly("t", "b"), hourly("u", "b"))
    await submitted(store, asked(key="k", group="g"), asked("b"), asked("b", ready_at=at(5)), asked("b"))
    for run in (await claimed(store)).started:
        await store.progress([(run, Progress(1, 2))])
        await store.settle(ended(run, FAILED)._replace(breaker=(3, timedelta(hours=1))))
    trial = firing(hourly("u", "b"))._replace(trial=True)
    late = firing(hourly("s"), max_late="1m", group="g")
    replacing = firing(hourly("t", "b"), overlap="replace")
    await fired(store, late, trial, replacing)
    await fired(store, firing(hourly("t", "b", next_due=at(3600)), overlap="replace", now=at(3600)), now=at(3600))
    [running, *_] = (await claimed(store, now=at(90))).started
    await store.cancel(running.id, actor=None, reason=None, now=NOW)
    await store.cancel(RunId(3), actor=None, reason=None, now=NOW)
    await store.step(running, [Step(name="one")])
    await store.log(
        [(running.changed(token=9), [LogLine(NOW, "info", "said")]), (running, [LogLine(NOW, "info", "said")])]
    )
    await store.wishes("w1")
    await store.due(at(9000), 10)
    # The same by twenties: values that all rows share are given once.
    twenty = [hourly(f"x{number}", "b") for number in range(20)]
    await put(store, *twenty)
    await fired(store, *map(firing, twenty))
    await submitted(store, *(asked("b") for _ in range(20)))
    started = (await claimed(store)).started
    await store.progress([(run, Progress(1, 2)) for run in started])
    assert None not in await asyncio.gather(*(store.settle(ended(run)) for run in started[20:]))
    assert None not in await asyncio.gather(*(store.settle(ended(run, FAILED)) for run in started[:20]))
    # Housekeeping.
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
    assert await store.aliases() == {}
    # Questions.
    await store.run(running.id)
    await store.attempts(running)
    await store.reruns(running.id)
    await store.steps(running.id)
    await store.lines(running.id)
    await store.standing(["a", "b"])
    await store.newest(["a", "b"])
    await store.recent([["a", "old"], ["b"]], 20)
    await store.spans(Query(states=[*State], since=NOW, until=at(60)))
    await store.usual(["a", "b"])
    await store.days(["a", "b"], NOW.date(), NOW.date())
    window = Window(NOW, NOW, at(1))
    for asked_about in ({"run": RunId(1)}, {"window": window}, {}):  # the run is one of a group
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
        await store.find(Query([f"j{number}" for number in range(100)], [state]))
    await store.find(Query(states=[State.FAILED, State.RUNNING, State.WAITING], before=9))
    for jobs in (None, ["a"]):
        await store.find(Query(jobs, since=NOW, until=at(60)))
        await store.find(Query(jobs, list(State), since=NOW))
        await store.find(Query(jobs, cause="api"))
    assert (await store.rename({"b": "a"}, NOW, 1)).more
    assert (await store.prune(timedelta(0), now=at(10**6))).deleted > 0
    wrong = await asyncio.to_thread(judged, path, told)
    assert wrong == []
    assert len(told.statements) > 80


async def test_a_job_with_very_many_schedules_is_looked_at_without_going_through_them(heard):
    """Each page of a job with a million took seven seconds, and what else was read meanwhile waited for it."""
    store, _, _ = heard
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    async def filled(number: int) -> None:
        await store._do(
            sqlite3.Connection.execute,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT OR IGNORE INTO taskloop_schedules "
            "(id, job, trigger, next_due, seen_at, origin) SELECT 'b-' || i, 'b', 'every 1h', ? + i, 1, 'stored' FROM n",
            (number, 4 * 10**15),
        )  # fmt: skip

    async def taken(look: Any) -> int:
        steps[0] = 0
        await look
        return 100 * steps[0]

    async def look() -> list[int]:
        window = Window(NOW, NOW, NOW + timedelta(hours=1))
        none = Subject(None, NOW, NOW, None)
        return [
            await taken(store.next_dues(["a", "b"])),
            await taken(store.coming(2_000, jobs=["b"])),
            await taken(store.evidence(["b"], NOW, lambda _: none)),
            await taken(store.evidence(["b"], NOW, lambda _: none, window=window)),
        ]

    await store._run(store._reader, sqlite3.Connection.set_progress_handler, step, 100)
    await filled(20_000)
    fewer = await look()
    await filled(100_000)
    more = await look()
    assert fewer[0] > 10_000  # it is counted at all
    assert [many < few * 1.2 + 1_000 for few, many in zip(fewer[:2], more[:2], strict=True)] == [True, True]
    counted = 6 * 80_000  # how many schedules are left out is told
    assert [many < few * 1.2 + counted for few, many in zip(fewer[2:], more[2:], strict=True)] == [True, True]


async def test_a_claim_goes_through_no_queue_of_what_may_not_start(heard):
    """Of a job at its limit a third of a million waited, and sixteen runs a second were begun."""
    store, _, _ = heard
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    async def taken(queued: int) -> int:
        await store.submit([asked(job) for job in "ac" for _ in range(queued)])
        await submitted(store, asked("b"))
        steps[0] = 0
        started = (await claimed(store, slots=50)).started
        assert [run.job for run in started][-1] == "b"
        return 100 * steps[0]

    await store._run(store._writer, sqlite3.Connection.set_progress_handler, step, 100)
    few, many = await taken(3_000), await taken(20_000)
    assert 1_000 < many < few * 1.5


def judged(path: Path, told: Heard) -> list[str]:
    """What the statements told of, and those of `taskloop list`, do wrong."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.set_trace_callback(told)
        assert glance._read(db, 0) is not None
        db.set_trace_callback(None)
        db.execute("ROLLBACK")
        # Every writing connection has this table.
        db.execute("CREATE TEMP TABLE taskloop_known (job TEXT PRIMARY KEY, held INTEGER, gated INTEGER) WITHOUT ROWID")
        return told.through_all_runs(db)


def test_no_statement_numbers_the_values_it_is_given_in_order():
    """Python 3.12 warns of that and 3.14 refuses it: `?` for each in its turn, or `:name` with a mapping."""
    package = Path(taskloop.__file__).parent
    texts = {path.name: path.read_text("utf-8") for path in package.rglob("*sqlite*.py")}
    assert len(texts) > 10
    assert {name: found for name, text in texts.items() if (found := re.findall(r"\?\d", text))} == {}
