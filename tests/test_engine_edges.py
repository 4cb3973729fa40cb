"""Stories of the edges: what a review of the engine found by reading, told so that it stays mended."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from taskloop import Every, Inject, Options, Retry, RunContext, State, TaskScheduler, current_run
from taskloop.errors import Conflict

pytestmark = pytest.mark.anyio


async def test_plain_jobs_run_side_by_side_although_one_thread_is_idle():
    scheduler = TaskScheduler(":memory:", options=Options(threads=4))
    together = threading.Barrier(4)

    @scheduler.job()
    def meet() -> int:
        return together.wait(10)

    @scheduler.job()
    def first() -> None: ...

    async with scheduler:
        await (await first.submit()).value("10s")
        runs = await scheduler.submit_many([meet.bind() for _ in range(4)])
        assert sorted([await run.value("10s") for run in runs]) == [0, 1, 2, 3]


async def test_a_run_cancelled_while_it_waits_for_a_thread_is_never_called():
    scheduler = TaskScheduler(":memory:", options=Options(threads=1))
    go, called, busy = threading.Event(), [], threading.Event()

    @scheduler.job()
    def hold() -> None:
        busy.set()
        go.wait(10)

    @scheduler.job()
    def later() -> None:
        called.append(1)

    async with scheduler:
        held = await hold.submit()
        while not busy.is_set():
            await asyncio.sleep(0.005)
        waiting = await later.submit()
        await scheduler.cancel(waiting.id)
        go.set()
        assert (await held.wait("10s")).state == "succeeded"
        assert (await waiting.wait("10s")).state == "cancelled"
    assert called == []


@pytest.mark.parametrize("message", [Path("x"), "\ud800", "a\0b", "x" * 5000], ids=["path", "surrogate", "nul", "long"])
async def test_whatever_a_job_reports_its_end_is_recorded(virtual_time, message):
    scheduler = TaskScheduler()

    @scheduler.job()
    async def tell() -> None:
        current_run().progress(1, 2, message)

    async with virtual_time(scheduler) as time:
        run = await tell.submit()
        done = await time.until(run.wait())
        assert done.state == "succeeded"
        assert len(done.progress.message) <= 1000


async def test_a_pause_that_ends_by_itself_lets_go_what_it_held(virtual_time):
    scheduler = TaskScheduler()

    @scheduler.job()
    async def held() -> None: ...

    @scheduler.every("1h", first="after")
    async def hourly() -> None: ...

    async with virtual_time(scheduler) as time:
        await scheduler.pause(until="+90m")
        run = await held.submit()
        await time.advance("89m")
        assert (await scheduler.run(run.id)).state == "waiting"
        await time.advance("2m")
        assert (await scheduler.run(run.id)).state == "succeeded"
        assert [(one.state, one.cause) for one in await time.runs("hourly")] == [("succeeded", "catch_up")]


async def test_a_pause_laid_over_a_pause_still_settles_what_the_first_held(virtual_time):
    scheduler = TaskScheduler()

    @scheduler.every("1h", first="after")
    async def hourly() -> None: ...

    async with virtual_time(scheduler) as time:
        await scheduler.pause("hourly")
        await time.advance("61m")
        await scheduler.pause("hourly", reason="again")
        await time.advance("1m")
        await scheduler.resume("hourly", missed="skip")
        await time.advance("1m")
        assert [one.reason for one in await time.runs("hourly", "skipped")] == ["missed"]
        assert await time.runs("hourly", "succeeded") == []


async def test_a_retry_without_delay_stays_in_hand(virtual_time):
    scheduler = TaskScheduler()
    attempts = []

    @scheduler.job(retry=Retry(attempts=3, first=0))
    async def again(run: RunContext) -> None:
        attempts.append(run.attempt)
        if run.attempt < 3:
            raise OSError("once more")
        await asyncio.sleep(3600)

    async with virtual_time(scheduler) as time:
        run = await again.submit()
        await time.advance("10s")
        assert attempts == [1, 2, 3]
        await scheduler.cancel(run.id)
        assert (await time.until(run.wait())).state == "cancelled"


async def test_a_cancel_outranks_a_timeout_that_would_be_retried(virtual_time):
    scheduler = TaskScheduler()

    @scheduler.job(timeout="1m", retry=3)
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(2)

    async with virtual_time(scheduler) as time:
        run = await slow_to_end.submit()
        await time.advance("61s")
        await scheduler.cancel(run.id)
        await time.advance("10s")
        assert (await scheduler.run(run.id)).state == "cancelled"


@pytest.mark.parametrize(
    ("seconds", "record"),
    [(2, (State.CANCELLED, "by hand", None)), (60, (State.FAILED, None, "Timeout"))],
    ids=["it returns", "it is abandoned"],
)
async def test_a_cancel_after_a_timeout_does_not_bring_back_the_time(virtual_time, seconds, record):
    scheduler, seen = TaskScheduler(), []

    async def session():
        try:
            yield "session"
        except TimeoutError as error:
            seen.append(type(error))
            raise

    @scheduler.job(timeout="1m", retry=3)
    async def late(session: str = Inject(session)) -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(seconds)
        return "finished"

    async with virtual_time(scheduler) as time:
        run = await late.submit()
        await time.advance("61s")
        await scheduler.cancel(run.id, reason="by hand")
        await time.advance("2m")
        ended = await scheduler.run(run.id)
        assert (ended.state, ended.reason, ended.error and ended.error.type) == record
        assert ended.result is None and seen == [TimeoutError]


async def test_a_renamed_job_takes_its_waiting_runs_schedules_and_pauses_along(tmp_path):
    before = TaskScheduler(tmp_path / "a.db")

    @before.job()
    async def old() -> None: ...

    async with before:
        run = await before.submit("old", at="+2h")
        await before.schedule("old", Every("1d"), id="daily")
        await before.pause("old", reason="a move")
    after = TaskScheduler(tmp_path / "a.db")

    @after.job(name="new", aliases=("old",))
    async def renamed() -> None: ...

    async with after:
        assert (await after.run(run.id)).job == "new"
        assert [one.job for one in await after.schedules()] == ["new"]
        assert [one.condition for one in await after.jobs() if one.name == "new"] == ["paused"]


async def test_what_a_dead_worker_left_is_taken_on_by_the_one_that_lives(tmp_path):
    from datetime import timedelta

    options = Options(heartbeat=timedelta(milliseconds=50), lease=timedelta(seconds=60))
    dead, alive = TaskScheduler(tmp_path / "a.db", options=options), TaskScheduler(tmp_path / "a.db", options=options)
    calls = []

    async def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(3600)

    for scheduler in (dead, alive):
        scheduler.add_job(work, Every("1w", anchor="2020-01-01T00:00Z"), retry=2)
    await dead.start()
    run = await dead.submit("work")
    while not calls:
        await asyncio.sleep(0.005)
    await alive.start()
    # The worker's process is "gone": its row names one that never was, and it has no more to say.
    await dead._store._do(
        lambda db: db.execute("UPDATE taskloop_workers SET pid = 4194304 WHERE id = ?", (dead.worker.id,))
    )
    ended = await alive.wait(run.id, "15s")
    assert (ended.state, ended.attempt, len(calls)) == ("succeeded", 2, 2)
    await alive.stop(0)
    await dead.stop(0)


async def test_what_a_run_leaves_waits_for_no_garbage_collector(virtual_time):
    """A loop that runs thousands would stand still while their remains are looked for."""
    scheduler = TaskScheduler("sqlite:///:memory:")

    @scheduler.job()
    async def nothing() -> None: ...

    async with virtual_time(scheduler) as time:
        for number in range(60):
            if number == 10:  # what is made once is there
                gc.collect()
                gc.disable()
            await scheduler.submit("nothing")
            await time.run_until_idle()
        try:
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [type(one).__name__ for one in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left.count("Attempt") == left.count("RunContext") == 0


async def test_a_step_that_begins_when_its_run_has_ended_is_refused_and_not_called(virtual_time):
    scheduler, kept, called = TaskScheduler("sqlite:///:memory:"), [], []

    @scheduler.job()
    async def careless(run: RunContext) -> None:
        kept.append(run)

    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("careless")
        await time.run_until_idle()
        with pytest.raises(Conflict, match="the attempt has ended"):
            await kept[0].step("late", called.append, 1)
        assert not called and not await scheduler.steps(run.id)
