"""Every schema that was ever released: a file of each is opened by this version, and loses nothing on the way."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from taskloop import Options, TaskScheduler, file_sqlite
from taskloop.file_sqlite import newest
from taskloop.store_data import Query
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio

MUSEUM = Path(__file__).parent / "museum"
"""`schema_NNN.db`, written by the version that brought that schema, with runs in every state, switches, schedules."""


@pytest.fixture(params=sorted(MUSEUM.glob("*.db")), ids=lambda path: path.stem)
def old(request, tmp_path):
    return shutil.copy(request.param, tmp_path / "old.db")


def test_there_is_a_file_of_every_schema_before_this_one():
    assert [int(one.stem[-3:]) for one in sorted(MUSEUM.glob("*.db"))] == list(range(1, newest()))


async def test_an_old_file_opens_with_all_its_runs_schedules_and_switches(old):
    store = SqliteStore(old)
    await store.open()
    try:
        runs = {run.id: run for run in await store.find(Query(skipped=True, limit=1000))}
        states = [runs[number].state.value for number in sorted(runs)]
        assert states == ["succeeded"] * 4 + ["failed", "cancelled", "running", "waiting", "waiting", "succeeded"]
        assert runs[4].key == "four" and runs[5].error.message == "bad luck" and runs[8].progress.message == "half way"
        assert len(await store.attempts(runs[5])) == 2
        assert {one.id: one.job for one in await store.schedules()} == {
            "hourly": "hourly", "off": "off", "daily-add": "add"
        }  # fmt: skip
        assert [(one.kind, one.job, one.actor) for one in await store.switches()] == [
            ("disabled", "off", "tom"), ("paused", "hourly", "eve"), ("paused", "slow", None)
        ]  # fmt: skip
        assert [(one.host, one.stopped_at, one.jobs) for one in await store.workers()] == [("elsewhere", None, None)]
        assert await store.check() == []
    finally:
        await store.close()


async def test_steps_and_logs_of_an_old_file_are_there(tmp_path):
    store = SqliteStore(shutil.copy(MUSEUM / "schema_003.db", tmp_path / "old.db"))
    await store.open()
    try:
        assert [(one.name, one.state, one.result) for one in await store.steps(7)] == [
            ("load", "succeeded", {"rows": 3}), ("send", "running", None)
        ]  # fmt: skip
        assert [(one.text, one.step) for one in (await store.lines(7))[0]] == [("three rows loaded", "load")]
        assert await store.tokens() == []
    finally:
        await store.close()


async def test_a_scheduler_goes_on_with_an_old_file_and_settles_what_was_left_there(old, virtual_time):
    scheduler = TaskScheduler(options=Options())

    @scheduler.job()
    async def slow() -> None: ...

    @scheduler.every("1h")
    async def hourly() -> str:
        return "ticked"

    async with virtual_time(scheduler, at="2027-01-01T00:00Z", store=f"sqlite:///{old}") as time:
        assert (await scheduler.run(7)).state == "running"  # its worker was of another machine: nobody knows yet
        await time.advance("20s")
        assert (await scheduler.run(7)).reason == "worker_died"
        last = (await time.runs("hourly"))[-1]
        assert (last.state, last.cause, last.result) == ("succeeded", "catch_up", "ticked")


async def test_a_scheduler_starts_on_an_old_file_when_another_program_lets_go_of_it(old, monkeypatch, lines):
    monkeypatch.setattr(file_sqlite, "BUSY_SECONDS", 0.05)
    scheduler = TaskScheduler(old, options=Options())
    with closing(sqlite3.connect(old, isolation_level=None)) as another:
        another.execute("PRAGMA journal_mode = WAL")
        another.execute("BEGIN IMMEDIATE")  # as one that brings it up to date, and takes its time
        starting = asyncio.create_task(scheduler.start())
        async with asyncio.timeout(10):
            while "store.lost" not in lines:
                assert not starting.done(), starting.exception()
                await asyncio.sleep(0.02)
        another.execute("COMMIT")
    await starting
    assert scheduler.is_running and lines == ["store.lost", "store.back", "store.upgraded"]
    await scheduler.stop()
