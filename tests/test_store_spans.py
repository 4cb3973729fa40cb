"""Runs of a span of time: found by halving the ids, which grow as time does, and never by less than what was asked for."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from datetime import timedelta

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import emptied, server
from stores import asked, at, ids, store, stores, submitted

from taskloop.copying import copied
from taskloop.history_postgres import first_since as first_since_on_a_server
from taskloop.history_sqlite import first_since
from taskloop.rows import RUN_COLUMNS, write_run
from taskloop.runs import ACTIVE, Cause, Run, RunId, State
from taskloop.store import open_store
from taskloop.store_data import Query

__all__ = ["store", "stores"]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5)), max_size=60), st.integers(-2, 200))
def test_the_first_run_since_an_instant_is_found_whatever_was_pruned(steps, instant):
    rows, number, moment = [], 0, 0
    for gap, later in steps:
        number, moment = number + gap, moment + later
        rows.append((number, moment))
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE taskloop_runs (id INTEGER PRIMARY KEY, created_at INTEGER)")
        db.executemany("INSERT INTO taskloop_runs VALUES (?, ?)", rows)
        found = first_since(db, instant)
    first = next((one for one, made in rows if made >= instant), number + 1)
    assert all(one >= found for one, made in rows if made >= instant) and found <= first
    assert all(one < found for one, made in rows if made < instant)


@pytest.mark.anyio
async def test_a_server_finds_the_first_run_since_an_instant_as_the_file_does():
    store = open_store(emptied().store)
    await store.open()
    connection, chance = await asyncpg.connect(server().store), random.Random(7)
    try:
        assert await first_since_on_a_server(connection, 5) == 0, "of no run at all"
        number, moment, rows = 0, 0, []
        for _ in range(60):
            number, moment = number + chance.randint(1, 50), moment + chance.randint(0, 5)
            rows.append((number, moment))
        await connection.executemany(
            "INSERT INTO taskloop.runs (id, job, state, cause, attempt, attempts, due_at, ready_at, created_at, token, priority, "
            "count) VALUES ($1, 'a', 'failed', 'manual', 1, 1, 0, 0, $2, 0, 0, 1)",
            rows,
        )
        for instant in range(-1, moment + 3):
            found = await first_since_on_a_server(connection, instant)
            assert [one for one, made in rows if made >= instant] == [one for one, _ in rows if one >= found]
    finally:
        await connection.close()
        await store.close()


@pytest.mark.anyio
async def test_a_span_has_the_runs_that_were_put_on_record_in_it_though_a_clock_was_wrong_for_a_while(store):
    chance = random.Random(7)
    moments = [10 * n + (240 if 80 <= n < 140 else -200 if 200 <= n < 230 else 0) for n in range(300)]
    await submitted(store, *(asked(chance.choice("ab"), created_at=at(one)) for one in moments))
    whole = [await store.find(Query(limit=1000)), await store.find(Query(["a"], limit=1000))]
    for _ in range(25):
        since, until = at(chance.uniform(-100, 3100)), at(chance.uniform(-100, 3100))
        for every, jobs in zip(whole, (None, ["a"]), strict=True):
            for states in (None, [State.WAITING, State.FAILED]):
                found = await store.find(Query(jobs, states, since=since, until=until, limit=1000))
                assert ids(found) == [one.id for one in every if since <= one.created_at < until]
                newer = await store.find(Query(jobs, states, since=since, before=200, limit=7))
                assert ids(newer) == [one.id for one in every if since <= one.created_at and one.id < 200][:7]


def a_past(chance, number):
    """Runs of a few jobs in all states, with holes among their ids and a clock that was set a little back now and then."""
    runs, made = [], at(0)
    for one in range(1, number):
        made += timedelta(seconds=chance.choice((0, 0, 1, 30, 200, -10)))
        if chance.random() < 0.25:
            continue
        state, cause = chance.choice([*State]), chance.choice([*Cause])
        ended = None if state in ACTIVE else made
        run = Run(id=RunId(one), job=chance.choice("abcz"), state=state, cause=cause, due_at=made, ready_at=made,
                  created_at=made, ended_at=ended)  # fmt: skip
        runs.append(run)
    return runs


def asked_at_random(chance, last):
    def instant():
        return chance.choice((None, at(chance.uniform(0, last))))

    return Query(
        jobs=chance.choice((None, ["a"], ["b", "z"], ["never"], [])),
        states=chance.choice((None, chance.sample([*State], chance.randint(1, len(State))))),
        cause=chance.choice((None, None, *Cause)),
        since=instant(),
        until=instant(),
        limit=chance.choice((3, 7, 100)),
        skipped=chance.random() < 0.2,
    )


def fits(run, query):
    states = query.states or [one for one in State if query.skipped or one is not State.SKIPPED]
    return (
        (query.jobs is None or run.job in query.jobs)
        and run.state in states
        and query.cause in (None, run.cause)
        and (query.since is None or run.created_at >= query.since)
        and (query.until is None or run.created_at < query.until)
        and (query.before is None or run.id < query.before)
    )


@pytest.mark.anyio
@pytest.mark.parametrize("number", [2, 40, 250])
async def test_page_by_page_every_run_that_fits_is_found_once_as_by_looking_at_each(tmp_path, number):
    """On a file and, copied there, on a server."""
    chance = random.Random(number)
    runs = a_past(chance, number)
    file, held = open_store(f"sqlite:///{tmp_path}/runs.db"), open_store(emptied().store)
    await file.open()
    with closing(sqlite3.connect(tmp_path / "runs.db")) as db, db:
        into = f"INSERT INTO taskloop_runs ({', '.join(RUN_COLUMNS)}) VALUES ({', '.join('?' * len(RUN_COLUMNS))})"
        db.executemany(into, map(write_run, runs))
    await held.open()
    await copied(file, held)
    last = max(((run.created_at - at(0)).total_seconds() for run in runs), default=1)
    for one in (file, held):
        for _ in range(25):
            query, page = asked_at_random(chance, last), [None]
            while page:
                wanted = sorted((run.id for run in runs if fits(run, query)), reverse=True)[: query.limit]
                page = await one.find(query)
                assert ids(page) == wanted == [span.id for span in await one.spans(query)], query
                query = query._replace(before=wanted[-1] if wanted else None)
        await one.close()
