"""Mishaps between two moments: a caller that is cancelled, a file that is locked, a clock that steps, a thread that
cannot be had. Each left something behind once. Where a file is locked or a thread is missing, the time is real, for another
program's lock knows no virtual one.
"""

from __future__ import annotations

import asyncio

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from loguru import logger
from stores import database
from stories import START, fates, lasting, nothing

from taskloop import Cron, Every, Options, Retry, RunContext, State, TaskScheduler, file_sqlite
from taskloop.context import AttemptCancelled
from taskloop.errors import Conflict, StoreUnavailable
from taskloop.executors import InThread
from taskloop.runs import Run
from taskloop.schedules import plan
from taskloop.store_data import Terms
from taskloop.store_sqlite import SqliteStore
from taskloop.tasks import refused
from taskloop.testing import run_context

pytestmark = pytest.mark.anyio

BRIEF = Options(kill_grace=timedelta(milliseconds=300))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the file's write lock."""
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        db.execute("ROLLBACK")
        db.close()


def work() -> None:
    """For a process."""


async def until(condition, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


# -- switches and jobs that change while the store is away


async def test_a_pause_whose_caller_is_cancelled_is_carried_out_and_ends(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("30s"), name="tick")
    async with virtual_time(scheduler) as time:
        await time.advance("1s")
        asking = asyncio.ensure_future(scheduler.pause("tick", until="+1m"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        await time.advance("10m")
        assert len(await time.runs("tick")) >= 18, "the pause is over"
        assert scheduler._switches.pause("tick", time.now) is None


async def test_a_job_that_is_removed_or_added_while_the_file_is_locked_stops_no_other(tmp_path):
    ran = []
    scheduler = TaskScheduler(tmp_path / "a.db", options=BRIEF)

    async def tick():
        ran.append("tick")

    async def new():
        ran.append("new")

    scheduler.add_job(tick, Every("200ms"))
    scheduler.add_job(nothing, Every("200ms"), name="old")
    async with scheduler:
        await until(lambda: ran)
        with locked(tmp_path / "a.db"):
            scheduler.remove_job("old")
            scheduler.add_job(new, Every("200ms"))
            await asyncio.sleep(6)
        ran.clear()
        await until(lambda: ran.count("tick") > 2 and ran.count("new") > 2)


async def test_runs_that_wait_are_told_of_again_after_a_pause_that_ended_by_itself(virtual_time):
    scheduler, told = TaskScheduler(options=Options(max_running=1)), []

    async def long():
        await asyncio.sleep(3600)

    scheduler.add_job(long)
    scheduler.add_job(nothing, name="late")
    scheduler.on("overdue")(lambda event: told.append(event.job))
    async with virtual_time(scheduler) as time:
        await scheduler.pause(until="+1m")
        await time.advance("10m")
        await scheduler.submit("long")
        await time.advance("1s")
        await scheduler.submit("late")
        await time.advance("30m")
    assert told == ["late"]


# -- slots


async def test_submits_that_a_hanging_disk_refuses_keep_no_slot(tmp_path):
    store = SqliteStore(tmp_path / "a.db", call_seconds=0.3)
    scheduler = TaskScheduler(store, options=Options(max_running=4, kill_grace=timedelta(milliseconds=300)))

    @scheduler.job()
    async def slow():
        await asyncio.sleep(0.3)

    job = scheduler.add_job(nothing, name="job")
    async with scheduler:
        await slow.submit()
        with locked(tmp_path / "a.db"):
            await asyncio.sleep(1)
            for _ in range(8):
                with pytest.raises(StoreUnavailable):
                    await job.submit()
        await until(lambda: not store._writing._hangs)
        for _ in range(5):
            handle = await job.submit()
            assert (await handle.wait(timeout=20)).state is State.SUCCEEDED
    assert scheduler.in_flight == 0


async def test_a_job_that_cancels_itself_in_its_last_step_is_told_and_gives_back_its_slot(scheduler, virtual_time):
    told = []
    scheduler.on("succeeded", "cancelled")(lambda event: told.append(event.name))

    @scheduler.job()
    async def job(run: RunContext):
        await asyncio.sleep(1)
        await scheduler.cancel(run.id)

    async with virtual_time(scheduler) as time:
        handle = await job.submit()
        await time.advance("2s")
        assert (await time.until(handle.wait(timeout="5s"))).final
        assert len(told) == 1
        assert scheduler._slots.attempts == {}


@pytest.mark.parametrize("times", [1, 50], ids=["once", "on and on"])
@pytest.mark.parametrize("policy", [{}, {"pause_after": 3}], ids=["plain", "with a breaker"])
async def test_who_cancels_the_task_of_a_job_that_has_returned_keeps_nobody_waiting_for_its_end(
    scheduler, virtual_time, policy, times
):
    told, tasks = [], []

    @scheduler.on("succeeded")
    async def heard(event):
        told.append(event.name)
        tasks[0].cancel()

    def cancel(task, left):
        task.cancel()
        if left > 1:
            asyncio.get_running_loop().call_soon(cancel, task, left - 1)

    @scheduler.job(**policy)
    async def job():
        tasks.append(asyncio.current_task())
        asyncio.get_running_loop().call_soon(cancel, tasks[0], times)
        return "done"

    async with virtual_time(scheduler) as time:
        run = await time.until((await job.submit()).wait(timeout="5s"))
        assert (run.state, run.result, scheduler._slots.attempts) == (State.SUCCEEDED, "done", {})
        await time.advance("1s")
        assert told == ["succeeded"]


async def test_an_end_that_waits_for_the_store_is_written_whoever_cancels_its_task_meanwhile(virtual_time, tmp_path):
    class Away(SqliteStore):
        is_away = False

        async def settle(self, settling):
            if self.is_away:
                raise StoreUnavailable("the disk is away for a while")
            return await super().settle(settling)

    store, scheduler, tasks = Away(tmp_path / "a.db"), TaskScheduler(options=Options()), []

    @scheduler.every("1m")
    async def job():
        tasks.append(asyncio.current_task())
        store.is_away = len(tasks) == 1

    async with virtual_time(scheduler, store=store) as time:
        await time.advance("1s")
        assert tasks[0].cancel()
        await time.advance("20s")
        store.is_away = False
        await time.advance("2m")
        assert await fates(time) == ["00:00 succeeded", "00:01 succeeded", "00:02 succeeded"]


async def test_an_end_for_which_sqlite_had_no_memory_is_written_when_it_has_some(virtual_time, tmp_path):
    """It is told so by an error that is none of SQLite's: the run was in hand for ever, and its schedule fired no more."""
    lacking = [True] * 3

    def lack():
        if lacking:
            lacking.pop()
            raise MemoryError

    def prepared(db):
        db.create_function("lack", 0, lack)
        db.execute("CREATE TEMP TRIGGER lacking BEFORE UPDATE OF state ON taskloop_runs BEGIN SELECT lack(); END")

    store, scheduler = SqliteStore(tmp_path / "a.db"), TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1m"), name="job")
    told = telling(scheduler)
    async with virtual_time(scheduler, store=store) as time:
        await store._do(prepared)
        await time.advance("150s")
        assert await fates(time) == ["00:00 succeeded", "00:01 succeeded", "00:02 succeeded"]
    assert not lacking and told == ["store_lost", "store_back"]


async def test_an_end_is_no_other_for_what_the_store_refuses_to_somebody_else(virtual_time, tmp_path):
    class Mistaken(SqliteStore):
        times = 0

        async def settle(self, settling):
            self.times += 1
            if self.times == 1:
                raise Conflict("what was asked for beside it is refused")
            return await super().settle(settling)

    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler, store=Mistaken(tmp_path / "a.db")) as time:
        assert (await time.until((await scheduler.submit("job")).wait(timeout="5s"))).state is State.SUCCEEDED


async def test_an_end_at_which_something_of_ours_goes_wrong_is_on_record_all_the_same(virtual_time, tmp_path):
    """The run was running for as long as its worker lived, whatever it had come to."""

    class Broken(SqliteStore):
        times = 0

        def settle(self, settling):
            self.times += 1
            if self.times == 1:
                return refused(AttributeError("a fault of ours"))
            return super().settle(settling)

    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler, store=Broken(tmp_path / "a.db")) as time:
        run = await time.until((await scheduler.submit("job")).wait(timeout="5s"))
        assert (run.state, run.error.message) == (State.FAILED, "a fault of ours")
        assert (await time.until((await scheduler.submit("job")).wait(timeout="5s"))).state is State.SUCCEEDED


async def test_an_end_that_comes_as_the_kill_grace_is_over_is_written_once(scheduler, virtual_time):
    @scheduler.job()
    async def job():
        enough = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(15, enough.set_result, None)
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            await enough

    async with virtual_time(scheduler) as time:
        handle = await job.submit()
        await time.advance("10s")
        await scheduler.cancel(handle.id)
        assert (await time.until(handle.wait())).state is State.SUCCEEDED
        await time.advance("1m")
        assert await scheduler.incidents() == []


async def test_nothing_is_begun_that_the_store_hands_out_after_a_stop(tmp_path):
    scheduler, begun = TaskScheduler(tmp_path / "a.db", options=BRIEF), []

    @scheduler.job(retry=3)
    async def job():
        begun.append(scheduler.is_running)

    await scheduler.start()
    await asyncio.sleep(0.2)
    with locked(tmp_path / "a.db"):
        asking = asyncio.ensure_future(job.submit())
        await asyncio.sleep(0.1)
        await scheduler.stop(grace=0)
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.5)
    assert begun == []


async def test_a_stop_is_bounded_with_a_locked_file_a_deaf_job_and_listeners_that_hang(tmp_path):
    scheduler = TaskScheduler(tmp_path / "a.db", options=BRIEF)

    @scheduler.job()
    async def deaf():
        while True:
            try:
                await asyncio.sleep(4)
                return
            except asyncio.CancelledError:
                pass

    scheduler.add_job(nothing, name="job")

    @scheduler.on("started", "interrupted", "store_lost")
    async def hang(event):
        await asyncio.sleep(20)

    await scheduler.start()
    await deaf.submit()
    await asyncio.sleep(0.3)
    with locked(tmp_path / "a.db"):
        asking = asyncio.ensure_future(scheduler.submit("job"))
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await scheduler.stop(grace=0)
        assert asyncio.get_running_loop().time() - began < 0.3 + 2
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.5)


async def test_who_waits_for_a_run_hears_of_it_though_the_store_was_away_at_the_stop(tmp_path):
    scheduler = TaskScheduler(tmp_path / "a.db", options=BRIEF)

    @scheduler.job()
    async def job():
        await asyncio.sleep(0.3)

    await scheduler.start()
    handle = await job.submit()
    waiting = asyncio.ensure_future(handle.wait())
    await asyncio.sleep(0.1)
    with locked(tmp_path / "a.db"):
        await asyncio.sleep(0.5)
        await scheduler.stop(grace=0)
    async with scheduler:
        assert (await asyncio.wait_for(waiting, 5)).final


def test_a_host_that_closes_its_loop_while_an_end_waits_for_the_store_can_start_again(tmp_path):
    scheduler, path = TaskScheduler(tmp_path / "a.db", options=BRIEF), tmp_path / "a.db"

    @scheduler.job()
    async def job():
        await asyncio.sleep(0.1)

    async def first():
        await scheduler.start()
        await asyncio.sleep(0.2)
        await job.submit()
        path.rename(tmp_path / "away")
        await asyncio.sleep(0.6)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(first())
    loop.close()
    (tmp_path / "away").rename(path)

    async def second():
        async with scheduler:
            return scheduler.is_running

    assert asyncio.run(second())


# -- cancels


async def test_a_cancel_from_elsewhere_that_comes_as_an_attempt_fails_is_not_forgotten(tmp_path):
    here, there = TaskScheduler(tmp_path / "a.db", options=BRIEF), TaskScheduler(tmp_path / "a.db", options=BRIEF)
    calls = []

    @here.job(retry=Retry(50, first="10ms", factor=1))
    async def job():
        calls.append(1)
        await asyncio.sleep(0.02)
        raise ValueError("again")

    async with here:
        handle = await job.submit()
        await until(lambda: calls)
        await there.cancel(handle.id, actor="ann")
        assert (await handle.wait(timeout=20)).state is State.CANCELLED
        assert len(calls) < 45
    await there.close()


# -- clocks


async def test_what_waits_is_hastened_when_the_clock_is_set_back(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))

    async def long():
        await asyncio.sleep(60)

    async def flaky(run: RunContext):
        if run.attempt == 1:
            raise ValueError

    scheduler.add_job(long)
    scheduler.add_job(flaky, retry=Retry(2, first="5m"))
    scheduler.add_job(nothing, name="short")
    async with virtual_time(scheduler) as time:
        flaked = await scheduler.submit("flaky")
        await time.advance("10s")
        await scheduler.submit("long")
        await time.advance("5s")
        short, later = await scheduler.submit("short"), await scheduler.submit("short", at="+1h")
        time.step("-1d")
        await time.advance("10m")
        assert [(await scheduler.run(one.id)).state for one in (flaked, short)] == [State.SUCCEEDED, State.SUCCEEDED]
        kept = await scheduler.run(later.id)
        assert (kept.state, kept.ready_at) == (State.WAITING, later.run.ready_at), (
            "an instant of the wall clock stays one"
        )


# -- workers of other programs


async def test_what_was_missed_while_only_another_program_s_worker_lived_was_missed(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/a.db"
    ours, theirs = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    ours.add_job(nothing, Cron("* * * * *"), name="minutely", missed="skip")
    theirs.add_job(nothing, name="elsewhere")
    async with virtual_time(ours, at="2026-01-01T00:30:30Z", store=address) as time:
        await time.join(theirs, address)
        await time.advance("1m")
        await time.until(ours.stop())
        await time.advance("3m")
        await time.start()
        await time.advance("10s")
        skipped = await time.runs("minutely", state=["skipped"])
        assert [(run.reason, run.count) for run in skipped] == [("missed", 3)]
        assert skipped[0].data["down_seconds"] == 180.0
        assert len(await time.runs("minutely")) == 1


async def test_a_run_whose_call_cannot_be_prepared_has_failed_and_keeps_no_slot(virtual_time, monkeypatch):
    """It is on record as running by then, and was for as long as its worker lived."""
    scheduler, told = TaskScheduler(options=Options(max_running=1)), []
    scheduler.add_job(work, name="job", executor="process", group="one")
    scheduler.add_job(nothing, name="other", group="one")
    scheduler.feed.subscribe(lambda event: told.append(event.run.id), "failed")
    async with virtual_time(scheduler) as time:
        monkeypatch.setitem(sys.modules, "taskloop.processing", None)
        first, second = await scheduler.submit("job"), await scheduler.submit("other")
        run = await time.until(first.wait("1m"))
        assert (run.state, run.error.type, time.now) == (State.FAILED, "ModuleNotFoundError", START)
        assert told == [run.id]
        assert (await time.until(second.wait("1m"))).state is State.SUCCEEDED
        assert time.now == START


async def test_no_line_is_lost_that_cannot_be_written_just_as_its_run_ends(virtual_time, tmp_path):
    class Away(SqliteStore):
        times = 0

        async def log(self, reports):
            self.times += 1
            if self.times == 1:
                begun.set()
                await asyncio.sleep(1)
                raise StoreUnavailable("the disk is away for a moment")
            await super().log(reports)

    scheduler, begun = TaskScheduler(options=Options()), asyncio.Event()

    @scheduler.job()
    async def job(run: RunContext) -> None:
        run.log("one")
        await begun.wait()
        run.log("two")

    async with virtual_time(scheduler, store=Away(tmp_path / "a.db")) as time:
        run = await time.until((await job.submit()).wait())
        assert [line.text for line in (await scheduler.log(run.id)).lines] == ["one", "two"]


async def test_what_a_run_reported_once_is_written_when_the_store_is_back(virtual_time, tmp_path):
    store, scheduler = Weak(tmp_path / "a.db"), TaskScheduler(options=Options())

    @scheduler.job()
    async def job(run: RunContext) -> None:
        run.progress(50)
        await asyncio.sleep(3600)

    async with virtual_time(scheduler, store=store) as time:
        store.name = "progress"
        handle = await job.submit()
        await time.advance("1m")
        assert store.name == "" and (await scheduler.run(handle.id)).progress.done == 50


async def test_a_schedule_for_which_there_was_no_memory_for_a_moment_goes_on(virtual_time, monkeypatch):
    """It was stopped for good, also for every later life of its program."""
    scheduler, seen = TaskScheduler(options=Options(max_running=1)), []

    def without_memory(*args, **more):
        seen.append(1)
        if len(seen) in (2, 3):
            raise MemoryError
        return plan(*args, **more)

    monkeypatch.setattr("taskloop.firing.plan", without_memory)
    for name in ("one", "other"):
        scheduler.add_job(nothing, Every("1m"), name=name)
    async with virtual_time(scheduler) as time:
        await time.advance("3m")
        assert [len(await time.runs(name)) for name in ("one", "other")] == [4, 4]
        assert scheduler._slots.free == 1


async def test_a_job_that_is_added_while_a_scheduler_starts_fires_and_is_begun_when_asked_for(virtual_time, tmp_path):
    """Neither happened before the next start."""

    class Asked(SqliteStore):
        async def declared_schedules(self):
            scheduler.add_job(nothing, Every("1m"), name="late")
            return await super().declared_schedules()

    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1m"), name="early")
    async with virtual_time(scheduler, store=Asked(tmp_path / "a.db")) as time:
        await time.advance("3m")
        assert len(await time.runs("late")) == len(await time.runs("early")) == 4
        run = await scheduler.submit("late", at="+1m")
        assert (await time.until(run.wait("5m"))).state is State.SUCCEEDED


async def test_jobs_that_are_added_removed_or_replaced_while_a_scheduler_starts_are_as_they_are_then(
    virtual_time, tmp_path
):
    """Of one added before the list of schedules was made others were not told, and of one replaced the old trigger held."""
    changes = [
        lambda: scheduler.add_job(
            nothing, Every("1h", anchor=START + timedelta(minutes=1)), name="late", on_start=True
        ),
        lambda: scheduler.remove_job("gone"),
        lambda: [scheduler.remove_job("replaced"), scheduler.add_job(nothing, Every("2h"), name="replaced")],
    ]

    class Asked(SqliteStore):
        async def workers(self, **which):
            if changes:
                changes.pop(0)()
            return await super().workers(**which)

        async def declared_schedules(self):
            while changes:
                changes.pop(0)()
            return await super().declared_schedules()

    scheduler = TaskScheduler(options=Options())
    for name in ("gone", "replaced"):
        scheduler.add_job(nothing, Every("1h"), name=name)
    async with virtual_time(scheduler, store=Asked(tmp_path / "a.db")) as time:
        await time.advance("1s")
        assert not changes and [sorted(one.jobs) for one in await scheduler._store.workers()] == [["late", "replaced"]]
        assert {str(one.trigger) for one in await scheduler.schedules("replaced")} == {"every 2h"}
        assert [run.cause for run in await time.runs("late")] == ["on_start"]


async def test_jobs_that_are_added_while_the_store_is_away_are_declared_when_it_is_back(virtual_time, tmp_path):
    """The first too, which the store has refused already when the second comes."""
    away: list[bool] = []

    class Away(SqliteStore):
        async def has_jobs(self, worker, jobs):
            away.append(len(away) < 3)
            if away[-1]:
                raise StoreUnavailable("it is away")
            await super().has_jobs(worker, jobs)

    scheduler = TaskScheduler(options=Options())
    async with virtual_time(scheduler, store=Away(tmp_path / "a.db")) as time:
        for name in ("first", "second"):
            scheduler.add_job(nothing, Every("1m"), name=name)
            await time.advance("0.1s")
        assert away[0] and not await scheduler.schedules()
        await time.advance("5m")
        assert [one.id for one in await scheduler.schedules()] == ["first", "second"]


def telling(scheduler):
    told = []
    scheduler.feed.subscribe(lambda event: told.append(event.name), "store_lost", "store_back")
    return told


async def test_a_store_is_not_back_by_a_beat_while_the_end_of_a_run_is_written_again(virtual_time, tmp_path):
    """Where that waits for the lock of a table it fails after 14 seconds; a beat of another table said it was back."""
    fails = {"settle": [0, 14], "changed": [0]}

    class Locked(SqliteStore):
        async def settle(self, settling):
            await told_to_wait("settle")
            return await super().settle(settling)

        async def changed(self):
            await told_to_wait("changed")
            return await super().changed()

    async def told_to_wait(what):
        if ended and fails[what]:
            await asyncio.sleep(fails[what].pop(0))
            raise StoreUnavailable("the table is not committed")

    scheduler, ended = TaskScheduler(options=Options()), []
    told = telling(scheduler)

    @scheduler.job()
    async def job() -> None:
        ended.append(1)

    async with virtual_time(scheduler, store=Locked(tmp_path / "a.db")) as time:
        run = await job.submit()
        await time.advance("13s")
        assert told == ["store_lost"]
        await time.advance("30s")
        assert told == ["store_lost", "store_back"] and (await scheduler.run(run.id)).state is State.SUCCEEDED


async def test_a_table_that_only_the_housekeeping_waits_for_does_not_have_a_store_lost_and_back_by_turns(
    virtual_time, tmp_path
):
    """Each of its tries takes as long as a lock is waited for; what else is written said each time that it was back."""
    locked = [True]

    class Locked(SqliteStore):
        async def changed(self):
            if locked:
                await asyncio.sleep(14)
                raise StoreUnavailable("the table is not committed")
            return await super().changed()

    scheduler = TaskScheduler(options=Options())
    told = telling(scheduler)
    scheduler.add_job(nothing, Every("500ms"), name="tick")
    async with virtual_time(scheduler, store=Locked(tmp_path / "a.db")) as time:
        await time.advance("2m")
        assert told == ["store_lost", "store_back", "store_lost"]
        locked.clear()
        await time.advance("20s")
        assert told[3:] == ["store_back"]


async def test_a_job_that_is_added_in_the_last_moment_of_a_start_is_declared(tmp_path):
    """Between the last look at what was added meanwhile and the first moment of a started scheduler: it never fired."""
    scheduler = TaskScheduler(tmp_path / "a.db", options=Options())

    async def add() -> None:
        while scheduler._guard is None or not scheduler._guard.beats:
            await asyncio.sleep(0)
        assert not scheduler.is_running
        scheduler.add_job(nothing, Every("1h"), name="late")

    await asyncio.gather(scheduler.start(), add())
    try:
        async with asyncio.timeout(10):
            while not await scheduler.runs("late", state="succeeded"):
                await asyncio.sleep(0.02)
        assert [sorted(one.jobs) for one in await scheduler._store.workers(living=True)] == [["late"]]
    finally:
        await scheduler.stop()


class Broken:
    """A trigger of somebody's own that cannot say when it is due."""

    recurring = True

    def __init__(self, why="no such day"):
        self.why = why

    def after(self, instant):
        raise ArithmeticError(self.why)

    latest = after

    def count(self, after, until):
        return 0

    def describe(self):
        return "broken"

    def __str__(self):
        return "every 1h"


async def test_a_job_whose_trigger_fails_keeps_none_of_those_that_are_added_with_it_from_firing(
    scheduler, virtual_time, lines
):
    """They are declared together, and nobody would have tried again before the next start."""
    async with virtual_time(scheduler) as time:
        for name in ("one", "broken", "two", "three", "broken-too"):
            scheduler.add_job(nothing, Broken() if name.startswith("broken") else Every("1m"), name=name)
        await time.advance("90s")
        assert {run.job for run in await time.runs()} == {"one", "two", "three"}
        assert lines.count("engine.failed") == 1


async def test_of_jobs_that_are_added_together_and_cannot_be_declared_each_is_named_with_its_error(
    scheduler, virtual_time
):
    """The last error alone was told, and whose it was nowhere."""
    said = []
    number = logger.add(lambda message: said.append(message.record["extra"]["error"]), level="ERROR")
    try:
        async with virtual_time(scheduler) as time:
            for name in ("broken", "well", "broken-too"):
                scheduler.add_job(nothing, Broken(f"no {name}") if "broken" in name else Every("1m"), name=name)
            await time.advance("1s")
    finally:
        logger.remove(number)
    [error] = said
    assert all(one in error for one in ("broken, broken-too", "('no broken')", "('no broken-too')"))


async def test_a_job_that_is_removed_while_a_run_of_it_goes_on_ends_no_watch_over_others(
    scheduler, virtual_time, lines
):
    scheduler.add_job(lasting(3600), name="gone")
    scheduler.add_job(lasting(3600), name="other", expect="1s")
    heard = []
    scheduler.feed.subscribe(lambda event: heard.append((event.job, event.data["condition"])), "overdue")
    async with virtual_time(scheduler) as time:
        for name in ("gone", "other"):
            await scheduler.submit(name)
        await time.advance("1s")
        scheduler.remove_job("gone")
        await time.advance("10m")
        assert heard == [("other", "stuck")] and "tending.failed" not in lines


async def test_what_disturbed_a_worker_is_on_record_once_though_it_stops_just_then(virtual_time, tmp_path):
    class Slow(SqliteStore):
        async def note(self, incidents, *heed):
            await super().note(incidents, *heed)
            await asyncio.sleep(5)

    store, scheduler = Slow(tmp_path / "a.db"), TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler, store=store) as time:
        time.step("5h")
        await time.advance("60s")
        await time.advance("1s")
        await time.until(scheduler.stop(grace=0))
        await store.open()
        noted = await store.incidents(START, time.now)
        await store.close()
        assert [one.kind for one in noted] == ["clock"]


# -- what cannot be read


async def test_a_schedule_of_a_zone_that_is_not_known_here_stops_no_other(tmp_path):
    scheduler, ran = TaskScheduler(tmp_path / "a.db", options=BRIEF), []

    async def tick():
        ran.append(1)

    scheduler.add_job(tick, Every("100ms"))
    job = scheduler.add_job(nothing, name="job")
    async with scheduler:
        await scheduler.schedule(job, Cron("* * * * *", timezone="Europe/Kyiv"), id="x")
    with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
        db.execute(
            "UPDATE taskloop_schedules SET trigger = replace(trigger, 'Kyiv', 'Nowhere'), next_due = 0 WHERE id = 'x'"
        )
    db.close()
    ran.clear()
    async with scheduler:
        await until(lambda: len(ran) > 3)
        [found] = await scheduler.schedules("job")
        assert "Nowhere" in str(found.trigger) and "not readable" in found.trigger.describe()
        assert found.next_due is not None, "its cursor stays for the day it can be read"
        await scheduler.schedule(job, Cron("* * * * *", timezone="Europe/Kyiv"), id="x")
        [found] = await scheduler.schedules("job")
        assert str(found.trigger).endswith("Kyiv")


# -- threads


async def test_a_call_that_waits_for_a_thread_can_be_cancelled_and_left_to_the_next_start(tmp_path):
    called, may_end = [], threading.Event()
    scheduler = TaskScheduler(tmp_path / "a.db", options=Options(threads=1, kill_grace=timedelta(milliseconds=300)))

    @scheduler.job()
    def long():
        may_end.wait(40)

    @scheduler.job(retry=3)
    def short(n: int):
        called.append(n)

    @scheduler.job()
    def once():
        called.append("once")

    await scheduler.start()
    await long.submit()
    await asyncio.sleep(0.1)
    left, gone, only = await short.submit(1), await short.submit(2), await once.submit()
    await asyncio.sleep(0.1)
    await scheduler.cancel(gone.id)
    assert (await gone.wait(timeout=20)).state is State.CANCELLED
    await scheduler.stop(grace=0)
    for one in (left, only):
        run = await scheduler.run(one.id)
        assert (run.state, run.attempt) == (State.WAITING, 0)
    may_end.set()
    await scheduler.close()
    await asyncio.sleep(0.2)
    assert called == []


async def test_a_pool_counts_its_spare_threads_right_however_calls_arrive():
    pool = InThread(8)
    for number in range(300):
        await asyncio.gather(*(pool.call(int, None, {}) for _ in range(1 + number % 4)))
    may_end, begun = threading.Event(), []

    def hold(number):
        begun.append(number)
        may_end.wait(5)

    calls = [asyncio.ensure_future(pool.call(hold, None, {"number": number})) for number in range(8)]
    await until(lambda: len(begun) == 8, 5)
    may_end.set()
    await asyncio.gather(*calls)
    pool.close()


async def test_a_pool_has_no_thread_more_than_it_may_once_one_that_waited_goes_on():
    pool, called = InThread(1), []
    is_lent, may_go_on, goes_on, may_end = (threading.Event() for _ in range(4))

    def waits_for_the_loop():
        pool.lend()
        is_lent.set()
        may_go_on.wait(5)
        pool.take_back()
        goes_on.set()
        may_end.wait(5)

    first = asyncio.ensure_future(pool.call(waits_for_the_loop, None, {}))
    await until(is_lent.is_set)
    await pool.call(called.append, None, {}, "meanwhile")  # by a thread that is idle then
    may_go_on.set()
    await until(goes_on.is_set)
    second = asyncio.ensure_future(pool.call(called.append, None, {}, "afterwards"))
    await asyncio.sleep(0.1)
    assert called == ["meanwhile"]
    may_end.set()
    await asyncio.gather(first, second)
    assert called == ["meanwhile", "afterwards"]
    pool.close()


async def test_a_call_that_comes_after_the_end_of_a_pool_is_made_all_the_same():
    """As that which lets go of what a call has opened, where its task was cancelled twice."""
    pool, called = InThread(2), []
    await asyncio.gather(*(pool.call(called.append, None, {}, number) for number in range(4)))
    pool.close()
    async with asyncio.timeout(5):
        await pool.call(called.append, None, {}, "late")
    assert sorted(called, key=str) == [0, 1, 2, 3, "late"]
    pool.close()


@pytest.fixture
def no_threads():
    """No thread can be started: its stack would be larger than any memory."""
    size = threading.stack_size()

    def refuse():
        threading.stack_size(1 << 46)

    yield refuse
    threading.stack_size(size)


async def test_a_call_is_refused_if_no_thread_can_be_started_and_the_next_one_is_not(no_threads):
    pool, called = InThread(2), []
    no_threads()
    for number in range(2):
        with pytest.raises(RuntimeError, match="thread"):
            await pool.call(called.append, None, {}, number)
    threading.stack_size(0)
    await pool.call(called.append, None, {}, 2)
    await asyncio.sleep(0.05)
    assert called == [2]
    pool.close()


async def test_a_call_waits_its_turn_if_no_further_thread_can_be_started(no_threads):
    pool, called, may_end = InThread(4), [], threading.Event()
    first = asyncio.ensure_future(pool.call(may_end.wait, None, {}, 5))
    await asyncio.sleep(0.05)
    no_threads()
    second = asyncio.ensure_future(pool.call(called.append, None, {}, 1))
    await asyncio.sleep(0.05)
    assert not second.done()
    threading.stack_size(0)
    may_end.set()
    await asyncio.gather(first, second)
    assert called == [1]
    pool.close()


# -- what an independent look found


class Weak(SqliteStore):
    """A store whose next call of one name fails, or does something else first."""

    name = ""

    def first(self):
        raise StoreUnavailable("the disk is away for a moment")

    async def _do(self, function, *args, heed=None):
        if function.__name__ == self.name:
            self.name = ""
            self.first()
        return await super()._do(function, *args, heed=heed)


async def test_a_step_back_is_made_up_for_though_the_store_was_away_just_then(virtual_time, tmp_path):
    store, scheduler = Weak(tmp_path / "a.db"), TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("10s"), name="job")
    async with virtual_time(scheduler, store=store) as time:
        await time.advance("65s")
        before = len(await time.runs("job"))
        store.name = "rewind"
        time.step("-1h")
        await time.advance("2m")
        assert len(await time.runs("job")) - before >= 10


@pytest.mark.parametrize("error", [StoreUnavailable, RuntimeError])
async def test_a_step_back_that_cannot_be_made_up_for_takes_no_grace_from_runs_of_a_worker_that_stops(
    error, virtual_time, tmp_path
):
    """Their runs were left to nobody's care, and the scheduler could not be started again."""

    def fail():
        store.name = "rewind"
        raise error("not now")

    store, scheduler, tape = Weak(tmp_path / "a.db"), TaskScheduler(options=Options()), []
    scheduler.add_job(lasting(60, tape), name="long")
    store.name, store.first = "rewind", fail
    async with virtual_time(scheduler, store=store) as time:
        handle = await scheduler.submit("long")
        stopping = asyncio.ensure_future(scheduler.stop(grace="5m"))
        await time.advance("1s")
        time.step("-1h")
        await time.advance("10s")
        assert not stopping.done()
        await time.until(stopping)
        assert tape == ["begin", "end"] and not scheduler.is_running
        store.name = ""
        await scheduler.start()
        assert scheduler.is_running and (await scheduler.run(handle.id)).state is State.SUCCEEDED


async def test_a_step_back_is_made_up_for_though_a_job_is_removed_just_then(virtual_time, tmp_path):
    store, scheduler = Weak(tmp_path / "a.db"), TaskScheduler(options=Options())
    for name in ("job", "gone"):
        scheduler.add_job(nothing, Every("10s"), name=name)
    store.first = lambda: scheduler.remove_job("gone")
    async with virtual_time(scheduler, store=store) as time:
        await time.advance("65s")
        before = len(await time.runs("job"))
        store.name = "rewind"
        time.step("-1h")
        await time.advance("2m")
        assert len(await time.runs("job")) - before >= 10


async def test_a_step_back_is_made_up_for_in_every_program_on_the_store(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/a.db"
    one, two = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    one.add_job(nothing, Every("10s"), name="a")
    two.add_job(nothing, Every("10s"), name="b")
    async with virtual_time(one, store=address) as time:
        await time.join(two, address)
        await time.advance("65s")
        before = len(await two.runs("b", limit=1000))
        time.step("-1h")
        await time.advance("2m")
        assert 10 <= len(await two.runs("b", limit=1000)) - before <= 14


async def test_a_step_forward_is_a_missed_period_for_two_workers_of_one_machine_too(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/a.db"
    one, two = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    for scheduler in (one, two):
        scheduler.add_job(nothing, Every("1h"), name="job", missed="skip")
    async with virtual_time(one, store=address) as time:
        await time.join(two, address)
        await time.advance("10s")
        time.step("5h")
        await time.advance("1m")
        assert [(run.state, run.count) for run in await time.runs("job", state=list(State))][1:] == [(State.SKIPPED, 5)]


async def test_a_thread_begins_no_call_while_it_is_in_doubt_whose_run_it_is():
    """The process stood still since the call was queued; what turns out to be lost is withdrawn."""
    pool, called, sure = InThread(2), [], threading.Event()
    lost, kept = (run_context() for _ in range(2))
    lost.trusted = kept.trusted = sure.is_set
    calls = [asyncio.ensure_future(pool.call(lambda name=name: called.append(name), one, {})) for name, one in
             (("lost", lost), ("kept", kept))]  # fmt: skip
    await asyncio.sleep(0.1)
    assert called == []
    lost.withdraw()
    with pytest.raises(AttemptCancelled):
        await calls[0]
    sure.set()
    await calls[1]
    assert called == ["kept"]
    pool.close()


@pytest.mark.parametrize("begins", ["before it is on record", "when it is on record", "when its jobs are"])
async def test_a_start_waits_for_a_file_that_somebody_holds_for_a_while(tmp_path, monkeypatch, begins):
    """As a program does that is stopped in the middle of a transaction."""
    monkeypatch.setattr(file_sqlite, "BUSY_SECONDS", 0.1)

    class Held(SqliteStore):
        async def enlist(self, worker):
            found = await super().enlist(worker)
            if begins == "when it is on record":
                await asyncio.to_thread(hold)
            return found

        async def define(self, definitions):
            await super().define(definitions)
            if begins == "when its jobs are" and held == []:
                await asyncio.to_thread(hold)

    held = []

    def hold():
        other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        held.append(threading.Timer(0.5, lambda: (other.execute("ROLLBACK"), other.close())))
        held[0].start()

    scheduler = TaskScheduler(Held(tmp_path / "a.db"), options=BRIEF)
    scheduler.add_job(nothing, Every("1h"), name="job", first="after", on_start=True)
    if begins == "before it is on record":
        await scheduler.runs()
        hold()
    begun = time.monotonic()
    async with scheduler:
        assert time.monotonic() - begun > 0.4
        async with asyncio.timeout(20):
            while not await scheduler.runs(state="succeeded"):
                await asyncio.sleep(0.02)
        assert len(await scheduler.runs()) == 1
    held[0].join()


async def test_a_stop_does_not_wait_for_a_start_that_waits_for_its_store(tmp_path):
    scheduler = TaskScheduler(tmp_path / "a.db", options=BRIEF)
    await scheduler.runs()
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        starting = asyncio.create_task(scheduler.start())
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        await scheduler.stop(grace=0)
        assert time.monotonic() - begun < 2
        await starting
        assert not scheduler.is_running
    async with scheduler:
        assert scheduler.is_running


async def test_a_stop_does_not_wait_for_a_start_that_waits_for_a_server_that_says_nothing():
    """As behind a firewall that drops what it is sent."""
    lines = []
    silent = await asyncio.start_server(lambda *line: lines.append(line), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    scheduler = TaskScheduler(f"postgresql://anna:hush@127.0.0.1:{port}/shop", options=BRIEF)
    starting = asyncio.create_task(scheduler.start())
    while not lines:
        await asyncio.sleep(0.01)
    begun = time.monotonic()
    await scheduler.stop(grace=0)
    assert time.monotonic() - begun < 1
    await starting
    assert not scheduler.is_running
    for _, writer in lines:
        writer.close()
    silent.close()


async def test_a_run_that_begins_while_the_store_is_asked_what_we_hold_is_ours(tmp_path):
    class Slow(SqliteStore):
        async def in_hand(self, worker):
            found = await super().in_hand(worker)
            await asyncio.sleep(0.2)
            return found

    scheduler = TaskScheduler(Slow(tmp_path / "a.db"), options=BRIEF)

    @scheduler.job()
    async def job():
        await asyncio.sleep(0.4)

    async with scheduler:
        scheduler._guard.heard_beat(False)
        await asyncio.sleep(0.01)
        handle = await job.submit()
        assert (await handle.wait(timeout=20)).state is State.SUCCEEDED


async def test_a_job_removed_while_its_run_waits_for_trust_leaves_no_slot_taken(tmp_path):
    scheduler, told = TaskScheduler(tmp_path / "a.db", options=BRIEF), []
    scheduler.add_job(nothing, name="job")
    scheduler.feed.subscribe(lambda event: told.append(event.run.reason), "interrupted")
    async with scheduler:
        # While the first look at what waits goes on, all slots are reserved for it, and what is asked for waits.
        await until(lambda: not scheduler._fires.is_behind and scheduler._slots.free == 64)
        trusted = []
        scheduler._slots.trusted = lambda: bool(trusted)
        handle = await scheduler.submit("job")
        await asyncio.sleep(0.05)
        scheduler.remove_job("job")
        trusted.append(1)
        assert (await handle.wait(timeout=20)).reason == "unknown_job"
        assert told == ["unknown_job"]
        assert scheduler._slots.free == 64


async def test_an_attempt_that_was_asked_to_end_before_it_began_is_kept_by_nobody(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job", timeout="1s")
    async with virtual_time(scheduler) as time:
        sure = [True]  # as it is launched, and for two seconds not
        until = time.now + timedelta(seconds=2)
        scheduler._slots.trusted = lambda: bool(sure and sure.pop()) or time.now > until
        run = await scheduler.submit("job")
        await time.advance("1m")
        assert (await scheduler.run(run.id)).final
        assert not scheduler._slots._left and not scheduler._slots.attempts


async def test_a_look_at_what_waits_keeps_nothing_waiting_that_is_asked_for_here(tmp_path):
    class Slow(SqliteStore):
        looks: asyncio.Event | None = None

        async def claim(self, *args, **more):
            if self.looks is not None:
                self.looks.set()
                await goes_on.wait()
            return await super().claim(*args, **more)

    goes_on = asyncio.Event()
    scheduler = TaskScheduler(store := Slow(tmp_path / "a.db"), options=BRIEF)
    scheduler.add_job(nothing, name="job")
    async with scheduler:
        await until(lambda: not scheduler._fires.is_behind)
        store.looks = asyncio.Event()
        scheduler._fires.stir()  # as when another process has written
        await store.looks.wait()
        handle = await scheduler.submit("job")
        assert (await handle.wait(timeout=5)).state is State.SUCCEEDED
        assert not goes_on.is_set()
        goes_on.set()


class Full(SqliteStore):
    """A store on a disk that is full for a while."""

    is_full = False

    def _write(self, verb, work, heed=None):
        if not self.is_full:
            return super()._write(verb, work, heed)
        error = StoreUnavailable("database or disk is full")
        if heed is not None:
            heed(error)
        raise error

    def settle(self, settling):
        return refused(StoreUnavailable("database or disk is full")) if self.is_full else super().settle(settling)


@pytest.mark.parametrize("then", ["it stops", "another run is asked for"])
async def test_what_a_run_came_to_while_the_disk_was_full_is_written_as_soon_as_there_is_room(
    then, virtual_time, tmp_path
):
    """It had waited for up to five seconds more, and a stop with less grace than that left the run as running."""
    store, scheduler = Full(tmp_path / "a.db"), TaskScheduler(options=Options(kill_grace=timedelta(milliseconds=10)))
    scheduler.add_job(nothing, name="next")

    @scheduler.job()
    async def fills():
        store.is_full = True

    async with virtual_time(scheduler, store=store) as time:
        run = await fills.submit()
        await time.advance("1m")
        assert (await scheduler.run(run.id)).state is State.RUNNING
        store.is_full = False
        if then == "it stops":
            await time.until(scheduler.stop(grace="10ms"))
        else:
            await time.advance("150ms")  # what goes well right after a failure is no sign that it is over
            await time.until((await scheduler.submit("next")).wait())
            await time.advance("10ms")
        assert (await scheduler.run(run.id)).state is State.SUCCEEDED


async def test_an_attempt_ends_before_the_next_one_begins_though_one_transaction_does_both(tmp_path):
    """The next was told first: a span of it ended with the one before, whose own never did."""
    scheduler = TaskScheduler(tmp_path / "a.db", options=BRIEF)
    told, fails, writes = [], asyncio.Event(), threading.Event()

    @scheduler.job(retry=Retry(2, "0s"))
    async def twice(run: RunContext):
        if run.attempt == 1:
            await fails.wait()
            raise ValueError("again")

    scheduler.feed.subscribe(lambda event: told.append((event.name, event.run.attempt)), "started", "retrying")
    async with scheduler:
        handle = await twice.submit()
        await until(lambda: told)
        store = scheduler._store
        busy = asyncio.ensure_future(store._do(lambda _: writes.wait(10)))
        await until(lambda: store._writing._in_hand)
        fails.set()
        for waiting in (1, 2):  # the end, and a claim
            await until(lambda waiting=waiting: len(store._writing._queue) == waiting)
            scheduler._fires.freed(stirred=True, waits=True)  # as when another run has ended
        writes.set()
        await busy
        assert (await handle.wait(timeout=5)).state is State.SUCCEEDED
        assert scheduler._slots.free == scheduler.options.max_running and not scheduler._slots.expecting
    assert told == [("started", 1), ("retrying", 1), ("started", 2)]


@pytest.mark.parametrize("when", ["as it is refused", "while it waits", "while that of a job with a breaker waits"])
def test_what_a_full_disk_refused_is_written_though_the_host_ends_its_loop_without_a_stop(when, tmp_path):
    """The writing was cancelled with all other tasks: the run was on record as running, and nobody said so."""
    store = Full(tmp_path / "a.db")
    scheduler = TaskScheduler(store, options=Options(kill_grace=timedelta(seconds=10)))

    @scheduler.job(pause_after=3 if "breaker" in when else None)
    async def fills():
        store.is_full = True

    async def host():
        await scheduler.start()
        await fills.submit()
        while not (scheduler._slots._writes if when == "as it is refused" else scheduler._store_watch.lost_at):
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, setattr, store, "is_full", False)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # as `asyncio.run` does, in a later turn
            task.cancel()

    asyncio.run(host())
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        assert db.execute("SELECT state FROM taskloop_runs").fetchall() == [("succeeded",)]


async def test_no_wish_is_lost_with_one_that_cannot_be_granted_at_once(tmp_path):
    class Away(SqliteStore):
        fails = 0

        async def cancel(self, *args, **more):
            if self.fails:
                self.fails -= 1
                raise StoreUnavailable("away for a moment")
            return await super().cancel(*args, **more)

    store = Away(tmp_path / "a.db")
    scheduler = TaskScheduler(store, options=BRIEF)

    async def long():
        await asyncio.sleep(60)

    short, lasting = scheduler.add_job(nothing, name="short"), scheduler.add_job(long)
    async with scheduler:
        one, other = await short.submit(), await lasting.submit()
        await one.wait(timeout=20)
        store.fails = 1
        with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
            for run in (one, other):
                db.execute("INSERT INTO taskloop_wishes (run, kind, at) VALUES (?, 'cancel', 0)", (run.id,))
        db.close()
        assert (await other.wait(timeout=10)).state is State.CANCELLED
        await until(lambda: not store.fails)


async def test_no_wish_is_lost_that_a_hanging_disk_hands_out_after_nobody_waits_for_it(tmp_path):
    scheduler = TaskScheduler(SqliteStore(tmp_path / "a.db", call_seconds=0.3), options=BRIEF)
    job = scheduler.add_job(lasting(60), name="job")
    db = sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=10)
    async with scheduler:
        run = await job.submit()
        await asyncio.sleep(0.2)
        db.execute("INSERT INTO taskloop_wishes (run, kind, at) VALUES (?, 'cancel', 0)", (run.id,))
        db.execute("BEGIN IMMEDIATE")
        await until(lambda: scheduler._store_watch.lost_at is not None)
        db.execute("ROLLBACK")
        assert (await run.wait(timeout=10)).state is State.CANCELLED
    db.close()


async def test_a_submit_that_a_hanging_disk_refused_is_not_carried_out_later(tmp_path):
    store = SqliteStore(tmp_path / "a.db", call_seconds=0.3)
    scheduler = TaskScheduler(store, options=BRIEF)
    job = scheduler.add_job(nothing, name="job")
    async with scheduler:
        await (await job.submit()).wait(timeout=20)
        with locked(tmp_path / "a.db"):
            first = asyncio.ensure_future(job.submit())
            await asyncio.sleep(0.05)
            second = asyncio.ensure_future(job.submit())
            answers = await asyncio.gather(first, second, return_exceptions=True)
            assert all(isinstance(one, StoreUnavailable) for one in answers)
        await until(lambda: not store._writing._hangs)
        await asyncio.sleep(0.3)
        assert len(await scheduler.runs("job")) <= 2, "the one before, and at most the one that was in hand"


async def test_nothing_is_remembered_of_workers_of_other_machines_that_have_left(virtual_time, scheduler, tmp_path):
    """Commands that come and go each minute would fill the memory of one that stays."""
    async with virtual_time(scheduler, store=SqliteStore(tmp_path / "a.db")) as time:
        elsewhere = SqliteStore(tmp_path / "a.db")
        await elsewhere.open()
        other = replace(scheduler.worker, id="other", host="elsewhere", process="m:b:1:2")
        await elsewhere.enlist(other)
        await time.advance("2s")
        assert "other" in scheduler._tending._seen
        await elsewhere.leave("other", time.now)
        await time.advance("2s")
        assert not scheduler._tending._seen and scheduler._tending.others == []
        await elsewhere.close()


async def test_a_row_that_nobody_here_can_read_keeps_the_housekeeping_from_nothing_else(
    scheduler, virtual_time, lines, tmp_path
):
    """As one that a worker of a later version has written; no progress, cancel, flag or prune of anybody came through."""

    @scheduler.job()
    async def job(run: RunContext):
        run.progress(7)
        await asyncio.sleep(3600)

    async with virtual_time(scheduler, store=SqliteStore(tmp_path / "a.db")) as time:
        elsewhere = SqliteStore(tmp_path / "a.db")
        await elsewhere.open()
        await elsewhere.know([Terms("job")])
        gone = replace(scheduler.worker, id="gone", host="elsewhere", process="m:b:1:2")
        await elsewhere.enlist(gone)
        await elsewhere.submit([Run(job="job", due_at=time.now, ready_at=time.now, created_at=time.now)])
        [left] = (await elsewhere.claim("gone", time.now, 1)).started
        with database(tmp_path / "a.db") as db:
            db.execute("UPDATE taskloop_runs SET cause = 'telepathy' WHERE id = ?", (left.id,))
            db.commit()
        run = await job.submit()
        await elsewhere.leave("gone", time.now)
        await time.advance("30s")
        assert (await elsewhere.run(run.id)).progress.done == 7
        await elsewhere.cancel(run.id, actor="ann", reason="enough", now=time.now)
        assert (await time.until(run.wait())).state is State.CANCELLED
        assert lines.count("tending.failed") == 1
        await elsewhere.close()
